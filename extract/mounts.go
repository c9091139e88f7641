package extract

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// statx looks at name in dir, not following it; "" means dir itself.
func statx(dir int, name string) (st unix.Statx_t, err error) {
	const want = unix.STATX_BASIC_STATS
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err = retry(func() error { return unix.Statx(dir, name, flags, want, &st) })
	return st, err
}

// isMountRoot says whether a file system is mounted on what was looked at; a
// bind mount counts. Kernels before 5.8 do not say, and then a rename does
// with EBUSY.
func isMountRoot(st *unix.Statx_t) bool {
	return st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 &&
		st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

func isMountPoint(dir int, name string) bool {
	st, err := statx(dir, name)
	return err == nil && isMountRoot(&st)
}

// noMountsBelow refuses when a file system is mounted somewhere below path:
// the tree could be renamed, but neither deleted nor left in peace.
func noMountsBelow(path string) error {
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	prefix := filepath.Join(real, filepath.Base(path)) + "/"
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil // no /proc: the deletion will find out
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// 36 35 98:0 /root /mount/point rw,noatime ...
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		if point := unescapeMount(fields[4]); strings.HasPrefix(point, prefix) {
			return fmt.Errorf("%w: a file system is mounted on %s: unmount it first", ErrConflict, quote(point))
		}
	}
	return lines.Err()
}

// unescapeMount decodes the octal escapes of mountinfo: \040 is a space.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
