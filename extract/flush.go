package extract

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"
)

// later says whether the result is to be published before it is flushed. Only
// where nothing is replaced: what was there before is deleted, and it must not
// be gone while a power cut can still take the new.
func (j *job) later() bool {
	fresh := j.act == actPut || (j.act == actOver && j.place.there == emptyDir)
	return j.opts.FlushLater && fresh && !inMemory(j.stage.fd)
}

// tellStaged tells the caller what is about to be made.
func (j *job) tellStaged() error {
	if j.opts.Staged == nil {
		return nil
	}
	return j.opts.Staged(Staged{
		Path: j.place.path, Root: path.Join(path.Dir(j.place.path), j.stage.name, staged),
		Fills: j.act == actOver && j.place.there == emptyDir, Later: j.later(),
	})
}

// inMemory says whether a file system has no disk to flush to.
func inMemory(fd int) bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(fd, &st) })
	return err == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}

// Flush brings what Extract left unflushed to the disk: when it returns
// without error, a power cut takes nothing of it back. It takes as long as the
// disk needs. It may be called from another process, and more than once.
//
// If something else is at the path by now the error wraps ErrConflict; if
// nothing, fs.ErrNotExist: then there is nothing left to be brought to disk.
// Any other error means that the disk may not hold what was written, and does
// not go away by trying again: the kernel tells it once and then takes the
// data for written.
func Flush(path string, fp Fingerprint) error {
	parent, base, err := openParent(path)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	fd, err := openPublished(parent, base, fp, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.EACCES) {
		// Its owner took his own right to read it; the parent is on the same
		// file system.
		if fd, err = openPublished(parent, base, fp, unix.O_PATH); err == nil {
			unix.Close(fd)
			fd, err = openat(parent, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		}
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w", quote(path), err)
	}
	defer unix.Close(fd)
	if st, serr := fstat(fd); serr == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
		err = fsync(fd)
	} else {
		// Not each file by itself: by now others may have put anything there.
		err = retry(func() error { return unix.Syncfs(fd) })
	}
	if err == nil {
		err = syncParent(parent, fd)
	}
	if err != nil {
		return fmt.Errorf("flush %s: %w", quote(path), err)
	}
	return nil
}

// openPublished opens what was published under this fingerprint, and nothing
// else.
func openPublished(parent int, base string, fp Fingerprint, flags int) (int, error) {
	fd, err := openat(parent, base, flags|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return -1, fmt.Errorf("%w: it is no longer what was published there", ErrConflict)
	}
	if err != nil {
		return -1, err
	}
	st, err := statx(fd, "")
	if err == nil && !fp.is(&st) {
		err = fmt.Errorf("%w: it is no longer what was published there", ErrConflict)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// SetAside moves what was published at path with this fingerprint to a new
// name beside it, which it returns: for trees that can be trusted no longer
// and hold somebody's edits all the same. It gives the errors of Remove.
func SetAside(objectPath string, fp Fingerprint, suffix string) (aside string, err error) {
	parent, base, err := openParent(objectPath)
	if err != nil {
		return "", err
	}
	defer unix.Close(parent)
	fd, err := openPublished(parent, base, fp, unix.O_PATH)
	if err != nil {
		return "", fmt.Errorf("set %s aside: %w", quote(objectPath), err)
	}
	unix.Close(fd)
	name, err := renameFree(parent, base, parent, base, suffix)
	if err == nil {
		err = fsync(parent)
		if errors.Is(err, unix.EBADF) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("set %s aside: %w", quote(objectPath), err)
	}
	return path.Join(path.Dir(path.Clean(objectPath)), name), nil
}

// renameFree moves name to the first of <base><suffix>, <base><suffix>-2 ...
// that is free.
func renameFree(from int, name string, to int, base, suffix string) (string, error) {
	if room := 240 - len(suffix); len(base) > room {
		base = base[:room]
	}
	for n := 1; ; n++ {
		free := base + suffix
		if n > 1 {
			free = fmt.Sprintf("%s-%d", free, n)
		}
		err := renameNew(from, name, to, free)
		if !errors.Is(err, unix.EEXIST) || n == 1000 {
			return free, err
		}
	}
}
