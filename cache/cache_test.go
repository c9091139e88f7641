package cache

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestPutRead(t *testing.T) {
	dir := newCacheDir(t)
	s := newStream(1, 200, 64<<10, true)
	c := mustOpen(t, dir, 1<<30)
	b := mustBlob(t, c, "a", s)
	if n := s.verifyAll(t, b); n != 0 {
		t.Fatalf("%d spans are in an empty cache", n)
	}
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
		if !b.HasSpan(i) {
			t.Fatalf("span %d was not kept", i)
		}
	}
	if n := s.verifyAll(t, b); n != len(s.ends) {
		t.Fatalf("%d of %d spans can be read", n, len(s.ends))
	}
	st := c.Stats()
	if end := s.ends[len(s.ends)-1]; st.Bytes < end || st.Bytes > end+201*8192 || b.Stats().Bytes != st.Bytes || st.Puts != 200 || st.Hits != 200 || st.Misses != 200 {
		t.Errorf("Stats of %d bytes: %+v, %+v", end, st, b.Stats())
	}
	// Again, from what was left on the disk.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if b.HasSpan(0) || b.ReadSpan(0, make([]byte, 1), 0) {
		t.Error("a closed blob has spans")
	}
	b.PutSpan(0, s.span(0))
	c = mustOpen(t, dir, 1<<30)
	b = mustBlob(t, c, "a", s)
	if n := s.verifyAll(t, b); n != len(s.ends) {
		t.Fatalf("%d of %d spans are left by the next process", n, len(s.ends))
	}
	if st := c.Stats(); st.Corrupt != 0 || st.Errors != 0 {
		t.Errorf("Stats: %+v", st)
	}
}

func TestReadSpanRefuses(t *testing.T) {
	s := newStream(1, 3, 64<<10, true)
	b := mustBlob(t, mustOpen(t, newCacheDir(t), 1<<30), "a", s)
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
	}
	_, size, _ := s.Span(1)
	for _, x := range []struct{ i, n, off int }{
		{-1, 1, 0}, {3, 1, 0}, {MaxSpans, 1, 0}, {1, 1, -1}, {1, 1, size}, {1, size + 1, 0}, {1, size, 1}, {1, 1, int(^uint(0) >> 1)},
	} {
		if b.ReadSpan(x.i, make([]byte, x.n), x.off) {
			t.Errorf("ReadSpan(%d, %d bytes, %d) is true", x.i, x.n, x.off)
		}
	}
	if !b.ReadSpan(1, nil, size) {
		t.Error("reading nothing at the end of a span that is here is false")
	}
}

func TestPutSpanRefuses(t *testing.T) {
	s := newStream(1, 3, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), 1<<30)
	b := mustBlob(t, c, "a", s)
	wrong := s.span(1)
	wrong[7] ^= 1
	b.PutSpan(1, wrong)
	b.PutSpan(1, s.span(1)[1:])
	b.PutSpan(-1, s.span(1))
	b.PutSpan(3, s.span(1))
	if st := c.Stats(); st.Puts != 0 || st.Dropped != 4 || st.Bytes != 0 || b.HasSpan(1) {
		t.Errorf("Stats: %+v", st)
	}
	b.PutSpan(1, s.span(1)) // none of these is a reason to rest
	if !b.HasSpan(1) {
		t.Error("span 1 was not kept")
	}
}

// growing is a stream of which only the first spans are known yet.
type growing struct {
	*stream
	known atomic.Int64
}

func (g *growing) NumSpans() int { return int(g.known.Load()) }

func TestLayoutGrows(t *testing.T) {
	g := &growing{stream: newStream(1, 100, 20<<10, true)}
	c := mustOpen(t, newCacheDir(t), 1<<30)
	b := mustBlob(t, c, "a", g)
	other := mustBlob(t, c, "a", g.stream) // the whole of it, as another process has it
	for i := range g.ends {
		b.PutSpan(i, g.span(i))
		if b.HasSpan(i) {
			t.Fatalf("span %d is kept before it is known", i)
		}
		g.known.Add(1)
		b.PutSpan(i, g.span(i))
		if !b.HasSpan(i) || !other.HasSpan(i) {
			t.Fatalf("span %d is not kept when it is known", i)
		}
	}
	if n := g.verifyAll(t, b); n != len(g.ends) {
		t.Errorf("%d spans can be read", n)
	}
}

func TestLayoutsDisagree(t *testing.T) {
	dir := newCacheDir(t)
	c := mustOpen(t, dir, 1<<30)
	s, other := newStream(1, 50, 30<<10, true), newStream(2, 50, 40<<10, true)
	b := mustBlob(t, c, "a", s)
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
	}
	if _, err := c.Blob("a", other); !errors.Is(err, ErrLayout) {
		t.Fatalf("a second layout in use: %v", err)
	}
	b.Close()
	b = mustBlob(t, c, "a", other)
	for i := range other.ends {
		if b.HasSpan(i) {
			t.Fatalf("span %d of another layout is taken for this one's", i)
		}
		b.PutSpan(i, other.span(i))
	}
	if n := other.verifyAll(t, b); n != 50 {
		t.Errorf("%d of 50 spans can be read", n)
	}
	b.Close()
	if n, err := onDisk(t, c), c.locked(openWait, c.recount); err != nil || n > c.Stats().Bytes+4096 {
		t.Errorf("%d bytes on disk, %v", n, err)
	}
}

func TestBudget(t *testing.T) {
	const budget = 16 << 20
	s := newStream(3, 1500, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), budget)
	b := mustBlob(t, c, "a", s)
	reads := 1200
	if testing.Short() {
		reads = 300
	}
	var most atomic.Int64
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			most.Store(max(most.Load(), onDisk(t, c)))
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	parallel(t, 8, func(k int) error {
		r := rand.New(rand.NewPCG(9, uint64(k)))
		for range reads {
			i := r.IntN(len(s.ends))
			if r.IntN(2) == 0 {
				i = r.IntN(100) // hot
			}
			ok, err := s.verify(b, i)
			if err != nil {
				return err
			}
			if !ok {
				b.PutSpan(i, s.span(i))
			}
		}
		return nil
	})
	close(done)
	<-watched
	st := c.Stats()
	t.Logf("at most %.3f of the budget on disk; %+v", float64(most.Load())/budget, st)
	if most.Load() > budget*105/100 {
		t.Errorf("%d bytes on disk of a budget of %d", most.Load(), budget)
	}
	if st.Bytes < budget*9/10 || st.Errors > 0 || st.Corrupt > 0 || st.Evicted == 0 {
		t.Errorf("Stats: %+v", st)
	}
	if err := c.locked(openWait, func() error { return c.evict(1 << 60) }); err != nil {
		t.Fatal(err)
	}
	// Everything is evicted: only blocks at unknown edges may be left.
	if n := onDisk(t, c); n > 64<<10 || c.Stats().Bytes != 0 {
		t.Errorf("%d bytes are left on the disk, %d in the account", n, c.Stats().Bytes)
	}
}

func TestClockKeepsWhatIsUsed(t *testing.T) {
	s := newStream(4, 400, 32<<10, true)
	c := mustOpen(t, newCacheDir(t), 4<<20)
	b := mustBlob(t, c, "a", s)
	hot := func() (n int) {
		for i := range 20 {
			if b.ReadSpan(i, make([]byte, 1), 0) {
				n++
			} else {
				b.PutSpan(i, s.span(i))
			}
		}
		return n
	}
	hits, rounds := 0, 0
	for i := 20; i < 400; i++ {
		b.PutSpan(i, s.span(i))
		hits += hot()
		rounds++
	}
	if hits < rounds*20*9/10 {
		t.Errorf("%d hits of %d reads of spans in constant use", hits, rounds*20)
	}
}

func TestPin(t *testing.T) {
	s := newStream(5, 200, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), 8<<20)
	b := mustBlob(t, c, "a", s)
	for i := range 40 {
		b.PutSpan(i, s.span(i))
	}
	release, err := b.Pin(10, 30)
	if err != nil {
		t.Fatal(err)
	}
	for i := 40; i < 200; i++ {
		b.PutSpan(i, s.span(i))
	}
	for i := 10; i < 30; i++ {
		if !b.HasSpan(i) {
			t.Fatalf("span %d is gone, although pinned", i)
		}
	}
	if b.HasSpan(0) {
		t.Error("span 0 is still there: nothing was evicted")
	}
	// No more do they go when nobody has the blob open.
	b.Close()
	if err := c.locked(openWait, func() error { return c.evict(1 << 60) }); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Sweep(nil); n != 0 || err != nil {
		t.Errorf("Sweep of a pinned blob: %d, %v", n, err)
	}
	b = mustBlob(t, c, "a", s)
	for i := range 40 {
		if ok, err := s.verify(b, i); ok != (i >= 10 && i < 30) || err != nil {
			t.Errorf("span %d: %v, %v", i, ok, err)
		}
	}
	release()
	release()
	if err := c.locked(openWait, func() error { return c.evict(1 << 60) }); err != nil {
		t.Fatal(err)
	}
	if b.HasSpan(10) {
		t.Error("span 10 is there after the pin was released")
	}
}

func TestColdBlobsGoFirst(t *testing.T) {
	s := newStream(6, 100, 64<<10, true)
	total := s.ends[99]
	c := mustOpen(t, newCacheDir(t), 2*total*112/100)
	for _, id := range []string{"old", "newer"} {
		b := mustBlob(t, c, id, s)
		for i := range s.ends {
			b.PutSpan(i, s.span(i))
		}
		b.Close()
		time.Sleep(10 * time.Millisecond) // for the time stamps
	}
	b := mustBlob(t, c, "now", s)
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
	}
	if n := s.verifyAll(t, b); n != 100 {
		t.Errorf("%d of 100 spans of the blob in use are here", n)
	}
	b = mustBlob(t, c, "newer", s)
	if n := s.verifyAll(t, b); n < 80 {
		t.Errorf("%d of 100 spans of the blob that was used last are here", n)
	}
	if st := c.Stats(); st.Corrupt != 0 || st.Bytes > 2*total*112/100 {
		t.Errorf("Stats: %+v", st)
	}
}

func TestSweep(t *testing.T) {
	dir := newCacheDir(t)
	c := mustOpen(t, dir, 1<<30)
	s := newStream(1, 10, 64<<10, true)
	for _, id := range []string{"kept", "gone", "open"} {
		b := mustBlob(t, c, id, s)
		b.PutSpan(0, s.span(0))
		if id != "open" {
			b.Close()
		}
		if err := c.WriteFile(id, "index", func(w io.Writer) error { _, err := io.WriteString(w, id); return err }); err != nil {
			t.Fatal(err)
		}
	}
	n, err := c.Sweep(func(id string) bool { return id == "kept" })
	if n != 1 || err != nil {
		t.Fatalf("Sweep: %d, %v", n, err)
	}
	for id, want := range map[string]bool{"kept": true, "gone": false, "open": true} {
		got, err := os.ReadFile(c.Path(id, "index"))
		if (err == nil) != want || want && string(got) != id {
			t.Errorf("%s: %q, %v", id, got, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, deadPrefix+"*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if n, err := c.Sweep(nil); n != 1 || err != nil {
		t.Errorf("Sweep without keep: %d, %v", n, err)
	}
}

func TestWriteFile(t *testing.T) {
	c := mustOpen(t, newCacheDir(t), 1<<30)
	say := func(what string, err error) func(io.Writer) error {
		return func(w io.Writer) error { _, _ = io.WriteString(w, what); return err }
	}
	for _, name := range []string{"", "data", "journal", "state", "lock", "id", ".x", "a/b", "..", strings.Repeat("x", 101)} {
		if err := c.WriteFile("a", name, say("x", nil)); err == nil {
			t.Errorf("the name %.20q is accepted", name)
		}
	}
	if err := c.WriteFile("a", "trace", say("one", nil)); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if err := c.WriteFile("a", "trace", say("two", broken)); !errors.Is(err, broken) {
		t.Errorf("a write that fails: %v", err)
	}
	if got, err := os.ReadFile(c.Path("a", "trace")); string(got) != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if fi, err := os.Stat(c.Path("a", "trace")); err != nil || fi.Mode() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	// A killed process leaves a temporary file, until the blob is opened.
	temp := c.Path("a", tempPrefix+"killed")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustBlob(t, c, "a", newStream(1, 1, 100, true))
	if left, _ := filepath.Glob(c.Path("a", ".*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := newCacheDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "written by others (mode 0770)") {
		t.Errorf("a directory that a group may write to: %v", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "belongs to user 1234") {
			t.Errorf("another user's directory: %v", err)
		}
		_ = os.Chown(dir, 0, 0)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file, Options{}); err == nil {
		t.Error("a file is accepted")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "v*")); len(left) > 0 {
		t.Errorf("refused, but left %q", left)
	}
	c := mustOpen(t, filepath.Join(dir, "a", "b"), 0)
	for _, d := range []string{filepath.Dir(c.dir), c.dir} {
		if fi, err := os.Stat(d); err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, fi.Mode(), err)
		}
	}
}

func TestVersions(t *testing.T) {
	dir := newCacheDir(t)
	for _, v := range []string{"v0", "v7", "v8", "vx"} {
		if err := os.MkdirAll(filepath.Join(dir, v, "a"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// Version 8 is in use.
	f, err := os.Create(filepath.Join(dir, "v8", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := setLock(f, 0 /* F_RDLCK */, lockUsers, 1); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, 0)
	for v, want := range map[string]bool{"v0": false, "v1": true, "v7": false, "v8": true, "vx": true} {
		if _, err := os.Stat(filepath.Join(dir, v)); (err == nil) != want {
			t.Errorf("%s: %v", v, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "CACHEDIR.TAG")); !bytes.HasPrefix(b, []byte("Signature: 8a477f597d28d172789f06886806bc55\n")) {
		t.Errorf("CACHEDIR.TAG: %q, %v", b, err)
	}
}
