package extract

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// missing makes the directory of a step, or says that it is not there.
func (w *walker) missing(s step, rest []step) error {
	if s.link || (len(rest) > 0 && rest[0].link) {
		return fmt.Errorf("%w: %s is a symbolic link that leads nowhere", ErrConflict, quote(s.path))
	}
	if !w.create {
		if err := w.judgeLinks(s.path); err != nil {
			return err
		}
		return &fs.PathError{Op: "open", Path: s.path, Err: fs.ErrNotExist}
	}
	if err := w.judgeLinks(s.path); err != nil {
		return err
	}
	fd, err := w.makeParent(s.name)
	if errors.Is(err, unix.EEXIST) {
		return w.again(s) // another was faster
	}
	if err != nil {
		return writeError("make directory", s.path, err)
	}
	above := w.at
	w.at = fd
	w.made = append(w.made, madeDir{above, s.name})
	// Now, because nothing later would do it: what is published must not hang on
	// a directory that a power cut takes away.
	if at, oerr := openat(above, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0); oerr == nil {
		err = retry(func() error { return unix.Fsync(at) })
		unix.Close(at)
	}
	if err != nil {
		return writeError("make directory", s.path, err)
	}
	return nil
}

// parentStageID is that of the stages in which parents are made.
const parentStageID = "parent"

// makeParent makes and opens the directory name, or gives EEXIST. It gets its
// owner and mode in a stage, before anybody sees it: two mounts may need the
// same parent at the same time, and the second must find it as it will be.
func (w *walker) makeParent(name string) (fd int, err error) {
	st, err := newStage(w.at, name, parentStageID)
	// While another makes it, he is waited for.
	for deadline := time.Now().Add(10 * time.Second); errors.Is(err, ErrBusy) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		if _, err := lstatat(w.at, name); err == nil {
			return -1, unix.EEXIST
		}
		st, err = newStage(w.at, name, parentStageID)
	}
	if err != nil {
		return -1, err
	}
	defer func() {
		if rerr := st.remove(); err == nil && rerr != nil {
			unix.Close(fd)
			err = rerr
		}
	}()
	if fd, err = makePrivateDir(st.fd, staged); err != nil {
		return -1, err
	}
	owner := w.owner
	if owner == nil && geteuid() == 0 {
		owner = &w.nearest
	}
	if owner != nil {
		// Only root can give away, and only ids that its namespace knows.
		if err = chown(fd, *owner); errors.Is(err, unix.EINVAL) || geteuid() != 0 {
			err = nil
		}
	}
	if err == nil {
		err = chmod(fd, 0o755)
	}
	if err == nil {
		err = renameNew(st.fd, staged, w.at, name)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// renameNew renames and gives EEXIST if there is something already.
func renameNew(from int, name string, to int, as string) error {
	err := renameat2(from, name, to, as, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) { // a file system without flags
		if _, err = lstatat(to, as); errors.Is(err, unix.ENOENT) {
			err = renameat2(from, name, to, as, 0)
		} else if err == nil {
			err = unix.EEXIST
		}
	}
	return err
}

// again takes a step into a directory that was missing a moment ago.
func (w *walker) again(s step) error {
	fd, err := openat(w.at, s.name, openDirFlags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", quote(s.path), err)
	}
	unix.Close(w.at)
	w.at = fd
	return w.arrive()
}

// errExchanged: what was made is not what is there.
var errExchanged = fmt.Errorf("%w: it was exchanged while it was made", ErrConflict)

// makePrivateDir makes and opens a directory with mode 0700. The parent may
// belong to someone else, who could put another directory in its place before
// we open it: so what we open must be ours, private and empty.
func makePrivateDir(at int, name string) (int, error) {
	if err := retry(func() error { return unix.Mkdirat(at, name, 0o700) }); err != nil {
		return -1, err
	}
	fd, err := openat(at, name, openDirFlags, 0)
	if err != nil {
		return -1, err
	}
	st, err := fstat(fd)
	empty := false
	if err == nil {
		empty, err = isEmptyDir(fd)
	}
	if err == nil && (int(st.Uid) != geteuid() || st.Mode&0o077 != 0 || !empty) {
		err = errExchanged
	}
	if err == nil {
		// Out of a set-group-ID parent it inherits that bit, which would go
		// on to everything below.
		err = chmod(fd, 0o700)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
