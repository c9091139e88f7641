package cache

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Everything that changes the cache (writing a span, evicting one, opening,
// sweeping) is done by one holder of one lock at a time, over all processes.
// That is less of a bottleneck than it sounds, since the kernel lets one
// writer at a time into a file anyhow; and it leaves one question to answer
// for every place where a process can be killed: what does the next holder
// find? Readers take no lock.
//
// All locks are open file description locks (fcntl F_OFD_SETLK), which the
// kernel releases when their holder dies, however it dies. On the file "lock"
// of the cache:
const (
	lockHolder = 0 // who changes things
	lockTurn   = 1 // who is next
	lockUsers  = 2 // shared by every process that has the cache open
)

// errBusy means that the lock could not be had in time.
var errBusy = errors.New("another process has held the lock of the cache for too long")

// lock is the lock of changes: first among the goroutines of this process,
// then among the processes.
type lock struct {
	file *os.File
	sem  chan struct{} // full while a goroutine of ours has the lock or waits for the other processes
}

func newLock(f *os.File) *lock { return &lock{file: f, sem: make(chan struct{}, 1)} }

// acquire gets the lock or gives up after wait. It polls, since a blocking
// fcntl cannot be given up, and a process that was stopped while it had the
// lock must not stop the others. The turn keeps polling fair: whoever has it is
// the next, so a busy process cannot take the lock twice in a row past another
// that waits.
func (l *lock) acquire(wait time.Duration) error {
	deadline := time.Now().Add(wait)
	select {
	case l.sem <- struct{}{}:
	default:
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case l.sem <- struct{}{}:
		case <-t.C:
			return errBusy
		}
	}
	err := poll(l.file, lockTurn, deadline)
	if err == nil {
		err = poll(l.file, lockHolder, deadline)
		_ = setLock(l.file, unix.F_UNLCK, lockTurn, 1)
	}
	if err != nil {
		<-l.sem
	}
	return err
}

func (l *lock) release() {
	_ = setLock(l.file, unix.F_UNLCK, lockHolder, 1)
	<-l.sem
}

func poll(f *os.File, at int64, deadline time.Time) error {
	for pause := 20 * time.Microsecond; ; pause = min(2*pause, time.Millisecond) {
		held, err := tryLock(f, unix.F_WRLCK, at, 1)
		if held || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return errBusy
		}
		time.Sleep(pause)
	}
}

// tryLock takes the lock of n bytes at off if nobody is in the way. A lock
// that f holds there already is replaced, in one step.
func tryLock(f *os.File, kind int16, off, n int64) (bool, error) {
	switch err := setLock(f, kind, off, n); {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return false, nil
	default:
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

func setLock(f *os.File, kind int16, off, n int64) error {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: off, Len: n})
		if err != unix.EINTR {
			return err
		}
	}
}

// lockedByOthers says whether another open file holds a lock, shared or not,
// on the byte at off.
func lockedByOthers(f *os.File, off int64) bool {
	fl := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: 1}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &fl)
	return err != nil || fl.Type != unix.F_UNLCK
}
