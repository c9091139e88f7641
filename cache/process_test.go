package cache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
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
