package index

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"
)

// ReaderOptions of a Reader; the zero value is good.
type ReaderOptions struct {
	// Memory bounds the bytes held for decoding, compressed and not, and of
	// spans decoded of late; 32 MiB if 0. A read whose span alone is larger
	// waits until nothing else is held.
	Memory int64
	// ReadAhead bounds how far a sequence of reads is read ahead; 16 MiB if
	// 0, none if negative.
	ReadAhead int64
	// Record is for how long after the first read it is noted which spans
	// reads use, see Reader.Trace; 0: not at all.
	Record time.Duration
	// Traffic is that of several Readers that share a link; nil: its own.
	Traffic *Traffic
}

// Reader reads any byte of an object's stream, and of its files. It is safe
// for concurrent use. A read waits for nothing but its own spans, whose
// decoding it shares with all who want the same, and leaves at once when its
// context ends, without harm to them. What was decoded has the checksum that
// the index says, or is an error that wraps ErrCorrupt; errors are not kept.
//
//	ReadAt ─▶ span ─┬─ in the first pass's hands ─────────────▶ copy
//	                ├─ decoded of late, or being decoded ──────▶ (wait) copy
//	                ├─ in Spans ───────────────────────────────▶ copy
//	                └─ a flight: fetch, inflate, verify, PutSpan ▶ copy
type Reader struct {
	t     Table
	src   Source
	spans Spans
	opt   ReaderOptions

	ctx  context.Context // ends with Close
	quit context.CancelFunc
	wg   sync.WaitGroup
	turn chan struct{} // decodings ahead of readers, as many as processors

	traffic *Traffic
	record  *recorder // nil: nothing is recorded

	mu      sync.Mutex      // guards the rest
	flights map[int]*flight // under way, or kept
	kept    []*flight       // done, the oldest first
	held    int64           // bytes of buffers
	starved int             // how many wait for memory
	freed   chan struct{}   // closed for them, and made anew, when there may be some
	follows [8]sequence
	clock   uint64

	stats counters
}

// Stats are counters of a Reader since it was made, but for Waiting and Held.
type Stats struct {
	Hits    int64 // reads of a span that was in Spans or in memory
	Misses  int64 // reads of a span that had to be decoded or waited for
	Decoded int64 // spans decoded
	Ahead   int64 // of them before anybody asked, those in the background too
	Spare   int64 // of them in the background
	Unasked int64 // bytes of the object that those before anybody asked are made of
	Fetched int64 // bytes read of the source
	Failed  int64 // spans that could not be decoded
	Waiting int64 // reads that wait right now
	Held    int64 // bytes of buffers in use right now
}

type counters struct {
	hits, misses, decoded, ahead, spare, unasked, fetched, failed, waiting atomic.Int64
}

var errReaderClosed = fmt.Errorf("index: reader: %w", fs.ErrClosed)

// NewReader reads the stream that t describes from spans, and where those have
// it not, by decoding src. spans may be nil.
func NewReader(t Table, src Source, spans Spans, opt ReaderOptions) *Reader {
	if opt.Memory <= 0 {
		opt.Memory = 32 << 20
	}
	opt.ReadAhead = readAhead(opt.ReadAhead, opt.Memory)
	r := &Reader{
		t: t, src: src, spans: spans, opt: opt, turn: make(chan struct{}, processors()),
		flights: map[int]*flight{}, freed: make(chan struct{}), traffic: opt.Traffic,
	}
	if r.traffic == nil {
		r.traffic = new(Traffic)
	}
	if opt.Record > 0 {
		r.record = newRecorder(opt.Record)
	}
	r.ctx, r.quit = context.WithCancel(context.Background())
	return r
}

// Close ends what is under way and waits for it. Reads then fail.
func (r *Reader) Close() error {
	r.mu.Lock()
	r.quit() // under the lock, where flights begin: none does after it
	r.mu.Unlock()
	r.wg.Wait()
	r.record.end()
	return nil
}

// SetReadAhead changes ReaderOptions.ReadAhead. Without reading ahead a read
// fetches the spans that it is of, and nothing else.
func (r *Reader) SetReadAhead(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opt.ReadAhead = readAhead(n, r.opt.Memory)
}

func readAhead(n, memory int64) int64 {
	if n == 0 {
		n = 16 << 20
	}
	return min(n, memory/2)
}

// Stats is a snapshot.
func (r *Reader) Stats() Stats {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	c := &r.stats
	return Stats{
		Hits: c.hits.Load(), Misses: c.misses.Load(), Decoded: c.decoded.Load(), Ahead: c.ahead.Load(),
		Spare: c.spare.Load(), Unasked: c.unasked.Load(),
		Fetched: c.fetched.Load(), Failed: c.failed.Load(), Waiting: c.waiting.Load(), Held: held,
	}
}

// ReadAt reads len(p) bytes of the stream at off, like io.ReaderAt: fewer come
// with an error, which is io.EOF at the end. While the first pass runs it
// waits for bytes that have not been seen.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return r.read(ctx, p, off, 0)
}

// read is ReadAt for content of the file row; 0: of whatever.
func (r *Reader) read(ctx context.Context, p []byte, off int64, row uint32) (int, error) {
	if off < 0 {
		return 0, errors.New("index: negative offset")
	}
	if len(p) == 0 {
		return 0, nil
	}
	r.follow(off, off+int64(len(p)))
	known := int64(0)
	for n := 0; n < len(p); {
		at := off + int64(n)
		if at >= known {
			var err error
			if known, err = r.await(ctx, at); err != nil {
				return n, err
			}
			if at >= known {
				return n, io.EOF
			}
		}
		if k := r.t.tail(p[n:], at); k > 0 {
			r.record.tail(at)
			n += k
			continue
		}
		sp, err := r.t.locate(at)
		if err != nil {
			return n, err
		}
		k := int(min(int64(len(p)-n), sp.off+int64(sp.size)-at))
		if err := r.readSpan(ctx, sp, p[n:n+k], int(at-sp.off), row); err != nil {
			return n, err
		}
		n += k
	}
	return len(p), nil
}

func (r *Reader) await(ctx context.Context, off int64) (int64, error) {
	r.stats.waiting.Add(1)
	defer r.stats.waiting.Add(-1)
	return r.t.await(ctx, off)
}

// ReadFileAt reads len(p) bytes of the file row at off, holes as zeros: fewer
// come with an error, which is io.EOF at the end. Errors are those of Tree
// and of ReadAt.
func (r *Reader) ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
	f, err := r.t.file(row)
	if err != nil {
		return 0, err
	}
	if row == 0 && !r.t.Complete() {
		// The file that the object is ends where its stream does.
		if f.size, err = r.await(ctx, off+int64(len(p))-1); err != nil {
			return 0, err
		}
	}
	if off < 0 {
		return 0, errors.New("index: negative offset")
	}
	if off >= f.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > f.size-off {
		p, end = p[:f.size-off], io.EOF
	}
	for n := 0; n < len(p); {
		stream, run, err := f.at(off+int64(n), r.t.piece)
		if err != nil {
			return n, err
		}
		q := p[n:min(int64(len(p)), int64(n)+run)]
		if stream < 0 {
			clear(q)
		} else if k, err := r.read(ctx, q, stream, row); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n + k, err
		}
		n += len(q)
	}
	return len(p), end
}

// readSpan reads bytes [off, off+len(p)) of a span, for the file row.
func (r *Reader) readSpan(ctx context.Context, sp span, p []byte, off int, row uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.record.span(sp.i)
	f, began := r.join(sp, false)
	if f == nil && r.spans != nil && r.spans.ReadSpan(sp.i, p, off) {
		r.stats.hits.Add(1)
		return nil
	}
	if f == nil {
		if f, began = r.join(sp, true); f == nil {
			return errReaderClosed
		}
	}
	defer r.leave(f)
	if began {
		r.launch([]*flight{f}, false)
	}
	select {
	case <-f.done:
		r.stats.hits.Add(1)
	default:
		r.stats.misses.Add(1)
		r.stats.waiting.Add(1)
		defer r.stats.waiting.Add(-1)
		r.traffic.begin()
		defer r.traffic.end()
		select {
		case <-f.done:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.ctx.Done():
			return errReaderClosed
		}
	}
	if f.err != nil {
		return f.err
	}
	copy(p, f.data[off:])
	if began {
		r.beside(row, sp) // not before: it would share the link with what is waited for
	}
	return nil
}

// Prefetch sees to it that the spans of stream bytes [off, end) get into
// Spans, and returns when those it had to decode have. It reads as a
// foreground read does, two runs at a time. It does not wait for bytes that
// the first pass has not seen, nor for what others are decoding.
func (r *Reader) Prefetch(ctx context.Context, off, end int64) error {
	var before []*flight // of the run before
	wait := func(run []*flight) (err error) {
		for _, f := range run {
			if err == nil {
				select {
				case <-f.done:
					err = f.err
				case <-ctx.Done():
					err = ctx.Err()
				case <-r.ctx.Done():
					err = errReaderClosed
				}
			}
			r.leave(f)
		}
		return err
	}
	for end = min(end, r.t.StreamSize()); off < end; {
		run, next := r.collect(off, end, true)
		r.launch(run, false)
		err := wait(before)
		before, off = run, next
		if err != nil || next < 0 {
			return errors.Join(err, wait(before))
		}
	}
	return wait(before)
}
