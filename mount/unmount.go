package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Unmount takes down the mount of ours at dir, whichever process serves it; see
// FS.Unmount. That nothing of ours is mounted there gives an error.
func Unmount(dir string, lazy bool) error {
	dir, err := resolve(dir)
	if err != nil {
		return err
	}
	rows, err := at(dir)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		return fmt.Errorf("unmount %s: no mount of ours is there", dir)
	}
	lower := lowerOf(rows[len(rows)-1])
	if lower == "" {
		lower = dir
	}
	if err := unmountAt(dir, lower, lazy); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// unmountAt unmounts the topmost mount at dir, if it is ours, and, if it is a
// layer, the tree at lower.
func unmountAt(dir, lower string, lazy bool) error {
	for _, point := range []string{dir, lower} {
		rows, err := at(point)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			err := umount(point, lazy)
			if errors.Is(err, unix.EBUSY) {
				return &BusyError{Dir: point, Holders: holders(point, rows[len(rows)-1])}
			}
			if err != nil {
				return err
			}
		}
		if filepath.Clean(dir) == filepath.Clean(lower) {
			break
		}
	}
	return nil
}

// detach takes away what is mounted at dir, at once, whoever uses it.
func detach(dir string) error { return umount(dir, true) }

// umount unmounts the topmost mount at dir.
func umount(dir string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(dir, flags)
	if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
		return umountByHelper(dir, lazy)
	}
	if err != nil {
		return &os.PathError{Op: "unmount", Path: dir, Err: err}
	}
	return nil
}

func umountByHelper(dir string, lazy bool) error {
	bin, err := exec.LookPath(helper)
	if err != nil {
		return err
	}
	args := []string{"-u", "-q"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.Command(bin, append(args, "--", dir)...).CombinedOutput()
	said := strings.TrimSpace(string(out))
	switch {
	case err == nil:
		return nil
	case strings.Contains(said, "busy"):
		return &os.PathError{Op: "unmount", Path: dir, Err: syscall.EBUSY}
	case said == "":
		return fmt.Errorf("%s: %w", helper, err)
	}
	return errors.New(said)
}
