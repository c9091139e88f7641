package index_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

var bg = context.Background()

// text is n bytes that compress about as source code does.
func text(n int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	words := words()
	var b bytes.Buffer
	for b.Len() < n {
		b.WriteString(words[min(rnd.IntN(len(words)), rnd.IntN(len(words)))])
	}
	return b.Bytes()[:n]
}

var words = sync.OnceValue(func() []string {
	rnd := rand.New(rand.NewPCG(1, 1))
	words := make([]string, 2000)
	for i := range words {
		words[i] = fmt.Sprintf("%x ", rnd.Uint32()>>(rnd.IntN(28)))
	}
	return words
})

// noise is n bytes that do not compress.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 2}).Read(b)
	return b
}

func gzipped(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, level)
	must(t, err)
	_, err = w.Write(data)
	must(t, err)
	must(t, w.Close())
	return b.Bytes()
}

// object is a way to store a stream.
type object struct {
	name         string
	data, stream []byte
}

// objects are streams of a few MiB, stored in all ways. They are made once.
func objects(t testing.TB) []object {
	made.Do(func() { made.all = makeObjects(t) })
	return made.all
}

var made struct {
	sync.Once
	all []object
}

func makeObjects(t testing.TB) []object {
	size := 2 << 20
	if testing.Short() { // two spans still
		size = 5 << 18
	}
	mixed := archivetest.Tar(
		archivetest.File("text", string(text(size, 1))),
		archivetest.File("noise", string(noise(size/2, 2))),
		archivetest.Dir("d/"),
		archivetest.File("d/zeros", string(make([]byte, size))),
		archivetest.File("d/small", "small"),
		archivetest.HardLink("d/link", "text"),
	)
	var members [][]byte
	for rest := mixed; len(rest) > 0; {
		n := min(len(rest), 300_000)
		members, rest = append(members, rest[:n]), rest[n:]
	}
	var bgzf [][]byte
	for rest := mixed; len(rest) > 0; {
		n := min(len(rest), 65280)
		bgzf, rest = append(bgzf, rest[:n]), rest[n:]
	}
	exact := noise(2<<20, 8) // ends where a span of a plain stream does
	if testing.Short() {
		return []object{
			{"plain", mixed, mixed},
			{"members, some without bytes", archivetest.Join(archivetest.Members(nil, bgzf[0], nil, nil), archivetest.Members(bgzf[1:]...), archivetest.Members(nil, nil), make([]byte, 700)), mixed},
			{"gzip 6", gzipped(t, mixed, 6), mixed},
			{"empty gzip", archivetest.Gzip(nil), nil},
			{"empty", nil, nil},
		}
	}
	return []object{
		{"plain", mixed, mixed},
		{"plain, of whole spans", exact, exact},
		{"gzip 6", gzipped(t, mixed, 6), mixed},
		{"gzip 1", gzipped(t, mixed, 1), mixed},
		{"stored blocks", gzipped(t, mixed, 0), mixed},
		{"Huffman only", gzipped(t, mixed, gzip.HuffmanOnly), mixed},
		{"members", archivetest.Members(members...), mixed},
		{"members of 64 KiB", archivetest.Members(bgzf...), mixed},
		{"members, some without bytes", archivetest.Join(archivetest.Members(nil, members[0], nil, nil), archivetest.Members(members[1:]...), archivetest.Members(nil, nil), make([]byte, 700)), mixed},
		{"empty gzip", archivetest.Gzip(nil), nil},
		{"empty", nil, nil},
	}
}

// TestReadAt reads at random, by many at a time, and gets the stream's bytes:
// through any cache, also one that forgets, and with little memory.
func TestReadAt(t *testing.T) {
	for _, o := range objects(t) {
		x := build(t, o.data, index.BuildOptions{})
		checkSpans(t, x, o.stream)
		for _, how := range []string{"no cache", "cache", "forgetful cache", "little memory", "no read-ahead"} {
			if testing.Short() && (how == "cache" || how == "no read-ahead") {
				continue
			}
			t.Run(o.name+"/"+how, func(t *testing.T) {
				var spans index.Spans
				opt := index.ReaderOptions{}
				switch how {
				case "cache":
					spans = &index.MemSpans{}
				case "forgetful cache":
					spans = &forgetful{rnd: rand.New(rand.NewPCG(5, 6))}
				case "little memory":
					opt.Memory = 1
				case "no read-ahead":
					opt.ReadAhead = -1
				}
				r := index.NewReader(x, source(o.data), spans, opt)
				var wg sync.WaitGroup
				reads := 12
				if testing.Short() {
					reads = 3
				}
				for i := range 4 {
					wg.Go(func() { readRandomly(t, r, o.stream, uint64(i), reads) })
				}
				wg.Go(func() { readThrough(t, r, o.stream) })
				wg.Wait()
				must(t, r.Close())
				if s := r.Stats(); s.Failed != 0 || s.Waiting != 0 {
					t.Errorf("%+v", s)
				}
				if _, err := r.ReadAt(bg, make([]byte, 1), 0); len(o.stream) > 0 && how == "no cache" && err == nil && r.Stats().Held == 0 {
					t.Error("reads after Close")
				}
			})
		}
	}
}

func readRandomly(t *testing.T, r *index.Reader, want []byte, seed uint64, reads int) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	for range reads {
		n := 1 + rnd.IntN(1<<(1+rnd.IntN(21)))
		off := rnd.Int64N(int64(len(want)) + 100)
		p := make([]byte, n)
		got, err := r.ReadAt(bg, p, off)
		rest := want[min(off, int64(len(want))):]
		if wantErr := n > len(rest); got != min(n, len(rest)) || (err == io.EOF) != wantErr || (err != nil && err != io.EOF) || !bytes.Equal(p[:got], rest[:got]) {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v; the stream has %d", n, off, got, err, len(want))
			return
		}
	}
}

func readThrough(t *testing.T, r *index.Reader, want []byte) {
	p := make([]byte, 100_000)
	for off := 0; off < len(want); {
		n, err := r.ReadAt(bg, p, int64(off))
		if err != nil && err != io.EOF || !bytes.Equal(p[:n], want[off:off+n]) || n == 0 {
			t.Errorf("ReadAt(%d) = %d, %v", off, n, err)
			return
		}
		off += n
	}
}

// checkSpans holds a layout to its promises.
func checkSpans(t *testing.T, l index.Layout, stream []byte) {
	t.Helper()
	at := int64(0)
	for i := range l.NumSpans() {
		off, size, _ := l.Span(i)
		if off != at || size < 0 || size > index.MaxSpan || size == 0 && i < l.NumSpans()-1 {
			t.Errorf("span %d of %d: [%d,+%d), want it at %d", i, l.NumSpans(), off, size, at)
		}
		at = off + int64(size)
	}
	if at != int64(len(stream)) {
		t.Errorf("spans cover %d bytes of %d", at, len(stream))
	}
}

// forgetful keeps spans only sometimes, and forgets.
type forgetful struct {
	index.MemSpans
	mu  sync.Mutex
	rnd *rand.Rand
}

func (f *forgetful) coin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rnd.IntN(2) == 0
}

func (f *forgetful) ReadSpan(i int, p []byte, off int) bool {
	if f.coin() {
		f.Drop(i)
	}
	return f.MemSpans.ReadSpan(i, p, off)
}

func (f *forgetful) PutSpan(i int, data []byte) {
	if f.coin() {
		f.MemSpans.PutSpan(i, data)
	}
}

// TestPrefetch puts all spans into the cache, once each, and what is read then
// needs no source.
func TestPrefetch(t *testing.T) {
	for _, o := range objects(t) {
		x := build(t, o.data, index.BuildOptions{})
		spans := &index.MemSpans{}
		r := index.NewReader(x, source(o.data), spans, index.ReaderOptions{})
		must(t, r.Prefetch(bg, 0, x.StreamSize()))
		must(t, r.Prefetch(bg, 0, x.StreamSize()))
		must(t, r.Close())
		full := 0
		for i := range x.NumSpans() {
			if _, size, _ := x.Span(i); size > 0 {
				full++
				if !spans.HasSpan(i) {
					t.Errorf("%s: span %d is missing", o.name, i)
				}
			}
		}
		if s := r.Stats(); s.Decoded != int64(full) || s.Held > 32<<20 {
			t.Errorf("%s: %+v for %d spans", o.name, s, full)
		}
		r = index.NewReader(x, source(nil), spans, index.ReaderOptions{})
		readThrough(t, r, o.stream)
		must(t, r.Close())
	}
}

// faulty is a Source that can be held up and can lie.
type faulty struct {
	index.Source
	gate    chan struct{}           // reads wait for it, if not nil
	waiting atomic.Int32            // reads that do
	gone    atomic.Int32            // reads that gave up because of their context
	reads   atomic.Int32            //
	spoil   func(n int32, p []byte) // changes what the nth read gives
	fail    func(n int32, off int64) error
}

func (f *faulty) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	k := f.reads.Add(1)
	if f.gate != nil {
		f.waiting.Add(1)
		defer f.waiting.Add(-1)
		select {
		case <-f.gate:
		case <-ctx.Done():
			f.gone.Add(1)
			return 0, ctx.Err()
		}
	}
	if f.fail != nil {
		if err := f.fail(k, off); err != nil {
			return 0, err
		}
	}
	n, err := f.Source.ReadAtContext(ctx, p, off)
	if f.spoil != nil {
		f.spoil(k, p[:n])
	}
	return n, err
}

// TestCancel: a reader that leaves does so at once, and harms nobody; when the
// last one leaves, the fetching ends.
func TestCancel(t *testing.T) {
	data := gzipped(t, text(3<<20, 3), 6)
	x := build(t, data, index.BuildOptions{})
	src := &faulty{Source: source(data), gate: make(chan struct{})}
	r := index.NewReader(x, src, nil, index.ReaderOptions{ReadAhead: -1})
	defer r.Close()
	read := func(ctx context.Context) chan error {
		c := make(chan error, 1)
		go func() {
			_, err := r.ReadAt(ctx, make([]byte, 100), 2<<20)
			c <- err
		}()
		return c
	}
	one, stopOne := context.WithCancel(bg)
	two, stopTwo := context.WithCancel(bg)
	a, b := read(one), read(two)
	wait(t, "both wait", func() bool { return r.Stats().Waiting == 2 && src.waiting.Load() == 1 })
	stopOne()
	if err := <-a; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that left: %v", err)
	}
	if src.gone.Load() != 0 {
		t.Error("the fetch ended with its first reader")
	}
	stopTwo()
	<-b
	wait(t, "the fetch ends", func() bool { return src.gone.Load() == 1 && r.Stats().Held == 0 })

	c := read(bg) // and none of this is remembered
	wait(t, "it waits", func() bool { return src.waiting.Load() == 1 })
	close(src.gate)
	must(t, <-c)
}

// wait waits for something that must happen.
func wait(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 10_000 {
		if is() {
			return
		}
		pause()
	}
	t.Fatalf("waited in vain until %s", what)
}

// TestWrongBytes: what is not as the index says is an error, never bytes; once
// it is right again, so is the read.
func TestWrongBytes(t *testing.T) {
	stream := text(3<<20, 4)
	for _, data := range [][]byte{gzipped(t, stream, 6), stream} {
		x := build(t, data, index.BuildOptions{})
		lie := atomic.Int32{}
		src := &faulty{Source: source(data), spoil: func(n int32, p []byte) {
			if n <= lie.Load() && len(p) > 0 {
				p[len(p)/2] ^= 4
			}
		}}
		spans := &index.MemSpans{}
		r := index.NewReader(x, src, spans, index.ReaderOptions{ReadAhead: -1})
		p := make([]byte, 1000)
		lie.Store(2)
		if _, err := r.ReadAt(bg, p, 1<<20+5); !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("read of wrong bytes: %v", err)
		}
		if r.Stats().Failed != 1 {
			t.Errorf("%+v", r.Stats())
		}
		readRandomly(t, r, stream, 1, 10)
		must(t, r.Close())

		src.reads.Store(0)
		lie.Store(1) // a bit that flipped on the way: the second try is right
		r = index.NewReader(x, src, nil, index.ReaderOptions{ReadAhead: -1})
		readRandomly(t, r, stream, 2, 10)
		must(t, r.Close())

		cut := index.NewReader(x, source(data[:len(data)-100]), nil, index.ReaderOptions{})
		if _, err := cut.ReadAt(bg, p, int64(len(stream))-10); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("read of a shorter object: %v", err)
		}
		must(t, cut.Close())

		broken := errors.New("broken")
		r = index.NewReader(x, &faulty{Source: source(data), fail: func(int32, int64) error { return broken }}, nil, index.ReaderOptions{})
		if _, err := r.ReadAt(bg, p, 0); !errors.Is(err, broken) {
			t.Errorf("read of a broken source: %v", err)
		}
		must(t, r.Close())
	}
}

// TestAhead: a sequence of reads is read ahead, random reads are not.
func TestAhead(t *testing.T) {
	size := int64(8 << 20)
	if testing.Short() {
		size = 4 << 20
	}
	stream := text(int(size), 5)
	data := gzipped(t, stream, 6)
	x := build(t, data, index.BuildOptions{})
	src := &faulty{Source: source(data)}
	r := index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{})
	readThrough(t, r, stream)
	must(t, r.Close())
	if s := r.Stats(); s.Ahead == 0 || s.Decoded != int64(x.NumSpans()) || int(src.reads.Load()) > x.NumSpans() {
		t.Errorf("%+v, %d requests for %d spans", s, src.reads.Load(), x.NumSpans())
	}
	r = index.NewReader(x, src, &index.MemSpans{}, index.ReaderOptions{})
	for _, at := range []int64{size * 3 / 4, size / 8, size / 2} {
		_, err := r.ReadAt(bg, make([]byte, 4096), at)
		must(t, err)
	}
	must(t, r.Close())
	if s := r.Stats(); s.Ahead != 0 || s.Decoded != 3 {
		t.Errorf("random reads: %+v", s)
	}
}

// TestFSConformance is the standard library's test of file systems.
func TestFSConformance(t *testing.T) {
	data := archivetest.Gzip(archivetest.Tar(
		archivetest.Dir("a/"), archivetest.File("a/b/c.txt", "hello"), archivetest.File("a/empty", ""),
		archivetest.Symlink("a/link", "b/c.txt"), archivetest.Symlink("up", "a/b"), archivetest.HardLink("hard", "a/b/c.txt"),
		archivetest.File("larger", string(text(50_000, 6))),
	))
	x := build(t, data, index.BuildOptions{})
	r := index.NewReader(x, source(data), nil, index.ReaderOptions{})
	defer r.Close()
	fsys := index.FS(x, r)
	must(t, fstest.TestFS(fsys, "a/b/c.txt", "a/empty", "a/link", "up", "hard", "larger"))
	for _, path := range []string{"a/link", "up/c.txt", "hard"} {
		f, err := fsys.Open(path)
		must(t, err)
		b, err := io.ReadAll(f)
		if err != nil || string(b) != "hello" {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
}
