package objects

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// window holds the parts of a stream that are on their way or have come and
// not been read yet, and hands their bytes over in order. It is the sink of
// a crew, whose workers fill it while one reader empties it:
//
//	worker ─room→ chunk ─read(2)→ put ─┐
//	worker ─room→ chunk ─read(2)→ put ─┼─→ parts, in order ──next──→ reader
//	worker ─room→ chunk ─read(2)→ put ─┘
//
// The bytes are never copied: what the socket was read into is the slice that
// the reader gets, and the chunk goes back when it asks for the next.
type window struct {
	mem *memory
	end int64
	pos atomic.Int64 // of the next byte to hand over; moved by the reader only

	holding, most int // chunks it has, and may have; guarded by mem.mu

	mu     sync.Mutex // guards what follows, and the parts
	parts  []*part
	hungry bool      // the reader waits
	since  time.Time // it has been waiting
	waited time.Duration

	wake chan struct{} // has room for one: there may be something for the reader
	held []byte        // the chunk whose last bytes the reader has; nil: none
}

// part is bytes [off, end) of the object, fetched by one worker.
type part struct {
	off, end int64

	// For a window, under its mu:
	got, taken int64    // bytes that came, and that were handed over
	chunks     [][]byte // holding bytes [taken rounded down to a chunk, …)
	err        error    // what ended it early
}

func newWindow(m *memory, off, end int64) *window {
	w := &window{mem: m, end: end, wake: make(chan struct{}, 1)}
	w.pos.Store(off)
	m.join()
	return w
}

// begin adds the next part. Parts come in order.
func (w *window) begin(p *part) {
	w.mu.Lock()
	w.parts = append(w.parts, p)
	w.mu.Unlock()
}

// room gives the place for the next bytes of p. It waits for memory.
func (w *window) room(ctx context.Context, p *part) ([]byte, error) {
	w.mu.Lock()
	fill := p.got % chunkSize
	if fill > 0 {
		b := p.chunks[len(p.chunks)-1]
		w.mu.Unlock()
		return b[fill:], nil
	}
	off := p.off + p.got
	w.mu.Unlock()
	b, err := w.mem.take(ctx, w, off)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	p.chunks = append(p.chunks, b)
	w.mu.Unlock()
	return b, nil
}

// put says that n bytes have come to where room said.
func (w *window) put(p *part, n int) error {
	w.mu.Lock()
	p.got += int64(n)
	w.tell(p)
	w.mu.Unlock()
	return nil
}

// fail ends p with an error, which the reader gets after the bytes before it.
func (w *window) fail(p *part, err error) {
	w.mu.Lock()
	p.err = err
	w.tell(p)
	w.mu.Unlock()
}

// tell wakes the reader if it waits for p. The caller holds mu.
func (w *window) tell(p *part) {
	if !w.hungry || w.parts[0] != p {
		return
	}
	w.hungry = false
	w.waited += time.Since(w.since)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// staff tells how many workers there are. Each has room for a part.
func (w *window) staff(workers, most int) {
	w.mem.widen(w, int64(workers)*max(w.mem.share()/int64(most), minPart))
}

// awaits says whether the reader waits for p.
func (w *window) awaits(p *part) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.parts) > 0 && w.parts[0] == p && (w.hungry || p.got == p.taken)
}

// starved is for how long the reader has had to wait in all.
func (w *window) starved() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hungry {
		return w.waited + time.Since(w.since)
	}
	return w.waited
}

// next hands over bytes that are there, or waits for some. They are the
// caller's until the next call.
func (w *window) next(ctx context.Context) ([]byte, error) {
	if w.held != nil {
		w.mem.give(w, w.held)
		w.held = nil
	}
	for {
		if b, err := w.ready(); b != nil || err != nil {
			return b, err
		}
		w.mem.moved() // the chunk that is wanted now may have been held up
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ready gives what is there; nil: nothing yet, and wake will tell.
func (w *window) ready() ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pos.Load() == w.end {
		return nil, io.EOF
	}
	if len(w.parts) > 0 {
		p := w.parts[0]
		switch {
		case p.got > p.taken:
			return w.hand(p), nil
		case p.err != nil:
			return nil, p.err
		}
	}
	w.hungry, w.since = true, time.Now()
	return nil, nil
}

// hand takes what is there of p's first chunk. The caller holds mu.
func (w *window) hand(p *part) []byte {
	from := p.taken % chunkSize
	n := min(p.got-p.taken, chunkSize-from)
	b := p.chunks[0][from : from+n]
	p.taken += n
	w.pos.Add(n)
	if p.taken == p.end-p.off || p.taken%chunkSize == 0 {
		w.held = p.chunks[0]
		p.chunks = p.chunks[1:]
	}
	if p.taken == p.end-p.off {
		w.parts = w.parts[1:]
	}
	return b
}

// close gives all memory back. The workers must have ended.
func (w *window) close() {
	for _, p := range w.parts {
		for _, c := range p.chunks {
			w.mem.give(w, c)
		}
	}
	if w.held != nil {
		w.mem.give(w, w.held)
	}
	w.parts, w.held = nil, nil
	w.mem.leave()
}
