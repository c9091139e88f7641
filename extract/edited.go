package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// Edited says whether anything at or below path was changed since it was
// published with this fingerprint: content, names, modes, owners, links, or
// what is mounted there. Reading changes nothing. That nothing is at path
// gives an error that wraps fs.ErrNotExist.
//
// It compares change times (ctime), which user programs cannot set: all that
// was published has an earlier one than the fingerprint, all that was changed
// later a later one or, within the same tick of the clock, the same.
//
//	                    tick        tick
//	staged entries ──────┤           ├─────────────
//	                     │ rename: F │
//	below the root:  < F │ ≥ F: edited
//	the root itself:     │ = F       │ > F: edited
//
// The root's own time is F, so that within the tick of its publishing a
// change to the root alone is known by the time of modification (names in
// it) or not at all: the mode or owner of the root itself, where a tick is
// long (10 ms on kernels before 6.13, a second on ext4 with small inodes). A
// clock that is set back by hand hides later edits until it has caught up.
//
// It follows no link, enters no other file system and stops at the first
// edit, so that it looks at no more entries than were published.
func Edited(path string, fp Fingerprint) (bool, error) {
	parent, base, err := openParent(path)
	if err != nil {
		return false, err
	}
	defer unix.Close(parent)
	st, err := statx(parent, base)
	if err != nil {
		return false, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	mtime := st.Mtime.Sec*1e9 + int64(st.Mtime.Nsec)
	switch {
	case !fp.is(&st), changeTime(&st) > fp.ChangeTimeNS:
		return true, nil
	case !fp.Merged && mtime >= fp.ChangeTimeNS:
		return true, nil
	case isMountRoot(&st):
		return true, nil
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return false, nil
	}
	edited, err := editedBelow(parent, base, fp, 0)
	if err != nil {
		return false, fmt.Errorf("look for edits in %s: %w", quote(path), err)
	}
	return edited, nil
}

// is says whether st is of the inode that was published.
func (fp Fingerprint) is(st *unix.Statx_t) bool {
	return st.Ino == fp.Ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == fp.Dev
}

func changeTime(st *unix.Statx_t) int64 { return st.Ctime.Sec*1e9 + int64(st.Ctime.Nsec) }

// mostLevels is deeper than any tree that we publish.
const mostLevels = 600

// editedBelow looks at the entries of the directory name in dir.
func editedBelow(dir int, name string, fp Fingerprint, level int) (bool, error) {
	if level > mostLevels {
		return true, nil // not ours
	}
	fd, err := openat(dir, name, openDirFlags|syscall.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // not our directory: its access time will change
		fd, err = openat(dir, name, openDirFlags, 0)
	}
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return true, nil // exchanged while we look
		}
		return false, fmt.Errorf("open %s: %w", quote(name), err)
	}
	defer unix.Close(fd)
	edited := false
	err = eachName(fd, func(name string) error {
		st, err := statx(fd, name)
		switch {
		case errors.Is(err, unix.ENOENT):
			edited = true
		case err != nil:
			return fmt.Errorf("stat %s: %w", quote(name), err)
		case changeTime(&st) >= fp.ChangeTimeNS, isMountRoot(&st):
			edited = true
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			if edited, err = editedBelow(fd, name, fp, level+1); err != nil {
				return err
			}
		}
		if edited {
			return errStop{}
		}
		return nil
	})
	if err == (errStop{}) {
		err = nil
	}
	return edited, err
}

// Remove takes away what was published at path with this fingerprint, edited
// or not: first by a rename, so that nobody sees half of it, then for good.
// It refuses with ErrConflict if something else is there by now, if it was
// merged into an existing directory, or if a file system is mounted below. If
// nothing is there, the error wraps fs.ErrNotExist. A Remove that dies in the
// middle leaves a stage that Sweep takes away.
func Remove(path string, fp Fingerprint) error {
	parent, base, err := openParent(path)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	st, err := statx(parent, base)
	switch {
	case err != nil:
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	case fp.Merged:
		return fmt.Errorf("%w: %s was merged into a directory that existed before: "+
			"what came from the object cannot be told from the rest", ErrConflict, quote(path))
	case !fp.is(&st):
		return fmt.Errorf("%w: %s is no longer what was published there", ErrConflict, quote(path))
	case isMountRoot(&st):
		return fmt.Errorf("%w: a file system is mounted on %s: unmount it first", ErrConflict, quote(path))
	}
	if err := noMountsBelow(path); err != nil {
		return err
	}
	s, err := newStage(parent, base, RemoveStageID)
	if err != nil {
		return err
	}
	if err := s.take(base, fp); err != nil {
		if rerr := s.removeEmpty(); rerr != nil {
			err = errors.Join(err, rerr)
		}
		return fmt.Errorf("remove %s: %w", quote(path), err)
	}
	if err := fsync(parent); err != nil && !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("remove %s: %w", quote(path), err)
	}
	if err := s.remove(); err != nil {
		return fmt.Errorf("%s is gone, but not all of it is deleted: %w", quote(path), err)
	}
	return nil
}

// take renames base from beside the stage into it, and back again if it is
// not what the fingerprint says: its owner may have exchanged it meanwhile.
func (s *stage) take(base string, fp Fingerprint) error {
	const taken = "old"
	err := renameat2(s.parent, base, s.fd, taken, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) {
		err = renameat2(s.parent, base, s.fd, taken, 0)
	}
	if err != nil {
		return err
	}
	st, err := statx(s.fd, taken)
	if err == nil && !fp.is(&st) {
		err = fmt.Errorf("%w: it is no longer what was published there", ErrConflict)
	}
	if err != nil {
		return errors.Join(err, renameat2(s.fd, taken, s.parent, base, unix.RENAME_NOREPLACE))
	}
	return nil
}

// removeEmpty takes a stage away that must not lose anything.
func (s *stage) removeEmpty() error {
	err := unlinkat(s.parent, s.name, unix.AT_REMOVEDIR)
	unix.Close(s.fd)
	s.fd = -1
	return err
}

// openParent opens the directory that path is in.
func openParent(objectPath string) (fd int, base string, err error) {
	clean, _, err := parsePath(objectPath)
	if err != nil {
		return -1, "", err
	}
	w := walker{}
	fd, err = w.open(path.Dir(clean))
	return fd, path.Base(clean), err
}
