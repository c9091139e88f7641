package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// powerCuts is how many times TestPowerLoss cuts the power.
const powerCuts = 200

// TestPowerLoss cuts the power of a file system while an object is being
// extracted to it, and after: everything that the journal has not committed is
// gone, as it would be with a real machine. Half of the cuts fall anywhere;
// half fall right after the command said that the mount is ready, while the
// flush goes on behind it.
//
// Whatever the moment: after the next start the whole tree is there, with no
// stage beside it; what the receipt calls durable is whole before that; what a
// user had synced into the tree is still somewhere; and no later cut changes
// any of it.
func TestPowerLoss(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a loop device needs root")
	}
	cuts := powerCuts
	if testing.Short() {
		cuts = 20
	}
	if n, err := strconv.Atoi(os.Getenv("OBJECTMOUNT_TEST_POWER_CUTS")); err == nil {
		cuts = n
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
	whole, err := listUnedited(ref)
	if err != nil {
		t.Fatal(err)
	}
	ownMounts(t)
	p := &powerLoss{T: t, disk: newCutDisk(t, work), archive: archive, whole: whole, aim: 100 * time.Millisecond}
	for i := range cuts {
		p.round(i)
	}
	for i := range cuts {
		p.mustBeWhole(p.target(i), fmt.Sprintf("in the end, box %d", i))
	}
	t.Logf("%d cuts: nothing was there %d times; it was there and on disk %d times, not yet on disk %d times, of these wrong %d times; %d edits moved aside",
		cuts, p.absent, p.durable, p.early, p.wrong, p.aside)
	if p.absent == 0 || p.durable == 0 || p.early == 0 {
		t.Errorf("the cuts fell on one side only (%d, %d, %d): the test proves little", p.absent, p.durable, p.early)
	}
}

type powerLoss struct {
	*testing.T
	disk    *cutDisk
	archive string
	whole   []string
	// aim is where the cuts are aimed at: later when nothing was there, sooner
	// when all was, so that they fall around the publishing.
	aim time.Duration

	absent, durable, early, wrong, aside int
}

func (p *powerLoss) target(i int) string { return filepath.Join(p.disk.dir, fmt.Sprint("box", i)) }

// round cuts the power once and starts again.
func (p *powerLoss) round(i int) {
	p.Helper()
	target := p.target(i)
	c := p.disk.mountCommand(p.archive, target)
	if err := c.Start(); err != nil {
		p.Fatal(err)
	}
	var what string
	edited := false
	if i%2 == 0 {
		wait := time.Duration(rand.Int64N(int64(2 * p.aim)))
		what = fmt.Sprintf("cut %d after %v", i, wait)
		time.Sleep(wait)
	} else {
		if err := c.Wait(); err != nil {
			p.Fatal(err)
		}
		if edited = i%4 == 3; edited {
			writeSynced(p.T, filepath.Join(target, "d1", "mine"), "mine")
		}
		wait := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		what = fmt.Sprintf("cut %d, %v after it was ready", i, wait)
		time.Sleep(wait)
	}
	p.disk.cut(p.T)
	if i%2 == 0 {
		_ = c.Wait()
	}
	p.disk.powerUp(p.T)

	got, err := listUnedited(target)
	there := err == nil
	if err != nil && !os.IsNotExist(err) {
		p.Fatal(err)
	}
	right := there && cmp.Equal(p.whole, got)
	switch durable := p.disk.recorded(p.T, target); {
	case !there:
		p.absent++
		p.aim = p.aim * 11 / 10
	case durable && !right:
		p.Fatalf("%s: the receipt calls it durable, and it is wrong (-want +got):\n%.3000s", what, cmp.Diff(p.whole, got))
	case durable:
		p.durable++
		p.aim = p.aim * 9 / 10
	default:
		p.early++
		if !right {
			p.wrong++
		}
	}
	c = p.disk.mountCommand(p.archive, target)
	if i%3 == 0 { // else it is left to the process that it leaves behind
		c.Args = append(c.Args, "--sync")
	}
	if out, err := c.CombinedOutput(); err != nil {
		p.Fatalf("%s: the next start fails: %v\n%s", what, err, out)
	}
	p.mustBeWhole(target, what)
	if edited {
		aside, _ := filepath.Glob(target + ".distrusted-*/d1/mine")
		p.aside += len(aside)
		if b, err := os.ReadFile(filepath.Join(target, "d1", "mine")); (err != nil || string(b) != "mine") && len(aside) != 1 {
			p.Fatalf("%s: a synced edit is lost", what)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(p.disk.dir, ".*stage*")); len(left) > 0 {
		p.Fatalf("%s: the next start leaves %q", what, left)
	}
	if out, err := p.disk.command("flush").CombinedOutput(); err != nil {
		p.Fatalf("%s: flush: %v\n%s", what, err, out)
	}
}

func (p *powerLoss) mustBeWhole(target, what string) {
	p.Helper()
	got, err := listUnedited(target)
	if diff := cmp.Diff(p.whole, got); diff != "" || err != nil {
		p.Fatalf("%s: the next start leaves a wrong tree, %v:\n%.3000s", what, err, diff)
	}
}

// listUnedited lists a tree without what the test's user does to it.
func listUnedited(dir string) ([]string, error) {
	list, err := listTree(dir)
	list = slices.DeleteFunc(list, func(line string) bool { return strings.HasPrefix(line, "d1/mine ") })
	for i, line := range list {
		if strings.HasPrefix(line, "d1 ") {
			list[i], _, _ = strings.Cut(line, " mtime=")
		}
	}
	return list, err
}

func writeSynced(t *testing.T, name, text string) {
	t.Helper()
	f, err := os.Create(name)
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		var d *os.File
		if d, err = os.Open(filepath.Dir(name)); err == nil {
			err = d.Sync()
			d.Close()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ownMounts gives this goroutine's thread, and all processes that it starts,
// mounts of their own, which end with them.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		t.Skipf("a namespace of mounts: %v", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
}

// cutDisk is an ext4 on a loop device whose power can be cut.
type cutDisk struct {
	image, dir, state string
	bootID            string // file that stands in for the kernel's
	boots             int
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
	// A machine that comes up again has another boot id.
	d.bootID = filepath.Join(work, "boot_id")
	if err := os.WriteFile(d.bootID, []byte("boot-0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(d.bootID, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	d.powerUp(t)
	t.Cleanup(func() {
		_ = unix.Unmount("/proc/sys/kernel/random/boot_id", unix.MNT_DETACH)
		d.unmount(t)
	})
	return d
}

func (d *cutDisk) command(args ...string) *exec.Cmd {
	c := exec.Command("objectmount", args...)
	c.Env = append(os.Environ(), "OBJECTMOUNT_STATE_DIR="+d.state, "OBJECTMOUNT_RUN_DIR="+d.state,
		"OBJECTMOUNT_CACHE_DIR="+filepath.Join(d.dir, "cache"))
	return c
}

// recorded says whether a receipt calls what is at a path durable. That
// nothing is known of what is there is an error.
func (d *cutDisk) recorded(t *testing.T, path string) bool {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(d.state, "mounts", "*.json"))
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), fmt.Sprintf("%q: %q,", "path", path)) {
			return !strings.Contains(string(b), `"staging"`)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Fatalf("%s is there, and no receipt knows of it", path)
	}
	return false
}

func (d *cutDisk) mountCommand(archive, target string) *exec.Cmd {
	return d.command("mount", archive, target)
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

// unmount waits for processes that are still at work on the dead disk.
func (d *cutDisk) unmount(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Unmount(d.dir, 0)
		if err == nil || err == unix.EINVAL {
			return
		}
		if err != unix.EBUSY || time.Now().After(deadline) {
			t.Fatalf("unmount: %v", err)
		}
	}
}

// powerUp mounts the disk, after unmounting it if it is dead.
func (d *cutDisk) powerUp(t *testing.T) {
	t.Helper()
	d.unmount(t)
	d.boots++
	if err := os.WriteFile(d.bootID, fmt.Appendf(nil, "boot-%d\n", d.boots), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "mount", "-o", "loop", d.image, d.dir)
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}
