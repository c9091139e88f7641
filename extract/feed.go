package extract

import (
	"io"
	"runtime"
	"sync/atomic"
)

// feed hands over the decoded bytes of an object. A goroutine of its own
// decodes them into a ring of buffers while others parse and write what is
// already there:
//
//	        free buffers
//	   ┌────────────────────────┐
//	   ▼                        │ released by the last who holds it
//	decoder ──── full ────▶ parser ───▶ writers
//
// Decoding waits when the ring is full, so memory is bounded however slow the
// disk is. On one processor there is nothing to overlap with: the parser then
// decodes by itself.
//
// All methods are the parser's; only buffer.release may come from elsewhere.
type feed struct {
	decode func(buf []byte) ([]byte, error) // fills buf, says which part it filled; io.EOF after the last
	cur    *buffer                          // what the slice of the last Next lies in
	ahead  []byte                           // given back by peek
	n      int64                            // bytes handed over by Next

	full chan filled   // nil without a goroutine
	free chan *buffer  // the rest of the ring
	quit chan struct{} // closed by close
	err  error         // after the last filled

	closed bool
}

// filled is a buffer on its way to the parser. An error comes alone.
type filled struct {
	buf  *buffer
	data []byte
	err  error
}

// buffer is one of the ring. It goes back to the free ones when nobody holds
// it any more.
type buffer struct {
	mem   []byte
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
	if b.holds.Add(-1) == 0 {
		b.free <- b // has room for all
	}
}

// newFeed starts decoding. It must be closed.
func newFeed(decode func(buf []byte) ([]byte, error)) *feed {
	f := &feed{decode: decode, free: make(chan *buffer, ringBuffers), quit: make(chan struct{})}
	for range ringBuffers {
		f.free <- &buffer{free: f.free}
	}
	if runtime.GOMAXPROCS(0) > 1 {
		f.full = make(chan filled, ringBuffers)
		go f.run()
	}
	return f
}

// run is the decoding goroutine.
func (f *feed) run() {
	defer close(f.full)
	for {
		var b *buffer
		select {
		case b = <-f.free:
		case <-f.quit:
			return
		}
		c := f.fill(b)
		f.full <- c // has room for the whole ring
		if c.err != nil {
			return
		}
	}
}

// fill decodes into b, whose memory is made when it is first needed: most
// objects are smaller than the ring.
func (f *feed) fill(b *buffer) filled {
	if b.mem == nil {
		b.mem = make([]byte, ringBuffer)
	}
	data, err := f.decode(b.mem)
	if len(data) == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return filled{err: err}
	}
	b.holds.Store(1)
	return filled{buf: b, data: data}
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
	if f.err != nil {
		return nil, f.err
	}
	var c filled
	if f.full == nil {
		c = f.fill(<-f.free)
	} else {
		c = <-f.full
	}
	if c.err != nil {
		f.err = c.err
		return nil, f.err
	}
	f.cur = c.buf
	f.n += int64(len(c.data))
	return c.data, nil
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
}

// rawDecoder reads an object that is not compressed.
func rawDecoder(src *source) func([]byte) ([]byte, error) {
	var rest []byte
	return func(buf []byte) ([]byte, error) {
		n := 0
		for n < len(buf) {
			if len(rest) == 0 {
				p, err := src.nextInto(buf[n:])
				if err != nil && len(p) == 0 {
					if n > 0 && err == io.EOF {
						break
					}
					return nil, err
				}
				rest = p
			}
			k := len(rest)
			if &buf[n] != &rest[0] { // not read to where it belongs
				k = copy(buf[n:], rest)
			}
			n, rest = n+k, rest[k:]
		}
		return buf[:n], nil
	}
}
