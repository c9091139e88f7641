package cache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the other processes of these tests: with this
// variable it works on a cache, until its input is closed.
const workEnv = "CACHE_TEST_WORK"

func TestMain(m *testing.M) {
	if os.Getenv(workEnv) != "" {
		if err := work(os.Getenv(workEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// The streams that the processes share. Every second one knows its checksums.
func sharedStream(k int) *stream { return newStream(uint64(k), 300, 32<<10, k%2 == 1) }

// work puts and reads random spans of two blobs, checks every byte, and opens
// and closes the blobs now and then.
func work(how string) error {
	dir, b, _ := strings.Cut(how, "|")
	budget, err := strconv.ParseInt(b, 10, 64)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	c, err := Open(dir, Options{Budget: budget, FreeFloor: -1})
	if err != nil {
		return notBroken(err)
	}
	c.pause = time.Millisecond
	fmt.Println("ready")
	errs := make(chan error, 4)
	for k := range cap(errs) {
		go func() { errs <- churn(c, k%2, ended) }()
	}
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return errors.Join(err, c.Close())
}

func churn(c *Cache, k int, ended chan struct{}) error {
	s := sharedStream(k)
	for {
		b, err := c.Blob(fmt.Sprint(k), s)
		if err != nil {
			return notBroken(err)
		}
		for range 300 {
			select {
			case <-ended:
				return nil
			default:
			}
			i := rand.IntN(len(s.ends))
			ok, err := s.verify(b, i)
			if err != nil {
				return fmt.Errorf("WRONG BYTES: %w", err)
			}
			if !ok {
				b.PutSpan(i, s.span(i))
			}
		}
		if err := b.Close(); err != nil {
			return err
		}
	}
}

// notBroken lets a worker end in peace when its disk was taken away.
func notBroken(err error) error {
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

type worker struct {
	cmd   *exec.Cmd
	input io.Closer
	log   strings.Builder
}

// startWorker returns when the worker is at work, or has ended.
func startWorker(t *testing.T, dir string, budget int64) *worker {
	t.Helper()
	w := &worker{cmd: exec.Command("/proc/self/exe")}
	w.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s|%d", workEnv, dir, budget), "GOMAXPROCS=2")
	w.cmd.Stderr = &w.log
	in, err := w.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.input = in
	t.Cleanup(func() { _ = w.cmd.Process.Kill(); _ = w.cmd.Wait() })
	_, _ = bufio.NewReader(out).ReadString('\n')
	return w
}

// stop lets the worker end by itself and reports what it has to say.
func (w *worker) stop(t *testing.T) {
	t.Helper()
	w.input.Close()
	if err := w.cmd.Wait(); err != nil || w.log.Len() > 0 {
		t.Fatalf("worker: %v\n%s", err, w.log.String())
	}
}

// kill kills it. What it said before must not be of wrong bytes.
func (w *worker) kill(t *testing.T) {
	t.Helper()
	_ = w.cmd.Process.Kill()
	_ = w.cmd.Wait()
	if w.log.Len() > 0 {
		t.Fatalf("worker: %s", w.log.String())
	}
}

// TestProcesses has processes evict each other's spans while all of them
// read.
func TestProcesses(t *testing.T) {
	dir := newCacheDir(t)
	const budget = 4 << 20
	c := mustOpen(t, dir, budget)
	var ws []*worker
	for range 3 {
		ws = append(ws, startWorker(t, dir, budget))
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if n := onDisk(t, c); n > budget*105/100 {
			t.Fatalf("%d bytes on disk of a budget of %d", n, budget)
		}
		ended := make(chan struct{})
		timer := time.AfterFunc(100*time.Millisecond, func() { close(ended) })
		err := churn(c, 0, ended)
		timer.Stop()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range ws {
		w.stop(t)
	}
	st := c.Stats()
	t.Logf("%+v", st)
	if st.Corrupt > 0 || st.Errors > 0 || st.Hits == 0 || st.Puts == 0 || st.Evicted == 0 {
		t.Errorf("Stats: %+v", st)
	}
	before := st.Bytes
	if err := c.locked(openWait, c.recount); err != nil {
		t.Fatal(err)
	}
	if after := c.Stats().Bytes; after > before {
		t.Errorf("the account has %d bytes, but there are %d", before, after)
	}
}

// TestKill kills processes at work. Whoever stays, and whoever comes then,
// reads right bytes and finds a cache in order.
func TestKill(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 30
	}
	dir := newCacheDir(t)
	const budget = 4 << 20
	stays := startWorker(t, dir, budget)
	var most int64
	for i := range kills {
		w := startWorker(t, dir, budget)
		time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond)
		w.kill(t)
		if i%10 == 9 {
			// All at once, so that the next one starts from the journal.
			stays.kill(t)
			c := mustOpen(t, dir, budget)
			for k := range 2 {
				s := sharedStream(k)
				b := mustBlob(t, c, fmt.Sprint(k), s)
				s.verifyAll(t, b)
			}
			most = max(most, onDisk(t, c))
			if st := c.Stats(); st.Errors > 0 || st.Corrupt > 0 {
				t.Fatalf("after %d kills: %+v", i+1, st)
			}
			c.Close()
			stays = startWorker(t, dir, budget)
		}
	}
	stays.stop(t)
	t.Logf("at most %.3f of the budget on disk", float64(most)/budget)
	if most > budget*105/100 {
		t.Errorf("%d bytes on disk of a budget of %d", most, budget)
	}
}

// TestStopped has someone keep the lock, as a process does that was stopped at
// work: the others cannot write, but they read.
func TestStopped(t *testing.T) {
	dir := newCacheDir(t)
	c, other := mustOpen(t, dir, 1<<30), mustOpen(t, dir, 1<<30)
	s := sharedStream(1)
	b := mustBlob(t, c, "1", s)
	b.PutSpan(0, s.span(0))
	if err := other.lock.acquire(openWait); err != nil {
		t.Fatal(err)
	}
	b.PutSpan(1, s.span(1)) // waits two seconds, in vain
	b.PutSpan(2, s.span(2)) // does not wait
	if st := c.Stats(); st.Dropped != 2 {
		t.Errorf("Stats: %+v", st)
	}
	if ok, err := s.verify(b, 0); !ok || err != nil {
		t.Errorf("reading: %v, %v", ok, err)
	}
	other.lock.release()
	c.paused.Store(0)
	b.PutSpan(1, s.span(1))
	if !b.HasSpan(1) {
		t.Error("span 1 is not kept afterwards")
	}
}

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
