package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Growing is the index of an object while its first pass runs: a Tree, a
// Layout and, through a Reader, the bytes seen so far. When the pass has ended
// well it is the finished index, and needs no more memory than that. When it
// has failed, every method gives the reason: what was seen of a stream whose
// checksum never came is not to be believed.
//
//	NewGrowing ──Run──▶ reading ──▶ Ready: the root's type is known
//	                       │ entries appear, bytes pass
//	                       ├──▶ Complete: Index() is there
//	                       └──▶ failed
type Growing struct {
	src Source
	opt BuildOptions
	b   *Builder // its mu guards the maps below, too

	waiting map[nameKey]*waiter // lookups of names that have not been seen
	whole   int                 // spans whose bytes have all been seen
	skims   bool                // all bytes can be read, whatever has been seen

	in    atomic.Int64
	ready chan struct{} // closed when the format is known
	over  chan struct{} // closed when Run is about to return
	err   error         // set before over is closed
	index atomic.Pointer[Index]

	quiet bool // nobody reads before the end

	// The bytes of the span that is not whole yet.
	tailMu  sync.RWMutex // guards the rest
	tailOff int64
	tailBuf []byte
	seen    int64         // end of the tail
	more    chan struct{} // closed, and made anew, when seen grows
}

type nameKey struct {
	dir  uint32
	name string
}

// waiter is what lookups of one name wait for.
type waiter struct {
	found chan struct{}
	n     int
}

// NewGrowing prepares a first pass over src, of which nothing is read before
// Run. It can at once be given to a cache as Layout, and to a Reader.
func NewGrowing(src Source, opt BuildOptions) *Growing {
	g := &Growing{
		src: src, opt: opt, b: NewBuilder(opt), waiting: map[nameKey]*waiter{},
		ready: make(chan struct{}), over: make(chan struct{}), more: make(chan struct{}),
	}
	g.b.c.tree.entered = g.entered
	return g
}

// Build makes the index of src in one pass. Close it in the end.
func Build(ctx context.Context, src Source, opt BuildOptions) (*Index, error) {
	g := NewGrowing(src, opt)
	g.quiet = true
	if err := g.Run(ctx, nil); err != nil {
		return nil, err
	}
	return g.Index(), nil
}

// Run is the first pass. It puts each span into spans (nil: nowhere) as it
// comes, and returns when the index is complete and saved, or with the error
// that ended it: one that wraps ErrCorrupt, is a *TarError, or came from the
// Source. It is called once. Whoever waits in a method of g is told, too.
func (g *Growing) Run(ctx context.Context, spans Spans) error {
	err := g.run(ctx, spans)
	var x *Index
	if err == nil {
		if late, ok := g.src.(Identifier); ok {
			g.b.c.object = late.Object()
		}
		err = g.b.Finish(g.src.Size())
	}
	if err == nil {
		x, err = g.b.Save(g.opt.Path)
	}
	if err != nil {
		err = fmt.Errorf("index: %w", err)
	}
	g.err = err
	if x != nil {
		g.index.Store(x)
	}
	close(g.over)
	g.b.mu.Lock()
	rows := g.b.c.tree.rows.n
	g.b.c.tree, g.b.c.spans, g.waiting = nil, nil, nil
	g.b.mu.Unlock()
	g.tailMu.Lock()
	g.tailBuf = nil
	g.tailMu.Unlock()
	giveBack(rows)
	return err
}

func (g *Growing) run(ctx context.Context, spans Spans) error {
	if g.opt.Skim {
		if skimmed, err := g.skim(ctx); skimmed || err != nil {
			return err
		}
	}
	r, err := streamOf(ctx, g.src)
	if err != nil {
		return fmt.Errorf("read object: %w", err)
	}
	defer r.Close()
	first := make([]byte, len(gzipMagic))
	n, err := io.ReadFull(r, first)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("read object: %w", err)
	}
	gzip := isGzip(first[:n])
	in := &intake{g: g, d: decode(ctx, io.MultiReader(bytes.NewReader(first[:n]), r), gzip), spans: spans}
	defer in.d.stop()
	head, err := in.peek()
	if err != nil {
		return err
	}
	tar, err := g.format(head, gzip)
	if err != nil {
		return err
	}
	if !tar {
		if err := g.content(in); err != nil {
			return err
		}
	} else if err := g.entries(in); err != nil {
		return err
	}
	in.end()
	return nil
}

// format settles what the object is.
func (g *Growing) format(head []byte, gzip bool) (tar bool, err error) {
	if tar, err = g.opt.isTar(head, gzip); err == nil {
		g.b.Format(gzip, tar)
		close(g.ready)
	}
	return tar, err
}

// skim reads the headers alone, unless the object is a gzip.
func (g *Growing) skim(ctx context.Context) (done bool, err error) {
	first := make([]byte, min(skimFirst, g.src.Size()))
	if n, err := g.src.ReadAtContext(ctx, first, 0); n < len(first) {
		return false, fmt.Errorf("read object: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	if isGzip(first) {
		return false, nil
	}
	g.skims = true
	tar, err := g.format(first, false)
	switch {
	case err != nil:
		return true, err
	case !tar:
		return true, g.fits(g.src.Size())
	}
	return true, g.entries(newSkimmer(ctx, g.src, first))
}

// content reads what is one file.
func (g *Growing) content(s Stream) error {
	for size := int64(0); ; {
		p, err := s.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			size += int64(len(p))
			err = g.fits(size)
		}
		if err != nil {
			return err
		}
	}
}

// fits holds the size of what is one file against the limits.
func (g *Growing) fits(size int64) error {
	lim := g.b.c.tree.lim
	if size > lim.FileBytes || lim.Bytes > 0 && size > lim.Bytes {
		return &TarError{Offset: size, Rule: "the file is too large", Err: ErrTarLimit}
	}
	return nil
}

// entries reads the entries of a tar, and its end.
func (g *Growing) entries(s Stream) error {
	t := NewTarReader(s, g.b.c.tree.lim.tar())
	some := false
	for {
		e, err := t.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = g.b.Entry(e)
		}
		if err != nil {
			return err
		}
		some = true
	}
	if _, ok := s.(Skipper); ok && some {
		return nil // what follows the end marker is of no interest
	}
	zero, err := t.Drain()
	if err == nil && !some && !zero {
		err = &TarError{Rule: "no entry, but bytes after the end marker", Err: ErrTarCorrupt}
	}
	return err
}

// intake is the Stream of a first pass: what the decoder has made, summed, and
// put where readers find it.
type intake struct {
	g     *Growing
	d     *decoder
	spans Spans
	cur   []byte // the buffer of the slice given last
	err   error  // the end, or what went wrong: for good
	ahead []byte // given back by peek
}

// Next implements Stream.
func (s *intake) Next() ([]byte, error) {
	if p := s.ahead; p != nil {
		s.ahead = nil
		s.take(p)
		return p, nil
	}
	if s.err == nil {
		var p []byte
		if p, s.err = s.next(); s.err == nil {
			s.take(p)
			return p, nil
		}
	}
	return nil, s.err
}

// next gets the next piece, and tells the builder of the points that came
// with it.
func (s *intake) next() ([]byte, error) {
	if s.cur != nil {
		s.d.free <- s.cur
		s.cur = nil
	}
	c, ok := <-s.d.full
	if !ok {
		return nil, context.Canceled
	}
	s.g.in.Store(s.d.read.Load())
	for _, cut := range c.cuts {
		s.g.b.Cut(cut[0], cut[1])
	}
	for _, p := range c.points {
		if err := s.g.b.Point(p); err != nil {
			return nil, err
		}
	}
	if c.err != nil && c.err != io.EOF && !errors.Is(c.err, ErrCorrupt) {
		return nil, fmt.Errorf("read object: %w", c.err)
	}
	s.cur = c.buf
	return c.data, c.err
}

// peek gives the first piece without taking it; nil at the end.
func (s *intake) peek() ([]byte, error) {
	if s.ahead, s.err = s.next(); s.err == io.EOF {
		return nil, nil
	}
	return s.ahead, s.err
}

// take tells of bytes that have been seen.
func (s *intake) take(p []byte) {
	g := s.g
	for len(p) > 0 {
		n, whole := g.b.bytes(p)
		if whole {
			s.spanEnd()
		}
		if n > 0 && !g.quiet {
			g.tailMu.Lock()
			g.tailBuf = append(g.tailBuf, p[:n]...)
			g.seen += int64(n)
			close(g.more)
			g.more = make(chan struct{})
			g.tailMu.Unlock()
		}
		p = p[n:]
	}
}

// spanEnd hands over the span whose last byte has come.
func (s *intake) spanEnd() {
	g := s.g
	g.b.mu.Lock()
	i := g.whole
	g.whole++
	g.b.mu.Unlock()
	if g.quiet {
		return
	}
	if s.spans != nil && len(g.tailBuf) > 0 { // only this goroutine changes it
		s.spans.PutSpan(i, g.tailBuf)
	}
	g.tailMu.Lock()
	g.tailOff, g.tailBuf = g.seen, g.tailBuf[:0]
	g.tailMu.Unlock()
}

// end hands over the last span.
func (s *intake) end() {
	s.g.b.mu.Lock()
	s.g.b.c.spans.end()
	some := s.g.b.c.spans.begun > s.g.whole
	s.g.b.mu.Unlock()
	if some {
		s.spanEnd()
	}
}

// Ready waits until the type of the root is known, or the pass has failed.
func (g *Growing) Ready(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case <-g.over:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Progress is how far the pass has got: bytes of the object read, and of the
// stream seen.
func (g *Growing) Progress() (in, out int64) {
	if g.index.Load() != nil {
		return g.src.Size(), g.StreamSize()
	}
	return g.in.Load(), g.StreamSize()
}

// Err is why the pass failed; nil before and when it did not.
func (g *Growing) Err() error {
	select {
	case <-g.over:
		return g.err
	default:
		return nil
	}
}

// Index is the finished index, nil before. It is closed with g.
func (g *Growing) Index() *Index { return g.index.Load() }

// Close frees the finished index. Run must have returned.
func (g *Growing) Close() error {
	if x := g.index.Load(); x != nil {
		return x.Close()
	}
	return nil
}
