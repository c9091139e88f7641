package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"objectmount/extract"
	"objectmount/mount"
)

// inode is what is at a path now.
type inode struct {
	dev, ino uint64
	changed  int64 // ctime, ns since 1970
	modified int64 // mtime, likewise
	birth    int64 // ns since 1970; 0: the file system does not say
	dir      bool
}

// lookAt looks at a path without following a link.
func lookAt(path string) (inode, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	if err != nil {
		return inode{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	i := inode{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino,
		changed: st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec), modified: st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec),
		dir: st.Mode&unix.S_IFMT == unix.S_IFDIR,
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		i.birth = st.Btime.Sec*1e9 + int64(st.Btime.Nsec)
	}
	return i, nil
}

// published is when an inode was published, going by its times alone: an
// extraction sets the time of modification right before the rename, which sets
// the other. Where that cannot be what happened last, it is 0: everything was
// changed later than that.
func (i inode) published() int64 {
	if between := i.changed - i.modified; between > 0 && between < int64(2*time.Second) {
		return i.changed
	}
	return 0
}

// at is where the files of a published tree lie.
func (p *published) at() string { return cmp.Or(p.Tree, p.RealPath) }

// isThere says whether what was published is still at its place: the same
// inode, whatever has been edited in it. A directory that was emptied counts
// as gone: what was mounted is not there.
//
// The number of a device is another one when the file system was mounted anew,
// by a boot or without one (an overlay of a container, a loop device). Then
// the time of birth stands in for it, or, where there is none, that of the
// last change; and the fingerprint takes the new number over.
func (p *published) isThere() (bool, error) {
	if p.Lazy != nil {
		// The directory itself is not asked: its server may be this process.
		state, err := lazyState(context.Background(), p.RealPath)
		return state == mount.Alive || state == mount.Hung, err
	}
	i, err := lookAt(p.RealPath)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if i.ino != p.Fingerprint.Ino || i.dir != (p.Kind == extract.KindTree) {
		return false, nil
	}
	if i.dev != p.Fingerprint.Dev {
		if i.birth != p.BirthNS || (i.birth == 0 && i.changed != p.Fingerprint.ChangeTimeNS) {
			return false, nil
		}
		p.Fingerprint.Dev = i.dev
	}
	if p.Tree != "" && !extract.IsBound(p.RealPath, p.Fingerprint) {
		return false, nil // see bindAgain
	}
	if i.dir && p.Entries > 0 {
		empty, err := isEmpty(p.RealPath)
		return !empty, err
	}
	return true, nil
}

// isThereAgain is isThere, after a tree that a reboot has unbound was bound to
// its path again. One that is gone, or was emptied, is taken down.
func (p *published) isThereAgain() (bool, error) {
	if p.Tree == "" {
		return p.isThere()
	}
	i, err := lookAt(p.Tree)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && i.ino == p.Fingerprint.Ino && (i.dev == p.Fingerprint.Dev || i.birth == p.BirthNS) {
		p.Fingerprint.Dev = i.dev
		if err := extract.Bind(p.RealPath, p.Tree, p.Fingerprint); err != nil {
			return false, err
		}
	}
	there, err := p.isThere()
	if there || err != nil {
		return there, err
	}
	if err := extract.Unbind(p.RealPath, p.Fingerprint); err != nil {
		return false, err
	}
	return false, extract.RemoveBound(p.Tree)
}

func isEmpty(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// edited says whether anybody changed the published tree since it was
// published. Mounts that were made below it are no edits: mounted says which
// paths are such mounts now.
//
// An added or altered file is always seen. Of a directory on the way to an
// inner mount nothing but its entries is looked at, because making that mount
// changed the directory itself.
func (p *published) edited(inner []string, mounted func(path string) bool) (bool, error) {
	if p.Lazy != nil {
		return layerEdited(p.Lazy.Layer)
	}
	if p.Kind != extract.KindTree || len(inner) == 0 {
		return extract.Edited(p.at(), p.Fingerprint)
	}
	e := editSearch{inner, mounted, p.Fingerprint.ChangeTimeNS}
	return e.below(p.RealPath)
}

type editSearch struct {
	inner   []string
	mounted func(string) bool
	since   int64
}

func (e *editSearch) below(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		edited, err := e.at(path, entry.IsDir())
		if errors.Is(err, fs.ErrNotExist) {
			edited, err = true, nil // it went away while we looked
		}
		if edited || err != nil {
			return edited, err
		}
	}
	return false, nil
}

func (e *editSearch) at(path string, dir bool) (bool, error) {
	onTheWay := false
	for _, in := range e.inner {
		if in == path {
			// A mount of ours, or what somebody put where one was.
			return !e.mounted(path), nil
		}
		onTheWay = onTheWay || inside(in, path)
	}
	if onTheWay && dir {
		return e.below(path)
	}
	i, err := lookAt(path)
	if err != nil {
		return false, err
	}
	// Not a root: the same change time as the root's is an edit already, and
	// its time of modification is the archive's.
	return extract.Edited(path, extract.Fingerprint{Dev: i.dev, Ino: i.ino, ChangeTimeNS: e.since - 1, Merged: true})
}
