package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Where a rename cannot put a finished tree (the path is a mount point, lies
// in a lower layer of an overlay, or on a file system that exchanges nothing),
// on_conflict replace binds it there instead, which is as atomic:
//
//	<parent>/.<base>.stage-<id>/new      staged, as always
//	<parent>/.<base>.bound-<id>/new      kept, and mounted on <parent>/<base>
//
// It stays on the file system where it was staged, in a directory that is
// closed to all others. What was at the path stays there too, below the mount,
// and is seen again when that is taken down. Set-user-id bits and devices have
// no effect through it, as what it covers may have been mounted so.

const boundInfix = ".bound-"

func boundName(base, id string) string {
	return strings.TrimSuffix(stageName(base, id), stageInfix+id) + boundInfix + id
}

// mayBind says why nothing can be bound over what is at the place.
func (p *place) mayBind(file bool) error {
	switch {
	case geteuid() != 0:
		return fmt.Errorf("%w: %s is a mount point or belongs to a lower layer; only root can bind something over it",
			ErrConflict, quote(p.path))
	case file != (p.there == aFile), file && p.st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is a mount point or belongs to a lower layer, and is %s: %s cannot be bound over it", ErrConflict,
			quote(p.path), typeName(p.st.Mode), map[bool]string{true: "a file", false: "a directory"}[file])
	}
	return nil
}

// bind keeps the stage and mounts what is in it at the place. It is synced.
func (p *publishing) bind() (fp Fingerprint, taken bool, err error) {
	st, err := fstat(p.root)
	if err != nil {
		return fp, false, err
	}
	if err := p.place.mayBind(st.Mode&unix.S_IFMT != unix.S_IFDIR); err != nil {
		return fp, false, err
	}
	// No rename changes the root here, so its change time is set like this.
	if err := chmod(p.root, st.Mode&0o7777); err != nil {
		return fp, false, err
	}
	if st, err = fstat(p.root); err != nil {
		return fp, false, err
	}
	fp = Fingerprint{Dev: st.Dev, Ino: st.Ino, ChangeTimeNS: nanoseconds(st.Ctim)}
	tree, err := openat(p.stage.fd, staged, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fp, false, err
	}
	defer unix.Close(tree)
	p.tree = BoundTree(path.Join(path.Dir(p.place.path), p.stage.name, staged))
	stage, kept := p.stage.name, path.Base(path.Dir(p.tree))
	if err := renameat2(p.place.parent, stage, p.place.parent, kept, 0); err != nil {
		return fp, false, fmt.Errorf("keep %s: %w", quote(kept), err)
	}
	if err = p.syncParent(); err == nil {
		err = mountOver(tree, p.place.parent, p.place.base, p.over)
	}
	if err != nil {
		err = errors.Join(err, renameat2(p.place.parent, kept, p.place.parent, stage, 0))
		return fp, false, fmt.Errorf("bind it to %s: %w", quote(p.place.path), err)
	}
	unix.Close(p.stage.fd)
	p.stage.fd = -1 // it is no stage any more
	return fp, true, nil
}

// mountOver mounts what the descriptor tree is of on base in parent. What is
// mounted there under the fingerprint over gives way, if the kernel can in the
// same moment.
func mountOver(tree, parent int, base string, over *Fingerprint) error {
	clone, err := unix.OpenTree(tree, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(clone)
	// Private: what is mounted inside of it later is not mounted in the tree
	// where it is kept. (Kernels before 5.12 cannot say this.)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, &attr); err != nil && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	target, err := openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { unix.Close(target) }()
	const onto = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if over != nil && isBound(target, *over) {
		const beneath = 0x200 // MOVE_MOUNT_BENEATH, since Linux 6.5
		if unix.MoveMount(clone, "", target, "", onto|beneath) == nil {
			return detach(target)
		}
		if err := detach(target); err != nil {
			return err
		}
		unix.Close(target)
		if target, err = openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0); err != nil {
			return err
		}
	}
	return unix.MoveMount(clone, "", target, "", onto)
}

// isBound says whether the descriptor is of the root of a mount of the tree
// with this fingerprint.
func isBound(fd int, fp Fingerprint) bool {
	st, err := statx(fd, "")
	return err == nil && isMountRoot(&st) && fp.is(&st)
}

// detach takes the mount away whose root the descriptor is of. Who has files
// open in it keeps them.
func detach(fd int) error {
	return unix.Unmount("/proc/self/fd/"+strconv.Itoa(fd), unix.MNT_DETACH)
}

// BoundTree is where a tree is kept that was staged at root (see Staged.Root),
// if it had to be bound to its path.
func BoundTree(root string) string {
	dir, stage := path.Split(path.Dir(root))
	i := strings.LastIndex(stage, stageInfix)
	if i < 0 {
		return ""
	}
	return path.Join(dir, stage[:i]+boundInfix+stage[i+len(stageInfix):], staged)
}

// IsBound says whether what has this fingerprint is mounted at objectPath now.
func IsBound(objectPath string, fp Fingerprint) bool {
	parent, base, err := openParent(objectPath)
	if err != nil {
		return false
	}
	defer unix.Close(parent)
	fd, err := openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return isBound(fd, fp)
}

// Bind mounts a tree at objectPath that an Extract said it bound there
// (Result.Tree), after a reboot for example. If it is mounted already Bind
// does nothing; if nothing is at objectPath it makes something to mount on. If
// the tree is not there the error wraps fs.ErrNotExist; if something else is,
// ErrConflict.
func Bind(objectPath, tree string, fp Fingerprint) error {
	if IsBound(objectPath, fp) {
		return nil
	}
	err := bindAgain(objectPath, tree, fp)
	if errors.Is(err, unix.ENOTDIR) { // a tree over a file, or the other way round
		err = fmt.Errorf("%w: %w", ErrConflict, err)
	}
	if err != nil {
		return fmt.Errorf("bind %s to %s: %w", quote(tree), quote(objectPath), err)
	}
	return nil
}

func bindAgain(objectPath, tree string, fp Fingerprint) error {
	from, name, err := openParent(tree)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	fd, err := openPublished(from, name, fp, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	placing.Lock()
	defer placing.Unlock()
	p, err := find(objectPath, false, "", Options{}, true)
	if err != nil {
		return err
	}
	defer p.close()
	if p.there == vacant {
		st, err := fstat(fd)
		if err == nil {
			err = p.makeMountPoint(st.Mode&unix.S_IFMT == unix.S_IFDIR)
		}
		if err != nil {
			return err
		}
	}
	return mountOver(fd, p.parent, p.base, nil)
}

// makeMountPoint makes something to mount on.
func (p *place) makeMountPoint(dir bool) error {
	if dir {
		return retry(func() error { return unix.Mkdirat(p.parent, p.base, 0o755) })
	}
	fd, err := openat(p.parent, p.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// Unbind takes the mount at objectPath away if it is of this fingerprint. The
// tree stays where it is kept. If other file systems are mounted inside of it
// the error wraps ErrConflict.
func Unbind(objectPath string, fp Fingerprint) error {
	parent, base, err := openParent(objectPath)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	fd, err := openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open %s: %w", quote(objectPath), err)
	}
	defer unix.Close(fd)
	if !isBound(fd, fp) {
		return nil
	}
	if err := noMountsBelow(objectPath); err != nil {
		return err
	}
	if err := detach(fd); err != nil {
		return fmt.Errorf("unmount %s: %w", quote(objectPath), err)
	}
	return nil
}

// ReleaseBound takes the mount of a tree at objectPath away and moves the tree
// to a name beside it, which it returns: for files that are to be kept when
// nobody will make the mount again.
func ReleaseBound(objectPath, tree string, fp Fingerprint) (released string, err error) {
	if err := Unbind(objectPath, fp); err != nil {
		return "", err
	}
	from, name, err := openParent(tree)
	if err != nil {
		return "", err
	}
	defer unix.Close(from)
	parent, base, err := openParent(objectPath)
	if err != nil {
		return "", err
	}
	defer unix.Close(parent)
	fd, err := openPublished(from, name, fp, unix.O_PATH)
	if err != nil {
		return "", err
	}
	unix.Close(fd)
	if base, err = renameFree(from, name, parent, base, ".kept"); err != nil {
		return "", fmt.Errorf("move %s out: %w", quote(tree), err)
	}
	return path.Join(path.Dir(path.Clean(objectPath)), base), RemoveBound(tree)
}

// RemoveBound deletes a tree that was bound somewhere (Result.Tree), edited or
// not, with the directory that it is kept in. That it is gone, or half gone,
// is no error.
func RemoveBound(tree string) error {
	kept := path.Base(path.Dir(tree))
	if path.Base(tree) != staged || !strings.Contains(kept, boundInfix) {
		return fmt.Errorf("%w: %s is not kept for a mount", ErrConflict, quote(tree))
	}
	parent, _, err := openParent(path.Dir(tree))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return sweepStage(parent, kept)
}

// sweepBound deletes a tree that was kept to be bound to base in parent, if it
// never came to that.
func sweepBound(parent int, base, id string) error {
	name := boundName(base, id)
	st, err := statx(parent, name+"/"+staged)
	if errors.Is(err, unix.ENOENT) {
		return sweepStage(parent, name)
	}
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) {
			return nil // not ours
		}
		return err
	}
	there, err := openat(parent, base, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err == nil {
		defer unix.Close(there)
		if isBound(there, Fingerprint{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}) {
			return nil
		}
	}
	return sweepStage(parent, name)
}
