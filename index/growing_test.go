package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/index"
	"objectmount/internal/archivetest"
	"objectmount/internal/inflate"
)

// slow is a Source whose stream gives only as many bytes as it was allowed.
type slow struct {
	index.Source
	mu      sync.Mutex
	allowed int64
	more    chan struct{}
	fail    error // what the stream ends with, once all allowed was given
}

func newSlow(data []byte) *slow { return &slow{Source: source(data), more: make(chan struct{})} }

func (s *slow) allow(n int64, fail error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allowed, s.fail = n, fail
	close(s.more)
	s.more = make(chan struct{})
}

func (s *slow) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(&slowStream{ctx, s, off}), nil
}

type slowStream struct {
	ctx context.Context
	s   *slow
	off int64
}

func (r *slowStream) Read(p []byte) (int, error) {
	for {
		r.s.mu.Lock()
		left, more, fail := r.s.allowed-r.off, r.s.more, r.s.fail
		r.s.mu.Unlock()
		if left > 0 {
			n, err := r.s.Source.ReadAtContext(r.ctx, p[:min(int64(len(p)), left)], r.off)
			r.off += int64(n)
			return n, err
		}
		if fail != nil {
			return 0, fail
		}
		if r.off == r.s.Size() {
			return 0, io.EOF
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		}
	}
}

// TestGrowing looks at a tree while its first pass is held up: what has been
// seen is there, in its final place; what has not is waited for.
func TestGrowing(t *testing.T) {
	early, large := text(200_000, 1), noise(3<<20, 2)
	stream := archivetest.Tar(
		archivetest.File("d/early", string(early)),
		archivetest.Symlink("d/link", "early"),
		archivetest.File("large", string(large)),
		archivetest.File("d/late", "late"),
		archivetest.File("d/early", "again"),
	)
	for _, gzip := range []bool{false, true} {
		for _, spans := range []*index.MemSpans{nil, {}} {
			t.Run(fmt.Sprintf("gzip=%v,spans=%v", gzip, spans != nil), func(t *testing.T) {
				data := stream
				if gzip {
					data = gzipped(t, stream, 6)
				}
				testGrowing(t, data, stream, early, large, spans)
			})
		}
	}
}

func testGrowing(t *testing.T, data, stream, early, large []byte, mem *index.MemSpans) {
	var spans index.Spans
	if mem != nil {
		spans = mem
	}
	src := newSlow(data)
	g := index.NewGrowing(src, index.BuildOptions{})
	r := index.NewReader(g, src, spans, index.ReaderOptions{})
	ran := make(chan error, 1)
	go func() { ran <- g.Run(bg, spans) }()

	type found struct {
		row uint32
		err error
	}
	look := func(ctx context.Context, dir uint32, name string) chan found {
		c := make(chan found, 1)
		go func() {
			row, err := g.Lookup(ctx, dir, name)
			c <- found{row, err}
		}()
		return c
	}
	d := look(bg, 0, "d")
	impatient, leave := context.WithCancel(bg)
	gone := look(impatient, 0, "d")
	leave()
	if f := <-gone; !errors.Is(f.err, context.Canceled) {
		t.Errorf("a killed lookup: %v", f.err)
	}
	if g.Complete() || g.NumRows() != 1 {
		t.Errorf("complete %v with %d rows before the first byte", g.Complete(), g.NumRows())
	}
	// To the middle of the large file.
	src.allow(int64(len(data))*2/3, nil)
	must(t, g.Ready(bg))
	dir := <-d
	must(t, dir.err)
	e := <-look(bg, dir.row, "early")
	must(t, e.err)
	got := make([]byte, len(early))
	if n, err := r.ReadFileAt(bg, e.row, got, 0); n != len(got) || err != nil && err != io.EOF || !bytes.Equal(got, early) {
		t.Errorf("early: %d, %v", n, err)
	}
	link := <-look(bg, dir.row, "link")
	must(t, link.err)
	if target, err := g.ReadLink(link.row); target != "early" || err != nil {
		t.Errorf("link: %q, %v", target, err)
	}
	if a, err := g.Attr(link.row); err != nil || a.Type != index.TypeSymlink || a.Size != 5 || a.Nlink != 1 {
		t.Errorf("link: %+v, %v", a, err)
	}
	if _, err := g.Lookup(bg, e.row, "x"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("lookup in a file: %v", err)
	}
	if _, err := g.Attr(77); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("row 77: %v", err)
	}
	big := <-look(bg, 0, "large")
	must(t, big.err)
	wait(t, "a span is whole", func() bool { return g.NumSpans() >= 1 && g.StreamSize() > 3<<19 })
	half := make([]byte, 1<<20)
	if _, err := r.ReadFileAt(bg, big.row, half, 100); err != nil || !bytes.Equal(half, large[100:100+len(half)]) {
		t.Errorf("first half of the large file: %v", err)
	}
	// What is not there yet is waited for, and can be given up.
	impatient, leave = context.WithCancel(bg)
	late, missing, listed := look(bg, dir.row, "late"), look(bg, dir.row, "missing"), make(chan int, 1)
	tooLate := make(chan error, 1)
	go func() {
		_, err := r.ReadFileAt(impatient, big.row, make([]byte, 10), int64(len(large))-10)
		tooLate <- err
	}()
	go func() {
		n := 0
		if err := g.Children(bg, dir.row, 0, func(int, index.Child) bool { n++; return true }); err != nil {
			t.Error(err)
		}
		listed <- n
	}()
	wait(t, "a read waits", func() bool { return r.Stats().Waiting == 1 })
	leave()
	if err := <-tooLate; !errors.Is(err, context.Canceled) {
		t.Errorf("a killed read: %v", err)
	}
	end := make([]byte, 10)
	readEnd := make(chan error, 1)
	go func() {
		_, err := r.ReadFileAt(bg, big.row, end, int64(len(large))-10)
		readEnd <- err
	}()
	src.allow(int64(len(data)), nil)
	must(t, <-readEnd)
	if !bytes.Equal(end, large[len(large)-10:]) {
		t.Error("wrong end of the large file")
	}
	f := <-late
	must(t, f.err)
	if f := <-missing; !errors.Is(f.err, fs.ErrNotExist) {
		t.Errorf("missing: %v", f.err)
	}
	if n := <-listed; n != 3 {
		t.Errorf("listed %d", n)
	}
	must(t, <-ran)

	// The rows are those of the finished index; what was replaced is still
	// readable by its row.
	want := build(t, data, index.BuildOptions{})
	if !g.Complete() || !bytes.Equal(g.Index().Bytes(), want.Bytes()) {
		t.Error("another index")
	}
	for name, row := range map[string]uint32{"late": f.row, "link": link.row} {
		if again, err := want.Lookup(bg, dir.row, name); err != nil || again != row {
			t.Errorf("%s: row %d, finally %d (%v)", name, row, again, err)
		}
	}
	if again, _ := g.Lookup(bg, dir.row, "early"); again == e.row {
		t.Error("a replaced file kept its row")
	}
	if a, err := g.Attr(e.row); a.Nlink != 0 || err != nil {
		t.Errorf("replaced file: %+v, %v", a, err)
	}
	if _, err := r.ReadFileAt(bg, e.row, got, 0); err != nil && err != io.EOF || !bytes.Equal(got, early) {
		t.Errorf("replaced file: %v", err)
	}
	checkSpans(t, g, stream)
	readRandomly(t, r, stream, 3, 10)
	must(t, r.Close())
	must(t, g.Close())
}

// TestGrowingFails: when the pass fails, all who wait are told why, and so is
// everybody later.
func TestGrowingFails(t *testing.T) {
	stream := archivetest.Tar(archivetest.File("a", string(text(1<<20, 1))), archivetest.File("b", string(noise(1<<20, 2))))
	data := gzipped(t, stream, 6)
	broken := errors.New("the line is dead")
	flipped := bytes.Clone(data)
	flipped[len(flipped)-5] ^= 1
	evil := gzipped(t, archivetest.Tar(archivetest.File("a", "x"), archivetest.File("../b", "x")), 6)
	for name, c := range map[string]struct {
		data []byte
		fail error
		want error
	}{
		"source": {data, broken, broken},
		"gzip":   {flipped, nil, index.ErrCorrupt},
		"tar":    {evil, nil, index.ErrTarUnsafe},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSlow(c.data)
			g := index.NewGrowing(src, index.BuildOptions{Path: t.TempDir() + "/index"})
			r := index.NewReader(g, src, nil, index.ReaderOptions{})
			ran, lookup, read := make(chan error, 1), make(chan error, 1), make(chan error, 1)
			go func() { ran <- g.Run(bg, nil) }()
			go func() { _, err := g.Lookup(bg, 0, "missing"); lookup <- err }()
			go func() { _, err := r.ReadAt(bg, make([]byte, 1), 1<<40); read <- err }()
			wait(t, "a read waits", func() bool { return r.Stats().Waiting == 1 })
			allowed := int64(len(c.data))
			if c.fail != nil {
				allowed /= 2
			}
			src.allow(allowed, c.fail)
			for what, ch := range map[string]chan error{"Run": ran, "Lookup": lookup, "ReadAt": read} {
				if err := <-ch; !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", what, err, c.want)
				}
			}
			_, err := g.Attr(0)
			_, err2 := r.ReadAt(bg, make([]byte, 1), 0)
			err3 := g.Children(bg, 0, 0, nil)
			for _, err := range []error{err, err2, err3, g.Err(), g.Ready(bg)} {
				if name == "tar" && err == nil {
					continue // Ready was true
				}
				if !errors.Is(err, c.want) && err != nil {
					t.Errorf("later: %v", err)
				}
			}
			if err == nil || err2 == nil || err3 == nil || g.Complete() || g.Index() != nil {
				t.Error("it goes on after its failure")
			}
			must(t, r.Close())
		})
	}
}

// TestDeterministic: an index does not depend on who made it, of what pieces,
// in how many parts.
func TestDeterministic(t *testing.T) {
	for _, o := range objects(t) {
		t.Run(o.name, func(t *testing.T) {
			id := index.ObjectID{ID: "obj_1", ETag: `"e"`, SHA256: "ab"}
			want := build(t, o.data, index.BuildOptions{Object: id}).Bytes()
			opt := index.BuildOptions{Object: id, Path: t.TempDir() + "/index"}
			x, err := index.Build(bg, onlyRanges{source(o.data)}, opt)
			must(t, err)
			defer x.Close()
			if !bytes.Equal(x.Bytes(), want) {
				t.Error("from ranges: another index")
			}
			for parts := 1; parts <= 3; parts++ {
				if got := tell(t, o, id, parts); !bytes.Equal(got, want) {
					t.Errorf("told in %d parts: another index", parts)
				}
			}
		})
	}
}

// onlyRanges is a Source that cannot stream.
type onlyRanges struct{ index.Source }

// tell makes an index by a Builder, from a decoder that is stopped and resumed.
func tell(t *testing.T, o object, id index.ObjectID, parts int) []byte {
	b := index.NewBuilder(index.BuildOptions{Object: id})
	gzip := len(o.data) > 2 && o.data[0] == 0x1f
	isTar := index.IsTarHeader(o.stream)
	b.Format(gzip, isTar)
	if isTar { // all entries first, all bytes later
		tr := index.NewTarReader(index.StreamReader(bytes.NewReader(o.stream), 1000), index.TarLimits{})
		for {
			e, err := tr.Next()
			if err == io.EOF {
				break
			}
			must(t, err)
			must(t, b.Entry(e))
		}
	}
	if !gzip {
		for rest := o.stream; len(rest) > 0; {
			n := min(len(rest), 77_777)
			b.Bytes(rest[:n])
			rest = rest[n:]
		}
	} else {
		tellGzip(t, b, o, parts)
	}
	must(t, b.Finish(int64(len(o.data))))
	x, err := b.Save("")
	must(t, err)
	return x.Bytes()
}

// tellGzip stops decoding parts-1 times, and resumes at the last point, with
// what the Builder has been told already left out.
func tellGzip(t *testing.T, b *index.Builder, o object, parts int) {
	var told, cut int64 = 0, -1 // stream bytes; last cut
	var last inflate.Point
	pointed := int64(-1)
	for part := 1; part <= parts; part++ {
		opt := inflate.Options{
			OnCut: func(in, out int64) {
				if out > cut {
					cut = out
					b.Cut(in, out)
				}
			},
			OnPoint: func(p inflate.Point) error {
				if p.Out <= pointed {
					return nil
				}
				pointed = p.Out
				last = p
				last.Window, last.Tables = bytes.Clone(p.Window), bytes.Clone(p.Tables)
				return b.Point(p)
			},
		}
		z := inflate.NewReader(inflate.FromBytes(o.data), opt)
		at := int64(0)
		if part > 1 && pointed >= 0 {
			z = inflate.Resume(last, inflate.FromBytes(o.data[last.In/8:]), opt)
			at = last.Out
		}
		buf := make([]byte, inflate.MinBuffer+50_000)
		for part == parts || told < int64(len(o.stream)*part/parts) {
			p, err := z.Fill(buf)
			if err == io.EOF {
				break
			}
			must(t, err)
			at += int64(len(p))
			if at > told {
				b.Bytes(p[max(0, int64(len(p))-(at-told)):])
				told = at
			}
		}
		z.Close()
	}
}

// TestGrowingConcurrently reads a growing tree by many while it grows.
func TestGrowingConcurrently(t *testing.T) {
	var parts [][]byte
	want := 300
	if testing.Short() {
		want = 100
	}
	for i := range want {
		parts = append(parts, archivetest.File(fmt.Sprintf("d%d/f%d", i%7, i), string(text(20_000, uint64(i)))))
	}
	stream := archivetest.Tar(parts...)
	data := gzipped(t, stream, 6)
	src := newSlow(data)
	spans := &forgetful{rnd: rnd(9)}
	g := index.NewGrowing(src, index.BuildOptions{Path: t.TempDir() + "/index"})
	r := index.NewReader(g, src, spans, index.ReaderOptions{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.Run(bg, spans); err != nil {
			t.Error(err)
		}
	})
	var files atomic.Int32
	for k := range 4 {
		wg.Go(func() {
			for i := k; i < want; i += 4 {
				dir, err := g.Lookup(bg, 0, fmt.Sprintf("d%d", i%7))
				if err != nil {
					t.Error(err)
					return
				}
				row, err := g.Lookup(bg, dir, fmt.Sprintf("f%d", i))
				if err != nil {
					t.Error(err)
					return
				}
				want := text(20_000, uint64(i))
				got := make([]byte, len(want))
				if _, err := r.ReadFileAt(bg, row, got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
					t.Errorf("file %d: %v", i, err)
				}
				files.Add(1)
			}
		})
	}
	for n := int64(0); n < int64(len(data)); n += int64(len(data)) / 50 {
		src.allow(n, nil)
		pause()
	}
	src.allow(int64(len(data)), nil)
	wg.Wait()
	if files.Load() != int32(want) {
		t.Errorf("%d files read", files.Load())
	}
	must(t, r.Close())
	if diff := cmp.Diff(g.Index().Bytes(), build(t, data, index.BuildOptions{}).Bytes()); diff != "" {
		t.Error("another index")
	}
	must(t, g.Close())
}
