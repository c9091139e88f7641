package extract

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"objectmount/internal/inflate"
)

// feed hands over the decoded bytes of an object. A goroutine of its own
// decodes them into a ring of buffers while others parse and write what is
// already there:
//
//	        free buffers
//	   ┌────────────────────────┐
//	   ▼                        │ released by the last who holds it
//	decoder ──── full ────▶ parser ───▶ writers
//	   ▲                        │
//	   └────────────────────────┘ helps while it has nothing to parse
//
// Decoding waits when the ring is full, so memory is bounded however slow the
// disk is. But mostly it is the parser that waits, for a gzip; then it decodes
// a little ahead of the decoder (inflate.Ahead), and that comes in buffers that
// are not of the ring. On one processor there is nothing to overlap with: the
// parser then decodes by itself.
//
// All methods are the parser's; only buffer.release may come from elsewhere.
type feed struct {
	decoder decoder
	cur     *buffer // what the slice of the last Next lies in
	ahead   []byte  // given back by peek
	n       int64   // bytes handed over by Next

	full  chan *buffer  // nil without a goroutine
	free  chan *buffer  // the rest of the ring
	spare *buffer       // of the ring, for the next part; the decoding goroutine's
	quit  chan struct{} // closed by close
	err   error         // after the last part

	closed bool
}

// decoder gives the bytes of an object, part by part. Its goroutine calls fill,
// the parser all else; see inflate.Ahead for what a part is.
type decoder interface {
	fill(buf []byte) part
	help() bool // does a little of what lies ahead; false: there is nothing
	close()
}

type part interface {
	Last() bool
	Elsewhere() bool
	Finish() ([]byte, error)
	Release()
}

// buffer is one of the ring, or stands for a part that is elsewhere. It goes
// back to where it came from when nobody holds it any more.
type buffer struct {
	part  part
	mem   []byte // of the ring
	holds atomic.Int32
	free  chan *buffer
}

// The ring's size was measured: more or larger buffers only cost memory.
const (
	ringBuffers = 8
	ringBuffer  = 512 << 10
)

func (b *buffer) hold() { b.holds.Add(1) }

func (b *buffer) release() {
	if b.holds.Add(-1) > 0 {
		return
	}
	if b.mem == nil {
		b.part.Release()
	} else {
		b.free <- b // has room for all
	}
}

// newFeed starts decoding. It must be closed.
func newFeed(d decoder) *feed {
	f := &feed{decoder: d, free: make(chan *buffer, ringBuffers), quit: make(chan struct{})}
	for range ringBuffers {
		f.free <- &buffer{free: f.free}
	}
	if runtime.GOMAXPROCS(0) > 1 {
		f.full = make(chan *buffer, 2*ringBuffers)
		go f.run()
	}
	return f
}

// run is the decoding goroutine.
func (f *feed) run() {
	defer close(f.full)
	for last := false; !last; {
		var b *buffer
		if b, last = f.fill(); b == nil {
			return
		}
		select {
		case f.full <- b:
		case <-f.quit:
			return
		}
	}
}

// fill decodes a part, and says whether it was the last; nil means that nobody
// wants it any more. The memory of a buffer is made when it is first needed:
// most objects are smaller than the ring.
func (f *feed) fill() (b *buffer, last bool) {
	select {
	case <-f.quit:
		return nil, true
	default:
	}
	if f.spare == nil {
		select {
		case f.spare = <-f.free:
		case <-f.quit:
			return nil, true
		}
	}
	b = f.spare
	if b.mem == nil {
		b.mem = make([]byte, ringBuffer)
	}
	p := f.decoder.fill(b.mem)
	if p.Elsewhere() {
		b = &buffer{}
	} else {
		f.spare = nil
	}
	b.part = p
	b.holds.Store(1)
	return b, p.Last()
}

// Next implements index.Stream: the slice is valid until the next call, or
// longer for those who hold the buffer (see current).
func (f *feed) Next() ([]byte, error) {
	if f.ahead != nil {
		p := f.ahead
		f.ahead = nil
		f.n += int64(len(p))
		return p, nil
	}
	if f.cur != nil {
		f.cur.release()
		f.cur = nil
	}
	for f.err == nil {
		b := f.next()
		p, err := b.part.Finish()
		f.err = gzipError(err) // after what there is
		if len(p) > 0 {
			f.cur = b
			f.n += int64(len(p))
			return p, nil
		}
		b.release()
	}
	return nil, f.err
}

// next gives the next part. While it has to wait for it, it helps the decoder.
// The pieces of that are short; between them others may run, because the writers
// are to begin at once with what they were given last.
func (f *feed) next() *buffer {
	if f.full == nil {
		b, _ := f.fill()
		return b
	}
	for {
		select {
		case b := <-f.full:
			return b
		default:
		}
		runtime.Gosched()
		if !f.decoder.help() {
			return <-f.full
		}
	}
}

// peek gives the first bytes without taking them: up to ringBuffer of them,
// fewer only at the end. It comes before the first Next.
func (f *feed) peek() ([]byte, error) {
	p, err := f.Next()
	if err == io.EOF {
		return nil, nil
	}
	f.n -= int64(len(p))
	f.ahead = p
	return p, err
}

// current is the buffer in which the slice of the last Next lies.
func (f *feed) current() *buffer { return f.cur }

// explain returns the reason behind err, which is what the layers above made of
// the feed's end: the error of the object's reader, if that was what ended it.
func (f *feed) explain(err error) error {
	var bad *inflate.Error
	if err == nil || f.err == nil || f.err == io.EOF || errors.As(f.err, &bad) || errors.Is(f.err, ErrIndex) {
		return err
	}
	return fmt.Errorf("read object: %w", f.err)
}

// close ends the decoding and waits for it, so that nobody reads the object
// any more. A read that is under way is waited for.
func (f *feed) close() {
	if f.closed {
		return
	}
	f.closed = true
	close(f.quit)
	if f.full != nil {
		for range f.full { // until run has ended; buffers are garbage now
		}
	}
	f.decoder.close()
}

// gunzip decodes a gzip.
type gunzip struct{ *inflate.Ahead }

func (g gunzip) fill(buf []byte) part { return g.Fill(buf) }
func (g gunzip) help() bool           { return g.Help() }
func (g gunzip) close()               { g.Close() }

// copier hands an object over that is not compressed.
type copier struct {
	src  *source
	rest []byte // lent by src
}

// copied is a part that lies in the buffer, ready.
type copied struct {
	data []byte
	err  error
}

func (p copied) Last() bool              { return p.err != nil }
func (p copied) Elsewhere() bool         { return false }
func (p copied) Finish() ([]byte, error) { return p.data, p.err }
func (p copied) Release()                {}

func (c *copier) help() bool { return false }
func (c *copier) close()     {}

func (c *copier) fill(buf []byte) part {
	n := 0
	for n < len(buf) {
		if len(c.rest) == 0 {
			p, err := c.src.NextInto(buf[n:])
			if err != nil && len(p) == 0 {
				return copied{buf[:n], err}
			}
			c.rest = p
		}
		k := len(c.rest)
		if &buf[n] != &c.rest[0] { // not read to where it belongs
			k = copy(buf[n:], c.rest)
		}
		n, c.rest = n+k, c.rest[k:]
	}
	return copied{buf, nil}
}
