package index_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// TestTrace: what was read is recorded in its order; the next Reader that
// fetches it needs no request for the same reads.
func TestTrace(t *testing.T) {
	for _, o := range objects(t) {
		if len(o.stream) < 4<<20 {
			continue
		}
		x := build(t, o.data, index.BuildOptions{})
		reads := []int64{3 << 20, 100, 3<<20 + 1, 2 << 20, 200}
		read := func(r *index.Reader) {
			for _, off := range reads {
				p := make([]byte, 5000)
				_, err := r.ReadAt(bg, p, off)
				must(t, err)
				if !bytes.Equal(p, o.stream[off:off+5000]) {
					t.Fatalf("%s: other bytes", o.name)
				}
			}
		}
		r := index.NewReader(x, source(o.data), &index.MemSpans{}, index.ReaderOptions{Record: time.Hour})
		read(r)
		must(t, r.Close())
		<-r.Recorded()
		file := x.EncodeTrace(r.Trace())
		trace, err := x.ParseTrace(file)
		must(t, err)
		if !slices.Equal(trace, r.Trace()) || len(trace) < 3 || len(trace) > 6 {
			t.Errorf("%s: the trace is %v, its file says %v", o.name, r.Trace(), trace)
		}
		if at, size, _ := x.Span(trace[0]); at > reads[0] || at+int64(size) <= reads[0] {
			t.Errorf("%s: the first is span %d, [%d,+%d)", o.name, trace[0], at, size)
		}

		src := &held{Source: source(o.data), open: true}
		r = index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{ReadAhead: -1})
		must(t, r.Fetch(bg, index.Background{Spans: trace, Flights: 4}))
		before := len(src.log)
		read(r)
		must(t, r.Close())
		if n := len(src.log) - before; n != 0 || r.Stats().Misses != 0 {
			t.Errorf("%s: %d requests for what was there, %+v", o.name, n, r.Stats())
		}
	}
}

// TestTraceWindow: reads after the window are not in it, however many.
func TestTraceWindow(t *testing.T) {
	stream := bulk(4<<20, 1)
	x := build(t, stream, index.BuildOptions{})
	synctest.Test(t, func(t *testing.T) {
		r := index.NewReader(x, source(stream), &index.MemSpans{}, index.ReaderOptions{ReadAhead: -1, Record: 30 * time.Second})
		defer r.Close()
		time.Sleep(time.Hour) // it begins with the first read
		for _, i := range []int64{2, 0, 2} {
			_, err := r.ReadAt(bg, make([]byte, 1), i<<20)
			must(t, err)
			time.Sleep(14 * time.Second)
		}
		<-r.Recorded()
		_, err := r.ReadAt(bg, make([]byte, 1), 1<<20)
		must(t, err)
		if got := r.Trace(); !slices.Equal(got, []int{2, 0}) {
			t.Errorf("the trace is %v", got)
		}
	})
}

// TestTraceGrowing: reads during the first pass are in it, too.
func TestTraceGrowing(t *testing.T) {
	stream := archivetest.Tar(archivetest.File("a", string(bulk(3<<20, 1))), archivetest.File("b", string(bulk(3<<20, 2))))
	data := gzipped(t, stream, 1)
	src := newSlow(data)
	g := index.NewGrowing(src, index.BuildOptions{})
	spans := &index.MemSpans{}
	r := index.NewReader(g, src, spans, index.ReaderOptions{Record: time.Hour})
	ran := make(chan error, 1)
	go func() { ran <- g.Run(bg, spans) }()
	src.allow(int64(len(data)/3), nil)
	p := make([]byte, 10)
	wait(t, "some is there", func() bool { return g.StreamSize() > 1<<20+200_000 })
	var offs []int64
	for _, off := range []int64{g.StreamSize() - 10, 10} { // the last bytes seen, and the first
		_, err := r.ReadAt(bg, p, off)
		must(t, err)
		offs = append(offs, off)
	}
	if got := r.Trace(); got != nil {
		t.Errorf("a trace before the end: %v", got)
	}
	src.allow(int64(len(data)), nil)
	must(t, <-ran)
	trace := r.Trace()
	must(t, r.Close())
	defer g.Close()
	if len(trace) != 2 {
		t.Fatalf("the trace is %v", trace)
	}
	for i, off := range offs {
		if at, size, _ := g.Span(trace[i]); at > off || at+int64(size) <= off {
			t.Errorf("the %dth is span %d, [%d,+%d), and byte %d was read", i, trace[i], at, size, off)
		}
	}
}

func TestMergeTrace(t *testing.T) {
	long := make([]int, index.MaxTrace+5)
	for i := range long {
		long[i] = i
	}
	for _, c := range []struct{ now, older, want []int }{
		{nil, []int{1, 2}, []int{1, 2}},
		{[]int{5}, []int{1, 5, 2}, []int{5, 1, 2}},
		{[]int{5, 6}, []int{1}, []int{5, 6}},
		{[]int{3}, nil, []int{3}},
		{long, []int{-1}, long[:index.MaxTrace]},
	} {
		if got := index.MergeTrace(c.now, c.older); !slices.Equal(got, c.want) {
			t.Errorf("%d and %d give %d spans", len(c.now), len(c.older), len(got))
		}
	}
}

// sealTrace makes the checksum and the index of a trace file right.
func sealTrace(x *index.Index, b []byte) []byte {
	b = bytes.Clone(b)
	good := x.EncodeTrace(nil)
	if len(b) >= len(good) {
		copy(b, good[:40])
		binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b[:len(b)-4], crc32.MakeTable(crc32.Castagnoli)))
	}
	return b
}

// TestHostileTrace: a trace that is not exactly one is refused.
func TestHostileTrace(t *testing.T) {
	stream := bulk(5<<20, 3)
	x := build(t, stream, index.BuildOptions{})
	good := x.EncodeTrace([]int{4, 0, 1})
	for i := range good {
		for _, bit := range []byte{1, 128} {
			b := bytes.Clone(good)
			b[i] ^= bit
			if _, err := x.ParseTrace(b); !errors.Is(err, index.ErrDamaged) {
				t.Errorf("byte %d: %v", i, err)
			}
		}
		if _, err := x.ParseTrace(good[:i]); !errors.Is(err, index.ErrDamaged) {
			t.Errorf("%d bytes: %v", i, err)
		}
	}
	if _, err := x.ParseTrace(append(bytes.Clone(good), 0)); !errors.Is(err, index.ErrDamaged) {
		t.Errorf("a byte too much: %v", err)
	}
	other := build(t, stream[:4<<20], index.BuildOptions{})
	if _, err := other.ParseTrace(good); !errors.Is(err, index.ErrMismatch) {
		t.Errorf("of another index: %v", err)
	}
	for _, spans := range [][]int{{5}, {1, 1}, {-1}, {1 << 31}} {
		if _, err := x.ParseTrace(x.EncodeTrace(spans)); !errors.Is(err, index.ErrDamaged) {
			t.Errorf("%v: %v", spans, err)
		}
	}
	if n := len(x.EncodeTrace(make([]int, index.MaxTrace+1))); int64(n) != index.MaxTraceBytes {
		t.Errorf("%d bytes", n)
	}
	if !x.IsTrace(x.TraceMetadata()) || x.IsTrace(other.TraceMetadata()) || x.IsTrace(nil) {
		t.Error("metadata are not told apart")
	}
}

// FuzzTrace reads anything as a trace, with index and checksum made right if
// seal says so: it is refused, or it is exactly what writing it again gives,
// and speaks of spans that there are, once each.
func FuzzTrace(f *testing.F) {
	x := build(f, bulk(40<<20, 4), index.BuildOptions{})
	for _, spans := range [][]int{nil, {0}, {39, 1, 2}, {40}, {7, 7}} {
		f.Add(x.EncodeTrace(spans), true)
		f.Add(x.EncodeTrace(spans), false)
	}
	f.Add([]byte("omtrace\x01"), false)
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal {
			b = sealTrace(x, b)
		}
		spans, err := x.ParseTrace(b)
		if err != nil {
			if !errors.Is(err, index.ErrDamaged) && !errors.Is(err, index.ErrMismatch) {
				t.Fatal(err)
			}
			return
		}
		seen := map[int]bool{}
		for _, i := range spans {
			if i < 0 || i >= x.NumSpans() || seen[i] {
				t.Fatal(fmt.Sprint("span ", i))
			}
			seen[i] = true
		}
		if !bytes.Equal(x.EncodeTrace(spans), b) {
			t.Fatal("another file")
		}
	})
}
