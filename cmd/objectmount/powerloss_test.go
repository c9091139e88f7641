package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// powerCuts is how many times TestPowerLoss cuts the power.
const powerCuts = 200

// TestPowerLoss cuts the power of a file system while an object is being
// extracted to it, and after: everything that the journal has not committed is
// gone, as it would be with a real machine. Whatever the moment, what then
// stands at the path is nothing or the whole tree; and after the next start it
// is the whole tree, without a stage beside it.
func TestPowerLoss(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a loop device needs root")
	}
	cuts := powerCuts
	if testing.Short() {
		cuts = 20
	}
	work := t.TempDir()
	src := filepath.Join(work, "src")
	for i := range 200 {
		writeFile(t, filepath.Join(src, fmt.Sprintf("d%d", i%20), fmt.Sprintf("f%d", i)), strings.Repeat(fmt.Sprintln("line", i), 50+i))
	}
	archive := filepath.Join(work, "a.tgz")
	tool(t, "tar", "czf", archive, "-C", src, ".")
	ref := filepath.Join(work, "ref")
	if err := os.Mkdir(ref, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "tar", "xzf", archive, "-C", ref)
	whole, err := listTree(ref)
	if err != nil {
		t.Fatal(err)
	}
	disk := newCutDisk(t, work)

	var absent, complete int
	// The cuts aim at the publishing: later when nothing was there, sooner
	// when all was, so that half of them fall on each side.
	aim := 100 * time.Millisecond
	for i := range cuts {
		target := filepath.Join(disk.dir, fmt.Sprint("box", i))
		wait := time.Duration(rand.Int64N(int64(2 * aim)))
		c := disk.mountCommand(archive, target)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { _ = c.Wait(); close(ended) }()
		time.Sleep(wait)
		disk.cut(t)
		<-ended
		disk.powerUp(t)

		if got, err := listTree(target); err == nil {
			if diff := cmp.Diff(whole, got); diff != "" {
				t.Fatalf("cut %d after %v: what stands at the path is wrong (-want +got):\n%.3000s", i, wait, diff)
			}
			complete++
			aim = aim * 9 / 10
		} else if os.IsNotExist(err) {
			absent++
			aim = aim * 11 / 10
		} else {
			t.Fatal(err)
		}
		if out, err := disk.mountCommand(archive, target).CombinedOutput(); err != nil {
			t.Fatalf("cut %d after %v: the next start fails: %v\n%s", i, wait, err, out)
		}
		got, err := listTree(target)
		if diff := cmp.Diff(whole, got); diff != "" || err != nil {
			t.Fatalf("cut %d after %v: the next start leaves a wrong tree, %v:\n%.3000s", i, wait, err, diff)
		}
		if left, _ := filepath.Glob(filepath.Join(disk.dir, ".*stage*")); len(left) > 0 {
			t.Fatalf("cut %d after %v: the next start leaves %q", i, wait, left)
		}
	}
	t.Logf("%d cuts: %d times nothing was there, %d times all of it", cuts, absent, complete)
	if absent == 0 || complete == 0 {
		t.Errorf("the cuts fell on one side of the publishing only (%d, %d): the test proves little", absent, complete)
	}
}

// cutDisk is an ext4 on a loop device whose power can be cut.
type cutDisk struct {
	image, dir, state string
}

func newCutDisk(t *testing.T, work string) *cutDisk {
	d := &cutDisk{image: filepath.Join(work, "image"), dir: filepath.Join(work, "disk")}
	d.state = filepath.Join(d.dir, "state")
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", d.image)
	d.powerUp(t)
	t.Cleanup(func() { _ = exec.Command("umount", d.dir).Run() })
	return d
}

func (d *cutDisk) mountCommand(archive, target string) *exec.Cmd {
	c := exec.Command("objectmount", "mount", archive, target)
	c.Env = append(os.Environ(), "OBJECTMOUNT_STATE_DIR="+d.state, "OBJECTMOUNT_RUN_DIR="+d.state)
	return c
}

// cut drops what is not on the disk and makes every further access fail.
func (d *cutDisk) cut(t *testing.T) {
	t.Helper()
	const ext4Shutdown, noLogFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, noLogFlush); err != nil {
		t.Fatalf("shutdown ioctl: %v", err)
	}
}

// powerUp mounts the disk, after unmounting it if it is dead.
func (d *cutDisk) powerUp(t *testing.T) {
	t.Helper()
	if err := syscall.Unmount(d.dir, 0); err != nil && err != syscall.EINVAL {
		t.Fatalf("unmount: %v", err)
	}
	tool(t, "mount", "-o", "loop", d.image, d.dir)
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
