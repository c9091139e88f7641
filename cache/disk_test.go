package cache

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a file system of its own for a test.
type disk struct{ image, dir string }

func newDisk(t *testing.T, size int64) *disk {
	t.Helper()
	needRoot(t)
	work := t.TempDir()
	d := &disk{image: filepath.Join(work, "image"), dir: filepath.Join(work, "disk")}
	if err := os.WriteFile(d.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.image, size); err != nil {
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

// cut drops what is not on the disk and makes every further access fail.
func (d *disk) cut(t *testing.T) {
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

// powerUp mounts the disk, after unmounting it if it is dead. Another mount
// namespace that was made meanwhile may hold on to the dead file system; then
// what gets mounted is that again, until the namespace is gone.
func (d *disk) powerUp(t *testing.T) {
	t.Helper()
	for try := 0; ; try++ {
		if err := unix.Unmount(d.dir, 0); err != nil && err != unix.EINVAL {
			t.Fatalf("unmount: %v", err)
		}
		tool(t, "mount", "-o", "loop", d.image, d.dir)
		err := os.WriteFile(filepath.Join(d.dir, "alive"), nil, 0o600)
		if err == nil {
			return
		}
		if try == 100 {
			t.Fatalf("the disk stays dead: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// TestPowerCuts cuts the power of a disk on which two processes and this one
// keep a cache. Nobody may read a wrong byte or fall over, before or after.
func TestPowerCuts(t *testing.T) {
	noRace(t)
	cuts := 12
	if n, err := strconv.Atoi(os.Getenv("OBJECTMOUNT_POWER_CUTS")); err == nil {
		cuts = n
	}
	if testing.Short() {
		cuts = 5
	}
	d := newDisk(t, 128<<20)
	dir := filepath.Join(d.dir, "cache")
	const budget = 8 << 20
	here, lost, corrupt := 0, 0, int64(0)
	for i := range cuts {
		ws := []*worker{startWorker(t, dir, budget), startWorker(t, dir, budget)}
		c := mustOpen(t, dir, budget)
		c.pause = time.Millisecond
		ended := make(chan struct{})
		var err error
		var wg sync.WaitGroup
		wg.Go(func() { err = churn(c, 0, ended) })
		if i%3 > 0 {
			// What was there before the cut shall be on the disk, in part.
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			f, err := os.Open(d.dir)
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Syncfs(int(f.Fd()))
			f.Close()
		}
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		d.cut(t)
		time.Sleep(5 * time.Millisecond) // with a dead disk
		close(ended)
		wg.Wait()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		for _, w := range ws {
			w.stop(t)
		}
		d.powerUp(t)
		c = mustOpen(t, dir, budget)
		for k := range 2 {
			s := sharedStream(k)
			b := mustBlob(t, c, fmt.Sprint(k), s)
			n := s.verifyAll(t, b)
			here, lost = here+n, lost+len(s.ends)-n
			for i := range s.ends {
				b.PutSpan(i, s.span(i))
			}
		}
		st := c.Stats()
		corrupt += st.Corrupt
		if st.Errors > 0 || st.Puts == 0 {
			t.Fatalf("after cut %d: %+v", i, st)
		}
		c.Close()
	}
	t.Logf("%d cuts: %d spans here, %d not, of which %d did not have their checksum", cuts, here, lost, corrupt)
}

// TestFullDisk fills disks. Every PutSpan is harmless, and what is there can
// be read.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	tmpfs := filepath.Join(t.TempDir(), "tmpfs")
	if err := os.Mkdir(tmpfs, 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmpfs)
	t.Cleanup(func() { _ = exec.Command("umount", tmpfs).Run() })
	for name, dir := range map[string]string{"tmpfs": tmpfs, "ext4": newDisk(t, 12<<20).dir} {
		t.Run(name, func(t *testing.T) {
			s := newStream(7, 600, 32<<10, false)
			c := mustOpen(t, filepath.Join(dir, "cache"), 1<<30)
			b := mustBlob(t, c, "1", s)
			for round := range 3 {
				c.paused.Store(0)
				for i := range s.ends {
					b.PutSpan(i, s.span(i))
				}
				if round == 1 {
					c.pause = 0 // try again at once, each time
				}
			}
			st := c.Stats()
			t.Logf("%+v", st)
			if st.Errors == 0 || st.Dropped == 0 || st.Evicted == 0 || st.Corrupt > 0 {
				t.Errorf("Stats: %+v", st)
			}
			if n := s.verifyAll(t, b); n == 0 || int64(n) > st.Puts {
				t.Errorf("%d spans can be read", n)
			}
			// Full of other things.
			if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 32<<20), 0o600); err == nil {
				t.Fatal("the disk is not full")
			}
			n := s.verifyAll(t, b)
			for i := range s.ends {
				b.PutSpan(i, s.span(i))
				if _, err := s.verify(b, i); err != nil {
					t.Fatal(err)
				}
			}
			// A blob that was there can be opened on a full disk.
			_ = b.Close()
			b = mustBlob(t, c, "1", s)
			if m := s.verifyAll(t, b); m == 0 {
				t.Errorf("%d spans can be read after opening the blob on a full disk, %d before", m, n)
			}
			if st := c.Stats(); st.Corrupt > 0 {
				t.Errorf("Stats: %+v", st)
			}
		})
	}
}

// TestFloor keeps a part of the disk free.
func TestFloor(t *testing.T) {
	dir := newDisk(t, 64<<20).dir
	free := func() int64 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		return int64(st.Bavail) * st.Bsize
	}
	floor := free() - 6<<20 // with files, directories and the journal's commits
	c, err := Open(filepath.Join(dir, "cache"), Options{Budget: 1 << 30, FreeFloor: floor})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := sharedStream(1)
	b := mustBlob(t, c, "1", s)
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
		if free() < floor {
			t.Fatalf("%d bytes are free, the floor is %d", free(), floor)
		}
	}
	if st := c.Stats(); st.Bytes < 4<<20 || st.Evicted == 0 {
		t.Errorf("Stats: %+v", st)
	}
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Trim(); err != nil || free() < floor {
		t.Errorf("Trim: %v, %d bytes are free, the floor is %d", err, free(), floor)
	}
}
