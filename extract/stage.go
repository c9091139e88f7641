package extract

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// stage is the staging directory of one extraction. Its maker holds an
// exclusive flock on it until it is gone; the kernel drops the lock when the
// maker dies. So whoever gets the lock may take the stage away.
type stage struct {
	parent int // the place's; not ours to close
	name   string
	fd     int
}

// staged is the name of what is made in a stage and will be published.
const staged = "new"

const stageInfix = ".stage-"

// stageName gives ".<base>.stage-<id>", the base shortened if that is longer
// than a name can be, and then told apart by a digest.
func stageName(base, id string) string {
	const most = 255
	if room := most - len("."+stageInfix+id); len(base) > room {
		sum := sha256.Sum256([]byte(base))
		base = base[:room-9] + "~" + hex.EncodeToString(sum[:4])
	}
	return "." + base + stageInfix + id
}

// newStage makes a stage in parent. One of the same name that a dead process
// left is taken away first; a living one gives ErrBusy.
func newStage(parent int, base, id string) (*stage, error) {
	name := stageName(base, id)
	for range 3 {
		fd, err := makePrivateDir(parent, name)
		if errors.Is(err, unix.EEXIST) {
			if err := sweepStage(parent, name); err != nil {
				return nil, err
			}
			continue
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, errExchanged) {
			continue // swept between making and opening it, by one who made his own
		}
		if err != nil {
			return nil, writeError("make staging directory", name, err)
		}
		s := &stage{parent, name, fd}
		held, err := s.lock()
		if held {
			return s, nil
		}
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: staging directory %s", ErrBusy, quote(name))
}

// lock takes the lock and says whether the directory is still in its place: a
// sweeper may have come between making and locking it.
func (s *stage) lock() (bool, error) {
	err := retry(func() error { return unix.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock staging directory %s: %w", quote(s.name), err)
	}
	mine, err := fstat(s.fd)
	if err != nil {
		return false, err
	}
	there, err := lstatat(s.parent, s.name)
	return err == nil && there.Ino == mine.Ino && there.Dev == mine.Dev, nil
}

// remove empties the stage and takes it away.
func (s *stage) remove() error {
	if s.fd < 0 {
		return nil
	}
	err := empty(s.fd)
	if err == nil {
		err = unlinkat(s.parent, s.name, unix.AT_REMOVEDIR)
		if errors.Is(err, unix.ENOENT) {
			err = nil // someone moved it away, empty as it is
		}
	}
	unix.Close(s.fd)
	s.fd = -1
	if err != nil {
		return fmt.Errorf("remove staging directory %s: %w", quote(s.name), err)
	}
	return nil
}

// sweepStage takes a dead stage away. It must look like one of ours, not only
// be called so: a directory of this user, closed to all others, unlocked.
func sweepStage(parent int, name string) error {
	fd, err := openat(parent, name, openDirFlags, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s is no staging directory", ErrConflict, quote(name))
	case err != nil:
		return fmt.Errorf("open staging directory %s: %w", quote(name), err)
	}
	s := &stage{parent, name, fd}
	st, err := fstat(fd)
	if err != nil || int(st.Uid) != geteuid() || st.Mode&0o777 != 0o700 {
		unix.Close(fd)
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: %s is no staging directory of ours", ErrConflict, quote(name))
	}
	held, err := s.lock()
	if err != nil || !held {
		unix.Close(fd)
		if err == nil {
			if _, gone := lstatat(parent, name); errors.Is(gone, unix.ENOENT) {
				return nil
			}
			err = fmt.Errorf("%w: staging directory %s", ErrBusy, quote(name))
		}
		return err
	}
	return s.remove()
}

// RemoveStageID is the stage id under which Remove deletes what it took away.
// Sweep looks for it too.
const RemoveStageID = "removed"

// Sweep takes away the staging directory that an Extract to objectPath with
// this StageID left when its process died, and what a Remove left. That there
// is none is no error. A stage whose maker lives, in this process or another,
// gives ErrBusy and is left alone.
//
// What it deletes it knows by the id, and by being a private directory of
// this user that nobody holds the lock of. A tree that is bound to objectPath
// is left alone.
func Sweep(objectPath, stageID string) error {
	if err := checkStageID(stageID); err != nil {
		return err
	}
	clean, _, err := parsePath(objectPath)
	if err != nil {
		return err
	}
	w := walker{}
	parent, err := w.open(path.Dir(clean))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	base := path.Base(clean)
	for _, id := range []string{stageID, RemoveStageID} {
		if err := sweepStage(parent, stageName(base, id)); err != nil {
			return err
		}
	}
	if err := sweepBound(parent, base, stageID); err != nil {
		return err
	}
	// A file that went into the directory objectPath had its stage there, by
	// a name that we do not know.
	inside, err := openat(parent, base, openDirFlags, 0)
	if err != nil {
		return nil // none, or no directory: then no stage is in it
	}
	defer unix.Close(inside)
	var found []string
	err = eachName(inside, func(name string) error {
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, stageInfix+stageID) {
			found = append(found, name)
		}
		return nil
	})
	for _, name := range found {
		if err == nil {
			err = sweepStage(inside, name)
		}
	}
	return err
}
