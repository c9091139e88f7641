package extract

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// empty deletes everything in the directory root, which no one else may be
// working in. It follows no link and crosses into no other file system: a
// mount point in the tree ends it with an error that wraps unix.EXDEV or
// unix.EBUSY.
//
// It holds one descriptor per level. A tree may be deeper than there are
// descriptors, because users can make such trees, so what lies too deep is
// first moved up into root.
func empty(root int) error {
	st, err := fstat(root)
	if err != nil {
		return err
	}
	e := eraser{root: root, dev: st.Dev}
	return e.clear(root, 0)
}

type eraser struct {
	root  int
	dev   uint64
	moved int // directories moved up so far
}

const eraseDepth = 64

func (e *eraser) clear(dir, depth int) error {
	for {
		found := false
		err := eachName(dir, func(name string) error {
			found = true
			return e.remove(dir, name, depth)
		})
		if err != nil || !found {
			return err // a directory is empty when one whole pass saw nothing
		}
	}
}

func (e *eraser) remove(dir int, name string, depth int) error {
	err := e.unlink(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("remove %s: %w", quote(name), err)
	}
	st, serr := lstatat(dir, name)
	if serr != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("remove %s: %w", quote(name), err)
	}
	if depth >= eraseDepth {
		return e.moveUp(dir, name)
	}
	fd, err := e.openDir(dir, name)
	if err != nil {
		return fmt.Errorf("open %s to remove it: %w", quote(name), err)
	}
	err = e.clear(fd, depth+1)
	unix.Close(fd)
	if err != nil {
		return err
	}
	if err := e.unlink(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove directory %s: %w", quote(name), err)
	}
	return nil
}

// unlink removes name. Where dir is not writable for its owner, that is
// changed first: archives hold read-only directories.
func (e *eraser) unlink(dir int, name string, flags int) error {
	err := unlinkat(dir, name, flags)
	if errors.Is(err, unix.EACCES) && unix.Fchmod(dir, 0o700) == nil {
		err = unlinkat(dir, name, flags)
	}
	return err
}

func (e *eraser) openDir(dir int, name string) (int, error) {
	fd, err := openBeneath(dir, e.dev, name, openDirFlags, false)
	if errors.Is(err, unix.EACCES) && unix.Fchmodat(dir, name, 0o700, 0) == nil {
		fd, err = openBeneath(dir, e.dev, name, openDirFlags, false)
	}
	return fd, err
}

func (e *eraser) moveUp(dir int, name string) error {
	move := func() error {
		for {
			e.moved++
			err := renameat2(dir, name, e.root, ".moved-up-"+strconv.Itoa(e.moved), unix.RENAME_NOREPLACE)
			if !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
	}
	err := move()
	if errors.Is(err, unix.EACCES) && unix.Fchmod(dir, 0o700) == nil && unix.Fchmodat(dir, name, 0o700, 0) == nil {
		err = move()
	}
	if err != nil {
		return fmt.Errorf("move %s up to remove it: %w", quote(name), err)
	}
	return nil
}
