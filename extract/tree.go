package extract

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// tree makes the entries of one archive below a root directory that nobody
// else can reach.
//
// Directories are made so that they can be filled, and get their own modes and
// times when all else is done (see dirLog). Everything is done by the
// descriptor of what was just made. Small files are made by the writers.
type tree struct {
	dirs    *dirs
	writers *writers
	budget  *budget
	log     dirLog
	owner   *Owner // whom new things shall belong to; nil: as the kernel has it
	keep    bool   // owners of the archive instead
	xattrs  bool   // restore user.*
	unasked uint32 // mode bits that the kernel takes from a new file

	// What was skipped; the writers count too.
	unowned  atomic.Int64
	noXattrs atomic.Int64
	setIDs   int64
	progress func()
}

// maxJob is the largest file that is handed to the writers.
const maxJob = ringBuffer

// newTree makes a tree below the directory root. In stage, a directory beside
// it, the tree may put what it has to remember.
func newTree(root, stage int, b *budget, owner *Owner, opts Options) (*tree, error) {
	d, err := newDirs(root)
	if err != nil {
		return nil, err
	}
	t := &tree{
		dirs: d, budget: b, owner: owner, keep: opts.PreserveOwner, xattrs: opts.Xattrs,
		unasked: unaskedBits(root), log: dirLog{dir: stage, fd: -1},
	}
	t.writers = newWriters(t.makeSmall)
	return t, nil
}

func (t *tree) close() {
	t.writers.close()
	t.dirs.close()
	t.log.close()
}

// skipped is what was left out so far. The writers must have settled.
func (t *tree) skipped() Skipped {
	return Skipped{Owners: t.unowned.Load(), Xattrs: t.noXattrs.Load(), SetIDs: t.setIDs}
}

// fill makes every entry of an archive.
func (t *tree) fill(ctx context.Context, m *members) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := m.next()
		if err == io.EOF {
			return t.writers.settle()
		}
		if err != nil {
			return err
		}
		if err := t.make(&e, m); err != nil {
			return locate(err, e.rawName, e.offset)
		}
		if err := t.writers.failed(); err != nil {
			return err
		}
		if t.progress != nil {
			t.progress()
		}
	}
}

// make makes one entry, or sees to it that a writer does.
func (t *tree) make(e *entry, m *members) error {
	if err := t.budget.member(); err != nil {
		return err
	}
	owner := t.owner
	if t.keep {
		o, err := e.owner()
		if err != nil {
			return err
		}
		owner = &o
	}
	if len(e.xattrs) > 0 {
		wanted, skipped, err := wantedXattrs(e, t.xattrs)
		if err != nil {
			return err
		}
		e.xattrs = wanted
		t.noXattrs.Add(skipped)
	}
	if e.setID {
		t.setIDs++
	}
	if e.kind == entryDir {
		return t.makeDir(e, owner)
	}
	dir, base := splitPath(e.name)
	parent, _, err := t.dir(dir, 0o755, t.owner)
	if err != nil {
		return err
	}
	if err := t.budget.entry(); err != nil {
		return err
	}
	if err := t.await(e.name); err != nil {
		return err
	}
	if e.kind == entryHardLink {
		if err := t.await(e.link); err != nil {
			return err
		}
	}
	switch e.kind {
	case entryFile:
		return t.makeFile(parent, base, e, m, owner)
	case entrySymlink:
		return t.makeSymlink(parent.fd, base, e, owner)
	default:
		return t.makeHardLink(parent.fd, base, e)
	}
}

// makeDir makes a directory, or takes the last word on one.
func (t *tree) makeDir(e *entry, owner *Owner) error {
	if e.name == "" {
		return nil // the archive does not rule over object_path itself
	}
	d, made, err := t.newDir(e.name, e.mode, owner)
	if err != nil {
		return err
	}
	if !made && t.keep {
		if err := t.forgive(chown(d.fd, *owner)); err != nil {
			return writeError("set owner of", e.name, err)
		}
	}
	if !made && t.xattrs {
		if err := dropXattrs(d.fd); err != nil {
			return writeError("remove extended attributes of", e.name, err)
		}
	}
	if err := t.setXattrs(d.fd, e.name, e.xattrs); err != nil {
		return err
	}
	return t.log.add(&dirRecord{path: e.name, mode: e.mode, mtime: e.mtime, chmod: !made}, t.budget.wrote)
}

// dir opens the directory at path, after making it and its parents if they are
// missing: it with mode and owner, so far as it can still be filled, its
// parents as what no entry speaks of. What is there must be a directory that
// this archive made: a file or a symbolic link, even one to a directory, is
// refused.
func (t *tree) dir(path string, mode uint32, owner *Owner) (d *dirFD, made bool, err error) {
	if err := t.await(path); err != nil {
		return nil, false, err
	}
	d, err = t.dirs.get(path)
	switch {
	case err == nil:
		return d, false, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, false, refuse(ErrUnsafe, "%s is not a directory of this archive, but a file or a symbolic link", quote(path))
	case !errors.Is(err, unix.ENOENT):
		return nil, false, writeError("open directory", path, err)
	}
	return t.newDir(path, mode, owner)
}

// await sees to it that nothing of this name is still in the making.
func (t *tree) await(name string) error {
	if t.writers.clashes(name) {
		return t.writers.settle()
	}
	return nil
}

// newDir is dir for a directory that is likely to be missing.
func (t *tree) newDir(path string, mode uint32, owner *Owner) (d *dirFD, made bool, err error) {
	if err := t.await(path); err != nil {
		return nil, false, err
	}
	parent, base := splitPath(path)
	above, _, err := t.dir(parent, 0o755, t.owner)
	if err != nil {
		return nil, false, err
	}
	mode |= 0o700
	err = retry(func() error { return unix.Mkdirat(above.fd, base, mode) })
	if errors.Is(err, unix.EEXIST) {
		return t.dir(path, mode, owner)
	}
	if err != nil {
		return nil, false, writeError("make directory", path, err)
	}
	if err := t.budget.entry(); err != nil {
		return nil, false, err
	}
	if d, err = t.dirs.get(path); err != nil {
		return nil, false, writeError("open directory", path, err)
	}
	if owner != nil {
		err = t.forgive(chown(d.fd, *owner))
	}
	if err == nil && mode&t.unasked != 0 {
		err = chmod(d.fd, mode)
	}
	if err != nil {
		return nil, false, writeError("set mode and owner of", path, err)
	}
	return d, true, nil
}

// anew calls create, which must fail with EEXIST if base is there. If it is,
// and of the kind of e, it is taken away and create called again: the last of
// several entries with one name wins, and by being a new file leaves hard
// links to the old one alone. Another kind is refused.
func anew(parent int, base string, kind uint32, create func() error) error {
	err := retry(create)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	st, err := lstatat(parent, base)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != kind {
		return refuse(ErrUnsafe, "it is %s, but an earlier entry made it %s", typeName(kind), typeName(st.Mode))
	}
	if err := retry(func() error { return unix.Unlinkat(parent, base, 0) }); err != nil {
		return err
	}
	return retry(create)
}

func (t *tree) makeSymlink(parent int, base string, e *entry, owner *Owner) error {
	err := anew(parent, base, unix.S_IFLNK, func() error {
		return unix.Symlinkat(e.link, parent, base)
	})
	if err != nil {
		return writeError("make symbolic link", e.name, err)
	}
	if owner != nil {
		err := retry(func() error {
			return unix.Fchownat(parent, base, owner.UID, owner.GID, unix.AT_SYMLINK_NOFOLLOW)
		})
		if err = t.forgive(err); err != nil {
			return writeError("set owner of", e.name, err)
		}
	}
	ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, e.mtime}
	err = retry(func() error {
		return unix.UtimesNanoAt(parent, base, ts, unix.AT_SYMLINK_NOFOLLOW)
	})
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return writeError("set time of", e.name, err)
	}
	return nil
}

// makeHardLink links to a file or symbolic link that an earlier entry made.
// Everything below the root was made by an earlier entry, so it is enough to
// reach the target without following links and to look at its type.
func (t *tree) makeHardLink(parent int, base string, e *entry) error {
	dir, targetBase := splitPath(e.link)
	from, err := t.dirs.get(dir)
	var st unix.Stat_t
	if err == nil {
		st, err = lstatat(from.fd, targetBase)
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case errors.Is(err, unix.ENOENT):
		return refuse(ErrUnsafe, "hard link to %s, which no earlier entry made", quote(e.link))
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return refuse(ErrUnsafe, "hard link to %s, which leads through a file or a symbolic link", quote(e.link))
	case err != nil:
		return writeError("look at", e.link, err)
	case kind != unix.S_IFREG && kind != unix.S_IFLNK:
		return refuse(ErrUnsafe, "hard link to %s, which is %s", quote(e.link), typeName(st.Mode))
	case e.link == e.name:
		return nil
	}
	err = anew(parent, base, kind, func() error {
		return unix.Linkat(from.fd, targetBase, parent, base, 0) // 0: links are not followed
	})
	if err != nil {
		return writeError("make hard link", e.name, err)
	}
	return nil
}

// finish gives the directories their modes and times.
func (t *tree) finish(ctx context.Context) error {
	set := func(path string, do func(fd int) error) error {
		d, err := t.dirs.get(path)
		if err == nil {
			err = do(d.fd)
		}
		if err != nil {
			return writeError("set mode and time of", path, err)
		}
		return nil
	}
	err := t.log.each(ctx, func(r *dirRecord) error {
		return set(r.path, func(fd int) (err error) {
			if r.chmod {
				err = chmod(fd, r.mode|0o500) // else what is below could not be reached
			}
			if err == nil {
				err = setTimes(fd, r.mtime)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	return t.log.eachShut(func(path string, mode uint32) error {
		return set(path, func(fd int) error { return chmod(fd, mode) })
	})
}

// dress sets owner and mode by descriptor.
func (t *tree) dress(fd int, mode uint32, owner *Owner) error {
	if owner != nil {
		if err := t.forgive(chown(fd, *owner)); err != nil {
			return err
		}
	}
	// After the owner, because changing that clears bits of the mode.
	return chmod(fd, mode)
}

// forgive lets chown fail where it cannot work: for other users than root,
// and for ids that our user namespace does not map. People do run agents
// there, and a tree that belongs to its maker is better than none.
func (t *tree) forgive(err error) error {
	if errors.Is(err, unix.EINVAL) || (errors.Is(err, unix.EPERM) && (t.keep || geteuid() != 0)) {
		t.unowned.Add(1)
		return nil
	}
	return err
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "a device"
}
