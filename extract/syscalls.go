package extract

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls as they are needed here: by descriptor, and repeated when a
// signal interrupted them. (The Go runtime sends signals of its own to
// preempt goroutines, so that happens to everyone.)

// retry repeats call while it is interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openat opens name in dir; O_CLOEXEC is added.
func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// lstatat looks at name in dir without following it.
func lstatat(dir int, name string) (st unix.Stat_t, err error) {
	err = retry(func() error {
		return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	return st, err
}

// fstat looks at an open file.
func fstat(fd int) (st unix.Stat_t, err error) {
	err = retry(func() error { return unix.Fstat(fd, &st) })
	return st, err
}

func chmod(fd int, mode uint32) error {
	return retry(func() error { return unix.Fchmod(fd, mode) })
}

func chown(fd int, owner Owner) error {
	return retry(func() error { return unix.Fchown(fd, owner.UID, owner.GID) })
}

func fsync(fd int) error {
	return retry(func() error { return unix.Fsync(fd) })
}

func unlinkat(dir int, name string, flags int) error {
	return retry(func() error { return unix.Unlinkat(dir, name, flags) })
}

func renameat2(fromDir int, from string, toDir int, to string, flags uint) error {
	return retry(func() error { return unix.Renameat2(fromDir, from, toDir, to, flags) })
}

// pwrite writes all of p.
func pwrite(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// setTimes sets the time of modification by descriptor. x/sys has no futimens,
// which is utimensat with a null path.
func setTimes(fd int, mtime unix.Timespec) error {
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	return retry(func() error {
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	})
}

// eachName calls do with the names in the directory dir, in no order, until
// it returns an error. "." and ".." are left out. Names that appear or vanish
// meanwhile may or may not be given.
func eachName(dir int, do func(name string) error) error {
	if _, err := unix.Seek(dir, 0, 0); err != nil {
		return err
	}
	buf := make([]byte, 8<<10)
	var names []string
	for {
		var n int
		err := retry(func() (err error) {
			n, err = unix.ReadDirent(dir, buf)
			return err
		})
		if err != nil || n == 0 {
			return err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if err := do(name); err != nil {
				return err
			}
		}
	}
}

// errStop ends an eachName early.
type errStop struct{}

func (errStop) Error() string { return "stop" }

// isEmptyDir says whether the directory dir has no entries.
func isEmptyDir(dir int) (bool, error) {
	err := eachName(dir, func(string) error { return errStop{} })
	if err == (errStop{}) {
		return false, nil
	}
	return err == nil, err
}

// nanoseconds since 1970, as in a Fingerprint.
func nanoseconds(ts unix.Timespec) int64 { return ts.Sec*1e9 + ts.Nsec }

func geteuid() int { return unix.Geteuid() }
