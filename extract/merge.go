package extract

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// merge moves the staged tree's entries into the existing directory. First it
// looks whether all can be moved, so that the usual reasons against it are
// found while nothing has happened; then it moves, a whole directory at once
// where the existing tree has none of that name.
//
// Existing directories keep their mode and owner. No link of the existing
// tree is followed.
func (p *publishing) merge() (fp Fingerprint, taken bool, err error) {
	existing, err := openat(p.place.parent, p.place.base, openDirFlags, 0)
	if err != nil {
		return fp, false, fmt.Errorf("open %s: %w", quote(p.place.path), err)
	}
	defer unix.Close(existing)
	st, err := fstat(existing)
	if err != nil {
		return fp, false, err
	}
	m := merger{dev: st.Dev}
	if err := m.each(p.root, existing, "", m.check); err != nil {
		return fp, false, err
	}
	if err := m.each(p.root, existing, "", m.move); err != nil {
		return fp, true, err
	}
	if err := retry(func() error { return unix.Syncfs(existing) }); err != nil {
		return fp, true, writeError("sync", p.place.path, err)
	}
	// The root's change time must be later than all that we did to the tree.
	now := time.Now()
	if st, err = fstat(existing); err != nil {
		return fp, true, err
	}
	waitTick(now, st.Ctim)
	if err := chmod(existing, st.Mode&0o7777); err != nil && !errors.Is(err, unix.EPERM) {
		return fp, true, err
	}
	if st, err = fstat(existing); err != nil {
		return fp, true, err
	}
	return Fingerprint{Dev: st.Dev, Ino: st.Ino, ChangeTimeNS: nanoseconds(st.Ctim), Merged: true}, true, p.syncParent()
}

type merger struct {
	dev uint64
}

// each calls do with each entry of the directory from, which is to go to the
// directory to, where there may be something of that name: then st says what.
func (m *merger) each(from, to int, path string, do func(from, to int, name, path string, st *unix.Stat_t) error) error {
	// All names first: moving an entry away while its directory is being read
	// could make others be skipped.
	var names []string
	if err := eachName(from, func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil {
		return err
	}
	for _, name := range names {
		path := path + "/" + name
		there, err := lstatat(to, name)
		switch {
		case err == nil:
			err = do(from, to, name, path, &there)
		case errors.Is(err, unix.ENOENT):
			err = do(from, to, name, path, nil)
		default:
			err = fmt.Errorf("look at %s: %w", quote(path), err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check refuses what move could not do.
func (m *merger) check(from, to int, name, path string, there *unix.Stat_t) error {
	if there == nil {
		return nil
	}
	ours, err := lstatat(from, name)
	if err != nil {
		return err
	}
	isDir := func(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }
	switch {
	case isDir(ours.Mode) != isDir(there.Mode):
		return fmt.Errorf("%w: cannot merge: %s is %s, and the archive has %s",
			ErrConflict, quote(path), typeName(there.Mode), typeName(ours.Mode))
	case there.Dev != m.dev || isMountPoint(to, name):
		return fmt.Errorf("%w: cannot merge: a file system is mounted on %s", ErrConflict, quote(path))
	case isDir(ours.Mode):
		return m.both(from, to, name, path, m.check)
	}
	return nil
}

// move moves one entry.
func (m *merger) move(from, to int, name, path string, there *unix.Stat_t) error {
	if there != nil && there.Mode&unix.S_IFMT == unix.S_IFDIR {
		return m.both(from, to, name, path, m.move)
	}
	err := renameat2(from, name, to, name, 0)
	if errors.Is(err, unix.EACCES) {
		err = m.moveReadOnly(from, to, name)
	}
	if err != nil {
		return fmt.Errorf("move %s into the existing directory: %w", quote(path), err)
	}
	return nil
}

// moveReadOnly moves a directory that its owner may not write to. Such a move
// changes the directory's ".." and needs that right, unless one is root.
func (m *merger) moveReadOnly(from, to int, name string) error {
	st, err := lstatat(from, name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return unix.EACCES
	}
	fd, err := openat(from, name, openDirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := chmod(fd, 0o700); err != nil {
		return err
	}
	if err := renameat2(from, name, to, name, 0); err != nil {
		return err
	}
	return chmod(fd, st.Mode&0o7777)
}

// both opens a directory that both trees have, and goes on in it.
func (m *merger) both(from, to int, name, path string, do func(from, to int, name, path string, st *unix.Stat_t) error) error {
	// The staged one is not moved but emptied, which its mode may forbid.
	if err := unix.Fchmodat(from, name, 0o700, 0); err != nil {
		return fmt.Errorf("open the staged %s: %w", quote(path), err)
	}
	a, err := openBeneath(from, m.dev, name, openDirFlags, false)
	if err != nil {
		return fmt.Errorf("open the staged %s: %w", quote(path), err)
	}
	defer unix.Close(a)
	b, err := openBeneath(to, m.dev, name, openDirFlags, false)
	if err != nil {
		return fmt.Errorf("open %s: %w", quote(path), err)
	}
	defer unix.Close(b)
	return m.each(a, b, path, do)
}
