package index

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"objectmount/internal/inflate"
)

// A Decoder decodes all of a gzip that an index is of, from its first byte to
// its last, on all processors: where the next span begins is known, so nobody
// need wait for the end of the one before.
//
//	object ─▶ fetch ─▶ parts ═▶ workers ═▶ Next, in order ─▶ Free
//
// It believes nothing of the index but where to begin. Every part is checked as
// part of the whole: it must end exactly where the next one begins, with the
// checksum and length that gzip keeps there, and at the end of a member those
// are compared with its trailer. So bytes that Next gave are as good as those
// of one decoder, once io.EOF has come. (An index that somebody forged could
// still forge them, as CRC-32 is no signature: who may publish an index can
// publish objects, too.)
//
// Next, Free and Close are for one goroutine.
type Decoder struct {
	x     *Index
	r     io.Reader
	jobs  chan *Part
	order chan *Part // all parts, whether or not they are decoded
	ended sync.WaitGroup

	mu     sync.Mutex
	change sync.Cond // of what follows, guarded by mu
	held   int64     // bytes of parts that were not freed
	flying int       // parts that were not given by Next
	quit   bool
}

// Part is what Next gives: bytes of the stream that are the caller's until
// Free.
type Part struct {
	Data []byte

	d          *Decoder
	sp         span
	start, end inflate.Point
	last       bool   // the end of the object ends it
	in, buf    []byte // compressed, and what Data lies in
	err        error
	done       chan struct{} // closed when Data or err is there
}

const (
	// decoderMemory bounds the bytes of all parts, but for one that nothing
	// would go on without.
	decoderMemory = 32 << 20
	// partMost bounds the bytes of a part, compressed or not: twice those of
	// the longest that a first pass makes. Only objects with megabytes of
	// empty blocks have longer ones.
	partMost = 4 << 20
)

// ErrNotInOrder: the index is of no gzip, or not fit for a Decoder.
var ErrNotInOrder = errors.New("index: not to be decoded in order")

// NewDecoder decodes r, which gives the object from its first byte on, by
// workers goroutines. Its error wraps ErrNotInOrder; then nothing was read.
// The index must stay open until Close.
func NewDecoder(x *Index, r io.Reader, workers int) (*Decoder, error) {
	if err := x.inOrder(); err != nil {
		return nil, err
	}
	workers = min(max(workers, 1), x.spans)
	d := &Decoder{x: x, r: r, jobs: make(chan *Part, 2*workers), order: make(chan *Part, 4*workers)}
	d.change.L = &d.mu
	d.ended.Go(d.fetch)
	for range workers {
		d.ended.Go(d.work)
	}
	return d, nil
}

// inOrder says whether spans follow each other from the object's first byte
// to its last, and are all of a size that can be held.
func (x *Index) inOrder() error {
	if x.flags&flagGzip == 0 || x.spans == 0 {
		return ErrNotInOrder
	}
	first, err := x.spanRow(0)
	if err != nil || !first.member {
		return errors.Join(ErrNotInOrder, err)
	}
	var off, pos int64 // of the stream, of the object
	for i := range x.spans {
		sp, err := x.spanAt(i)
		if err != nil {
			return errors.Join(ErrNotInOrder, err)
		}
		// Two spans may meet within a byte.
		if sp.off != off || sp.lo != pos && sp.lo != pos-1 || sp.hi < pos || sp.hi <= sp.lo || sp.size > partMost || sp.hi-sp.lo > partMost {
			return fmt.Errorf("%w: span %d of [%d,%d) is %d bytes at %d", ErrNotInOrder, i, sp.lo, sp.hi, sp.size, sp.off)
		}
		off, pos = off+int64(sp.size), sp.hi
	}
	if off != x.stream || pos != x.object.Size {
		return fmt.Errorf("%w: its spans end early", ErrNotInOrder)
	}
	return nil
}

// Next gives the next bytes of the stream, and io.EOF when all of it was given
// and r had come to its end. Errors are those of r, or wrap ErrCorrupt or
// ErrDamaged: object and index do not fit together, and only another decoding
// can tell whose fault it is.
func (d *Decoder) Next() (*Part, error) {
	for p := range d.order {
		<-p.done
		d.mu.Lock()
		d.flying--
		d.change.Broadcast()
		d.mu.Unlock()
		if p.err != nil {
			return nil, p.err
		}
		if len(p.Data) > 0 {
			return p, nil
		}
		p.Free()
	}
	return nil, io.EOF
}

// Free takes the part's memory for others.
func (p *Part) Free() {
	putBuffer(p.buf)
	p.buf, p.Data = nil, nil
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.d.held -= p.bytes()
	p.d.change.Broadcast()
}

// Close ends the decoding and waits for it; a read of r that is under way must
// end by itself.
func (d *Decoder) Close() {
	d.mu.Lock()
	d.quit = true
	d.change.Broadcast()
	d.mu.Unlock()
	for range d.order { // until fetch has ended
	}
	d.ended.Wait()
}

// bytes is what a part takes.
func (p *Part) bytes() int64 { return p.sp.hi - p.sp.lo + int64(decodeHistory+p.sp.size+4096) }

// hold waits until a part may take its memory. Parts are begun in order, and
// one that all others have gone before always may: so none waits for one
// behind it. False means that Close was called.
func (d *Decoder) hold(p *Part) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.quit && d.flying > 0 && d.held+p.bytes() > decoderMemory {
		d.change.Wait()
	}
	d.held += p.bytes()
	d.flying++
	return !d.quit
}

// fetch reads the object and cuts it into parts.
func (d *Decoder) fetch() {
	defer close(d.order)
	defer close(d.jobs)
	var pos int64
	var seen byte // the last one read, with which the next part may begin, too
	next, err := d.x.point(0)
	for i := 0; i < d.x.spans && err == nil; i++ {
		p := &Part{d: d, start: next, last: i == d.x.spans-1, done: make(chan struct{})}
		if p.sp, err = d.x.spanAt(i); err != nil {
			break
		}
		if !p.last {
			if next, err = d.x.point(i + 1); err != nil {
				break
			}
			p.end = next
		}
		if !d.hold(p) {
			return
		}
		p.in = getBuffer(int(p.sp.hi - p.sp.lo))
		p.in[0] = seen
		if _, err = io.ReadFull(d.r, p.in[pos-p.sp.lo:]); err != nil {
			break
		}
		pos, seen = p.sp.hi, p.in[len(p.in)-1]
		d.order <- p
		d.jobs <- p
	}
	if err == nil {
		err = d.end()
	}
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = fmt.Errorf("%w: it ends after less than %d bytes: %w", ErrCorrupt, d.x.object.Size, io.ErrUnexpectedEOF)
	}
	if err != nil {
		p := &Part{err: err, done: make(chan struct{})}
		close(p.done)
		d.order <- p
	}
}

// end reads to the end of r, whose own checks may come with it.
func (d *Decoder) end() error {
	var one [1]byte
	switch _, err := io.ReadFull(d.r, one[:]); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("%w: it has more than %d bytes", ErrCorrupt, d.x.object.Size)
	default:
		return err
	}
}

func (d *Decoder) work() {
	for p := range d.jobs {
		d.mu.Lock()
		quit := d.quit
		d.mu.Unlock()
		if !quit {
			p.err = p.decode()
		}
		putBuffer(p.in)
		p.in = nil
		close(p.done)
	}
}

// decode makes Data.
func (p *Part) decode() (err error) {
	opt := inflate.Options{}
	if !p.last {
		opt.To = &p.end
	}
	z := inflate.Resume(p.start, inflate.FromBytes(p.in), opt)
	defer z.Close()
	p.buf = getBuffer(int(decodeHistory + p.sp.size + 4096))
	if p.Data, err = z.Fill(p.buf); err == nil {
		_, err = z.Fill(p.buf) // only the end may follow
	}
	switch {
	case err != nil && err != io.EOF:
		return gzipError(err)
	case err == nil, len(p.Data) != p.sp.size:
		return fmt.Errorf("%w: bytes [%d,%d) of its stream are not as long as the index says", ErrCorrupt, p.sp.off, p.sp.off+int64(p.sp.size))
	}
	return nil
}
