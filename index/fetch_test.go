package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"objectmount/cache"
	"objectmount/index"
	"objectmount/internal/archivetest"
)

// bulk is n bytes that do not compress, made quickly.
func bulk(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// held is a Source whose reads wait until the test lets them go on.
type held struct {
	index.Source
	mu    sync.Mutex
	open  bool // nothing waits
	waits []*heldRead
	log   []heldRead // all reads in the order in which they came
	most  int        // reads that waited at a time
}

type heldRead struct {
	off, end int64
	at       time.Time
	pass     chan struct{}
}

func (h *held) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	h.mu.Lock()
	w := &heldRead{off, off + int64(len(p)), time.Now(), make(chan struct{})}
	h.log = append(h.log, *w)
	if h.open {
		close(w.pass)
	} else {
		h.waits = append(h.waits, w)
		h.most = max(h.most, len(h.waits))
	}
	h.mu.Unlock()
	select {
	case <-w.pass:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return h.Source.ReadAtContext(ctx, p, off)
}

func (h *held) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.waits)
}

// pass lets the read of byte off go on; of any, if off is negative.
func (h *held) pass(t *testing.T, off int64) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, w := range h.waits {
		if off < 0 || w.off <= off && off < w.end {
			h.waits = append(h.waits[:i], h.waits[i+1:]...)
			close(w.pass)
			return
		}
	}
	t.Fatalf("nobody reads byte %d: %v", off, h.waits)
}

// release lets everything go on, for good.
func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open = true
	for _, w := range h.waits {
		close(w.pass)
	}
	h.waits = nil
}

// TestFetch: what was fetched in the background needs no source, whatever the
// bounds on it, and is fetched once.
func TestFetch(t *testing.T) {
	for _, o := range objects(t) {
		x := build(t, o.data, index.BuildOptions{})
		for _, b := range []index.Background{{}, {Flights: 3}, {Quiet: time.Millisecond, Bytes: int64(len(o.data)) + 1, Rate: 1 << 40}} {
			if testing.Short() && b.Rate > 0 {
				continue
			}
			spans := &index.MemSpans{}
			r := index.NewReader(x, source(o.data), spans, index.ReaderOptions{})
			must(t, r.Fetch(bg, b))
			must(t, r.Fetch(bg, b))
			must(t, r.Close())
			full := 0
			for i := range x.NumSpans() {
				if _, size, _ := x.Span(i); size > 0 {
					full++
				}
			}
			if s := r.Stats(); s.Decoded != int64(full) || s.Spare != s.Decoded || s.Ahead != s.Decoded || s.Misses != 0 || s.Held > 32<<20 {
				t.Errorf("%s: %+v for %d spans", o.name, s, full)
			}
			r = index.NewReader(x, source(nil), spans, index.ReaderOptions{})
			readThrough(t, r, o.stream)
			must(t, r.Close())
		}
	}
}

// TestFetchGivesWay: a read is never behind more than the one run under way in
// the background, and no run begins while somebody waits, or soon after.
func TestFetchGivesWay(t *testing.T) {
	stream := bulk(24<<20, 1)
	x := build(t, stream, index.BuildOptions{})
	src := &held{Source: source(stream)}
	r := index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{ReadAhead: -1})
	defer r.Close()
	const quiet = 20 * time.Millisecond
	fetched := make(chan error, 1)
	go func() { fetched <- r.Fetch(bg, index.Background{Quiet: quiet}) }()
	wait(t, "the background begins", func() bool { return src.waiting() == 1 })

	read := func(off int64) chan error {
		c := make(chan error, 1)
		go func() {
			p := make([]byte, 1000)
			_, err := r.ReadAt(bg, p, off)
			if err == nil && string(p) != string(stream[off:off+1000]) {
				err = errors.New("other bytes")
			}
			c <- err
		}()
		return c
	}
	// One that waits for the run under way takes part in it; one that does not
	// has a request of his own at once.
	const far, farther = 20 << 20, 22 << 20
	near, a := read(100), read(far)
	wait(t, "both wait", func() bool { return r.Stats().Waiting == 2 && src.waiting() == 2 })
	b := read(farther)
	wait(t, "all wait", func() bool { return r.Stats().Waiting == 3 && src.waiting() == 3 })
	src.pass(t, 0)
	must(t, <-near)
	wait(t, "the run ends", func() bool { return r.Stats().Spare > 0 })
	src.pass(t, far)
	must(t, <-a)
	for range 20 {
		pause()
	}
	if n := src.waiting(); n != 1 {
		t.Errorf("%d requests while a read waits", n)
	}
	last := time.Now()
	src.pass(t, farther)
	must(t, <-b)
	wait(t, "the background goes on", func() bool { return src.waiting() == 1 })
	if begun := src.log[len(src.log)-1].at; begun.Sub(last) < quiet {
		t.Errorf("it goes on after %v", begun.Sub(last))
	}
	src.release()
	must(t, <-fetched)
	if src.most != 3 {
		t.Errorf("%d requests at a time", src.most)
	}
	spans := x.NumSpans()
	if s := r.Stats(); s.Decoded != int64(spans) || s.Spare != int64(spans-2) {
		t.Errorf("%+v for %d spans", s, spans)
	}
}

// TestFetchTurns: Readers that share a link have one run between them.
func TestFetchTurns(t *testing.T) {
	stream := bulk(12<<20, 2)
	x := build(t, stream, index.BuildOptions{})
	src := &held{Source: source(stream)}
	traffic := new(index.Traffic)
	var all sync.WaitGroup
	for range 3 {
		r := index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{Traffic: traffic})
		all.Go(func() {
			if err := errors.Join(r.Fetch(bg, index.Background{}), r.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		all.Wait()
	}()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
			if src.waiting() > 0 {
				src.pass(t, -1)
			}
			pause()
		}
	}
	if src.most != 1 {
		t.Errorf("%d requests at a time", src.most)
	}
}

// TestFetchRoom: a cache that is full of what was read stays so.
func TestFetchRoom(t *testing.T) {
	stream := bulk(32<<20, 3)
	x := build(t, stream, index.BuildOptions{})
	c, err := cache.Open(t.TempDir()+"/cache", cache.Options{Budget: 16 << 20, FreeFloor: -1})
	must(t, err)
	defer c.Close()
	b, err := c.Blob("object", x)
	must(t, err)
	r := index.NewReader(x, source(stream), b, index.ReaderOptions{ReadAhead: -1})
	defer r.Close()
	reads := []int64{3, 9, 17, 26, 31}
	for _, i := range reads {
		_, err := r.ReadAt(bg, make([]byte, 10), i<<20)
		must(t, err)
	}
	for range 2 {
		if err := r.Fetch(bg, index.Background{}); !errors.Is(err, index.ErrNoRoom) {
			t.Fatalf("a full cache: %v", err)
		}
	}
	here := 0
	for i := range x.NumSpans() {
		if b.HasSpan(i) {
			here++
		}
	}
	for _, i := range reads {
		if !b.HasSpan(int(i)) {
			t.Errorf("span %d, which was read, is gone", i)
		}
	}
	if s := c.Stats(); here < 14 || here > 16 || s.Evicted != 0 || s.Dropped != 0 {
		t.Errorf("%d spans are there; %+v", here, s)
	}
}

// TestFetchFails: failures are told and tried again later; damage is left to
// whoever asks for it; giving up ends it.
func TestFetchFails(t *testing.T) {
	stream := bulk(9<<20, 4)
	x := build(t, stream, index.BuildOptions{})
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		src := &faulty{Source: source(stream)}
		src.fail = func(k int32, off int64) error {
			if off == 4<<20 && k < 8 {
				return broken
			}
			return nil
		}
		src.spoil = func(_ int32, p []byte) { // byte 7 MiB, wherever it comes
			if i := bytes.Index(p, stream[7<<20:7<<20+16]); i >= 0 {
				p[i] ^= 1
			}
		}
		spans := &index.MemSpans{}
		r := index.NewReader(x, src, spans, index.ReaderOptions{})
		defer r.Close()
		var told []error
		begun := time.Now()
		must(t, r.Fetch(bg, index.Background{Failed: func(err error) bool { told = append(told, err); return false }}))
		if len(told) < 4 || !errors.Is(told[0], broken) || !errors.Is(told[len(told)-1], index.ErrCorrupt) {
			t.Errorf("told of %v", told)
		}
		if took := time.Since(begun); took < 7*time.Second || took > time.Minute {
			t.Errorf("it took %v", took)
		}
		for i := range x.NumSpans() {
			if spans.HasSpan(i) == (i == 7) {
				t.Errorf("span %d is there: %v", i, i == 7)
			}
		}
		over := errors.New("over")
		src.fail = func(int32, int64) error { return over }
		if err := r.Fetch(bg, index.Background{Failed: func(error) bool { return true }}); !errors.Is(err, over) {
			t.Errorf("gave up with %v", err)
		}
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		if err := r.Fetch(ctx, index.Background{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestFetchBounds: no more bytes than allowed, and no faster.
func TestFetchBounds(t *testing.T) {
	stream := bulk(12<<20, 5)
	x := build(t, stream, index.BuildOptions{})
	synctest.Test(t, func(t *testing.T) {
		src := &held{Source: source(stream), open: true}
		r := index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{})
		defer r.Close()
		begun := time.Now()
		must(t, r.Fetch(bg, index.Background{Bytes: 5<<20 + 100, Rate: 1 << 20}))
		total := int64(0)
		for _, w := range src.log {
			total += w.end - w.off
		}
		if took := time.Since(begun); total != 5<<20 || took != 5*time.Second {
			t.Errorf("%d bytes in %v", total, took)
		}
		must(t, r.Fetch(bg, index.Background{Spans: []int{11, 2, 10, 9}}))
		if s := r.Stats(); s.Unasked != 8<<20 || s.Fetched != s.Unasked {
			t.Errorf("%+v", s)
		}
	})
}

// ranges gives which bytes of the object each span is made of.
func ranges(t *testing.T, x *index.Index, data []byte) (of []heldRead) {
	for i := range x.NumSpans() {
		src := &held{Source: source(data), open: true}
		r := index.NewReader(x, src, nil, index.ReaderOptions{ReadAhead: -1})
		if off, size, _ := x.Span(i); size > 0 {
			_, err := r.ReadAt(bg, make([]byte, 1), off)
			must(t, err)
			of = append(of, heldRead{off: src.log[0].off, end: src.log[len(src.log)-1].end})
		} else {
			of = append(of, heldRead{})
		}
		must(t, r.Close())
	}
	return of
}

// TestNothingAhead: without reading ahead the source sees the spans that were
// asked for, and not a byte more.
func TestNothingAhead(t *testing.T) {
	for i, o := range objects(t) {
		if testing.Short() && i%3 > 0 {
			continue
		}
		x := build(t, o.data, index.BuildOptions{})
		of := ranges(t, x, o.data)
		src := &held{Source: source(o.data), open: true}
		r := index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{})
		r.SetReadAhead(-1)
		rnd, asked := rnd(6), map[int]bool{}
		for range 20 {
			if len(o.stream) == 0 {
				break
			}
			off := rnd.Int64N(int64(len(o.stream)))
			p := make([]byte, min(1+rnd.IntN(1<<20), len(o.stream)-int(off)))
			_, err := r.ReadAt(bg, p, off)
			must(t, err)
			for i := range x.NumSpans() {
				at, size, _ := x.Span(i)
				if at < off+int64(len(p)) && at+int64(size) > off {
					asked[i] = true
				}
			}
		}
		must(t, r.Close())
		for _, w := range src.log {
			for i, span := range of { // in order
				if asked[i] && span.off <= w.off {
					w.off = max(w.off, span.end)
				}
			}
			if w.off < w.end {
				t.Fatalf("%s: bytes [%d, %d) of the object were read, which nobody asked for", o.name, w.off, w.end)
			}
		}
		if s := r.Stats(); s.Ahead != 0 || s.Unasked != 0 {
			t.Errorf("%s: %+v", o.name, s)
		}
	}
}

// TestBeside: one file of a directory is read, and those that follow it there
// come, too; none of another directory, and not without end.
func TestBeside(t *testing.T) {
	var parts [][]byte
	for _, dir := range []string{"a", "b"} {
		for i := range 10 {
			parts = append(parts, archivetest.File(fmt.Sprintf("%s/%d", dir, i), string(bulk(900<<10, byte(i)))))
		}
	}
	data := archivetest.Tar(parts...)
	x := build(t, data, index.BuildOptions{})
	row := func(dir, name string) uint32 {
		d, err := x.Lookup(bg, 0, dir)
		must(t, err)
		r, err := x.Lookup(bg, d, name)
		must(t, err)
		return r
	}
	for _, c := range []struct {
		dir, name string
		ahead     int64
		reads     int64 // what the directory's next files need
	}{{"a", "2", 0, 4}, {"a", "8", 0, 1}, {"b", "0", 0, 4}, {"b", "9", 0, 0}, {"a", "2", -1, 0}} {
		spans := &index.MemSpans{}
		r := index.NewReader(x, source(data), spans, index.ReaderOptions{ReadAhead: c.ahead})
		_, err := r.ReadFileAt(bg, row(c.dir, c.name), make([]byte, 100), 0)
		must(t, err)
		wait(t, "the others come", func() bool { return r.Stats().Ahead >= c.reads && r.Stats().Decoded == r.Stats().Ahead+1 })
		must(t, r.Close())
		if s := r.Stats(); s.Ahead != c.reads || s.Unasked > 4<<20 {
			t.Errorf("%s/%s: %+v, want %d", c.dir, c.name, s, c.reads)
		}
	}
}
