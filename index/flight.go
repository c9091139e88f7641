package index

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"objectmount/internal/inflate"
)

// flight is one decoding of one span, for all who want it.
//
//	join ─▶ under way ─┬─▶ done, kept ─▶ evicted ─▶ memory back when the last has left
//	                   ├─▶ failed: forgotten, all who wait are told
//	                   └─▶ abandoned by its last reader: forgotten, cancelled
type flight struct {
	sp   span
	run  *run
	done chan struct{} // closed when data or err is there
	data []byte
	err  error

	// Guarded by Reader.mu.
	refs  int  // readers, and the flight's own goroutine
	ahead bool // goes on without readers
	spare bool // nobody has asked for it so far: kept only where there is room
	known bool // in Reader.flights
	busy  bool // counted in Reader.traffic
	buf   []byte
	held  int64 // bytes of Reader.held
}

// run is a row of spans that is fetched at once.
type run struct {
	flights []*flight
	live    atomic.Int32 // flights that somebody wants
	cancel  context.CancelFunc
	over    chan struct{} // closed when all have landed and were put into Spans
}

const (
	// runBytes and runSpans bound a run's compressed bytes and spans. The
	// first is what a request should bring on a link with 30 ms latency.
	runBytes = 2 << 20
	runSpans = 4
	// fetchMost is read of the source at once for a span alone.
	fetchMost = 2 << 20
	// keepFew is what is kept of decoded spans when there are Spans.
	keepFew = 8 << 20
)

func processors() int { return runtime.GOMAXPROCS(0) }

// join takes part in the flight of a span. Without begin it may be nil; with
// it a new one is made where there is none, which the caller must launch.
// Whoever joins must leave. Nil with begin means that the Reader is closed.
func (r *Reader) join(sp span, begin bool) (f *flight, began bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f = r.flights[sp.i]; f != nil {
		f.refs++
		f.spare = false
		return f, false
	}
	if !begin || r.ctx.Err() != nil {
		return nil, false
	}
	return r.begin(sp, false), true
}

// begin makes a flight with one reader. The lock is held.
func (r *Reader) begin(sp span, spare bool) *flight {
	f := &flight{sp: sp, done: make(chan struct{}), refs: 2, known: true, spare: spare, busy: !spare} // the reader, and the goroutine to come
	r.flights[sp.i] = f
	r.wg.Add(1)
	if f.busy {
		r.traffic.begin()
	}
	return f
}

// leave gives a reader's part back.
func (r *Reader) leave(f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.refs--
	select {
	case <-f.done:
	default:
		if f.refs == 1 && !f.ahead && f.known { // only the goroutine is left
			delete(r.flights, f.sp.i)
			f.known = false
			if f.run != nil && f.run.live.Add(-1) == 0 {
				f.run.cancel()
			}
		}
	}
	r.reclaim(f)
}

// reclaim takes back the memory of a flight that nobody knows or uses. One
// that is known stays, but can now be evicted. The lock is held.
func (r *Reader) reclaim(f *flight) {
	if f.refs > 0 {
		return
	}
	if !f.known {
		if f.buf != nil {
			putBuffer(f.buf)
			f.buf, f.data = nil, nil
		}
		r.held -= f.held
		f.held = 0
	}
	r.tellStarved()
}

// tellStarved wakes those who wait for memory. The lock is held.
func (r *Reader) tellStarved() {
	if r.starved > 0 {
		close(r.freed)
		r.freed = make(chan struct{})
	}
}

// hold waits until n bytes may be used.
func (r *Reader) hold(ctx context.Context, n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.tryHold(n) {
		r.starved++
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if r.starved--; ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// tryHold takes n bytes if they may be used now. The lock is held.
func (r *Reader) tryHold(n int64) bool {
	for r.held > 0 && r.held+n > r.opt.Memory {
		if !r.evict() {
			return false
		}
	}
	r.held += n
	return true
}

// evict forgets the oldest span that nobody reads. The lock is held.
func (r *Reader) evict() bool {
	for i, f := range r.kept {
		if f.refs == 0 {
			r.kept = append(r.kept[:i], r.kept[i+1:]...)
			delete(r.flights, f.sp.i)
			f.known = false
			r.reclaim(f)
			return true
		}
	}
	return false
}

// launch starts the goroutine of a run of flights that were begun.
func (r *Reader) launch(flights []*flight, ahead bool) *run {
	if len(flights) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(r.ctx)
	u := &run{flights: flights, cancel: cancel, over: make(chan struct{})}
	r.mu.Lock()
	for _, f := range flights {
		f.run = u
		if f.known {
			u.live.Add(1)
		}
	}
	if u.live.Load() == 0 { // all have left already
		cancel()
	}
	r.mu.Unlock()
	go func() {
		defer close(u.over)
		defer cancel()
		r.fly(ctx, u, ahead)
	}()
	return u
}

// fly fetches a run and decodes its spans. It takes the memory for all of it
// at once: of several that had taken a part, none might get the rest.
func (r *Reader) fly(ctx context.Context, u *run, ahead bool) {
	first, last := u.flights[0].sp, u.flights[len(u.flights)-1].sp
	need := min(last.hi-first.lo, fetchMost)
	if len(u.flights) > 1 {
		need = last.hi - first.lo
	}
	total := need
	for _, f := range u.flights {
		total += f.bytes()
	}
	err := r.hold(ctx, total)
	var fetched []byte
	if err == nil {
		defer r.release(need)
		r.mu.Lock()
		for _, f := range u.flights {
			f.held = f.bytes()
		}
		r.mu.Unlock()
		if len(u.flights) > 1 {
			fetched = getBuffer(int(need))
			defer putBuffer(fetched)
			err = r.fetch(ctx, fetched, first.lo)
		}
	}
	var wg sync.WaitGroup
	for _, f := range u.flights {
		if err != nil {
			r.land(f, nil, err)
			continue
		}
		if fetched == nil {
			r.decode(ctx, f, nil, ahead)
			continue
		}
		r.turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-r.turn }()
			r.decode(ctx, f, fetched[f.sp.lo-first.lo:f.sp.hi-first.lo], ahead)
		})
	}
	wg.Wait()
}

// bytes is what a flight's buffer takes.
func (f *flight) bytes() int64 { return int64(decodeHistory + f.sp.size + 4096) }

func (r *Reader) release(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held -= n
	r.tellStarved()
}

// fetch reads the object at off, all of p.
func (r *Reader) fetch(ctx context.Context, p []byte, off int64) error {
	n, err := r.src.ReadAtContext(ctx, p, off)
	r.stats.fetched.Add(int64(n))
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read object: %w", err)
}

// decode makes the bytes of a flight's span, of fetched if that is not nil,
// and tells all who wait.
func (r *Reader) decode(ctx context.Context, f *flight, fetched []byte, ahead bool) {
	if err := ctx.Err(); err != nil {
		r.land(f, nil, err)
		return
	}
	if ahead {
		r.stats.ahead.Add(1)
		r.stats.unasked.Add(f.sp.hi - f.sp.lo)
	}
	f.buf = getBuffer(int(f.bytes())) // nobody else looks at it before it has landed
	data, err := r.decodeOnce(ctx, f, fetched)
	if errors.Is(err, ErrCorrupt) {
		// Not necessarily the object: a wire may flip bits. Once more.
		data, err = r.decodeOnce(ctx, f, nil)
	}
	r.land(f, data, err)
}

func (r *Reader) decodeOnce(ctx context.Context, f *flight, fetched []byte) ([]byte, error) {
	var data []byte
	var err error
	switch {
	case f.sp.plain && fetched != nil:
		data = f.buf[:copy(f.buf, fetched)]
	case f.sp.plain:
		data = f.buf[:f.sp.size]
		err = r.fetch(ctx, data, f.sp.lo)
	default:
		data, err = r.inflate(ctx, f, fetched)
	}
	if err != nil {
		return nil, err
	}
	if (f.sp.sum != 0 || !f.sp.plain) && crc32.Checksum(data, castagnoli) != f.sp.sum {
		return nil, fmt.Errorf("%w: bytes [%d,%d) of its stream have not the checksum that the index says",
			ErrCorrupt, f.sp.off, f.sp.off+int64(f.sp.size))
	}
	return data, nil
}

// inflate decodes a span into the flight's buffer.
func (r *Reader) inflate(ctx context.Context, f *flight, fetched []byte) ([]byte, error) {
	p, err := r.t.point(f.sp.i)
	if err != nil {
		return nil, err
	}
	src := inflate.FromBytes(fetched)
	if fetched == nil {
		s := &rangeSource{ctx: ctx, r: r, off: f.sp.lo, end: f.sp.hi}
		defer s.close()
		src = s
	}
	// The span's own checksum is compared: then the members' need not be.
	z := inflate.Resume(p, src, inflate.Options{End: f.sp.off + int64(f.sp.size), Unchecked: true})
	defer z.Close()
	// One call fills the buffer, unless the stream ends before.
	data, err := z.Fill(f.buf)
	if err != nil {
		return nil, gzipError(err)
	}
	if len(data) != f.sp.size {
		return nil, fmt.Errorf("%w: only %d bytes of %d at %d of its stream could be decoded", ErrCorrupt, len(data), f.sp.size, f.sp.off)
	}
	return data, nil
}

// land ends a flight, and keeps what it brought.
func (r *Reader) land(f *flight, data []byte, err error) {
	defer r.wg.Done()
	f.data, f.err = data, err
	if err != nil {
		r.stats.failed.Add(1)
	} else {
		r.stats.decoded.Add(1)
	}
	r.mu.Lock()
	if f.known && err == nil {
		r.kept = append(r.kept, f)
	} else if f.known {
		delete(r.flights, f.sp.i)
		f.known = false
	}
	close(f.done)
	spare := f.spare
	r.mu.Unlock()
	if f.busy {
		r.traffic.end()
	}

	if err == nil && r.spans != nil {
		r.put(f.sp.i, data, spare)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f.refs--
	r.reclaim(f)
	most := r.opt.Memory
	if r.spans != nil {
		most = min(most, keepFew)
	}
	for r.keptBytes() > most && r.evict() {
	}
}

func (r *Reader) keptBytes() (n int64) {
	for _, f := range r.kept {
		n += f.held
	}
	return n
}

// rangeSource is the compressed bytes of a span, fetched as they are wanted:
// with one request, but where a stream has very many bytes without output.
type rangeSource struct {
	ctx      context.Context
	r        *Reader
	off, end int64
	buf      []byte
}

func (s *rangeSource) Next() ([]byte, error) {
	n := min(s.end-s.off, fetchMost)
	if n <= 0 {
		return nil, io.EOF
	}
	if s.buf == nil {
		s.buf = getBuffer(int(n))
	}
	p := s.buf[:n]
	if err := s.r.fetch(s.ctx, p, s.off); err != nil {
		return nil, err
	}
	s.off += n
	return p, nil
}

func (s *rangeSource) close() {
	if s.buf != nil {
		putBuffer(s.buf)
	}
}

// Buffers of about a span are used again: they are large, and zeroing new
// ones costs as much as a tenth of decoding.
var bufferPool sync.Pool

func getBuffer(n int) []byte {
	if b, ok := bufferPool.Get().(*[]byte); ok && cap(*b) >= n {
		return (*b)[:n]
	}
	return make([]byte, n, max(n, 5<<18))
}

func putBuffer(b []byte) {
	if cap(b) <= 3<<20 {
		bufferPool.Put(&b)
	}
}
