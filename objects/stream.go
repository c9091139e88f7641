package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Stream reads from off to the end, resuming and renewing on the way; off is
// at most Size. Several requests run at a time where that is faster (see the
// package's documentation), and their bytes come in order from memory that
// Limits.Memory bounds.
//
// It gives io.EOF only after the last byte, and when off is 0 and the SHA-256
// is known, only if that is right (else ErrChecksum). After an error it gives
// that error for good.
//
// The stream belongs to one goroutine. Ending ctx ends it from another. Close
// it: only then have its requests ended.
//
// Besides Read it has
//
//	Next() ([]byte, error)
//
// which gives the next bytes without copying them, at least one unless there
// is an error. They are valid until the next call of a method, and must not be
// written to.
func (r *Reader) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	s, err := r.stream(ctx, off)
	if err != nil {
		return nil, err // not a nil *stream
	}
	return s, nil
}

func (r *Reader) stream(ctx context.Context, off int64) (*stream, error) {
	if err := r.meet(ctx); err != nil {
		return nil, r.named("open", err)
	}
	size := r.Size()
	if off < 0 || off > size {
		return nil, fmt.Errorf("read object: offset %d is not within its %d bytes", off, size)
	}
	s := &stream{r: r, ctx: ctx}
	if off == 0 && r.sha256 != nil {
		s.sum = sha256.New()
	}
	if r.provable() { // else all bytes must be of one answer
		s.first = r.firstFrom(off)
		off += int64(len(s.first))
	}
	switch rest := (span{off, size}); {
	case off == size:
		s.from = nothing{}
	case r.provable() && r.ranges.Load() && size-off > minPart:
		s.from = r.parallel(ctx, rest)
	default:
		s.from = r.lone(ctx, rest)
	}
	return s, nil
}

// stream is what Stream gives: the bytes that the first answer brought, and
// then a tributary.
type stream struct {
	r     *Reader
	ctx   context.Context
	first []byte
	from  tributary
	ahead []byte    // of Next, not read yet
	sum   hash.Hash // of the bytes given; nil: not checked
	err   error     // the final one
}

// tributary is where a stream's bytes come from. What next gives is valid
// until the next call.
type tributary interface {
	next(ctx context.Context) ([]byte, error)
	close()
}

// Next gives the next bytes.
func (s *stream) Next() ([]byte, error) {
	if b := s.ahead; len(b) > 0 {
		s.ahead = nil
		return b, nil
	}
	if s.err != nil {
		return nil, s.err
	}
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return nil, err
	}
	b, err := s.first, error(nil)
	s.first = nil
	if len(b) == 0 {
		b, err = s.from.next(s.ctx)
	}
	if s.sum != nil {
		s.sum.Write(b)
		if err == io.EOF {
			err = checkSum(s.sum, s.r.sha256)
		}
	}
	if err != nil {
		s.err = s.r.named("read", err)
	}
	return b, s.err
}

// Read is io.Reader's.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, s.err
	}
	if len(s.ahead) == 0 {
		b, err := s.Next()
		if err != nil {
			return 0, err
		}
		s.ahead = b
	}
	n := copy(p, s.ahead)
	s.ahead = s.ahead[n:]
	return n, nil
}

// checkSum gives io.EOF when the sum is the wanted one.
func checkSum(h hash.Hash, want []byte) error {
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return fmt.Errorf("%w: want %s, got %s", ErrChecksum, hex.EncodeToString(want), hex.EncodeToString(got))
	}
	return io.EOF
}

// Close ends the stream and its requests, and waits for their end.
func (s *stream) Close() error {
	if s.err == nil {
		s.err = fmt.Errorf("read object: %w", io.ErrClosedPipe)
	}
	s.ahead, s.first = nil, nil
	if s.from != nil {
		s.from.close()
		s.from = nothing{}
	}
	return nil
}

// nothing is the tributary that has run dry.
type nothing struct{}

func (nothing) next(context.Context) ([]byte, error) { return nil, io.EOF }
func (nothing) close()                               {}

// lone brings a span by one request at a time: what a server without ranges
// needs, and a small rest.
type lone struct {
	feed *feed
	mem  *memory
	buf  []byte
}

func (r *Reader) lone(ctx context.Context, s span) *lone {
	r.net.mem.join()
	return &lone{&feed{r: r, ctx: ctx, off: s[0], end: s[1], pace: r.pacer()}, &r.net.mem, r.net.mem.borrow()}
}

func (l *lone) next(context.Context) ([]byte, error) {
	n, err := l.feed.read(l.buf)
	return l.buf[:n], err
}

func (l *lone) close() {
	l.feed.close()
	l.mem.give(nil, l.buf)
	l.mem.leave()
}

// parallel brings a span by several.
type parallel struct {
	*window
	crew *crew
}

func (r *Reader) parallel(ctx context.Context, s span) parallel {
	w := newWindow(&r.net.mem, s[0], s[1])
	return parallel{w, r.fetch(ctx, w, r.net.mem.share, s)}
}

func (p parallel) close() {
	p.crew.close()
	p.window.close()
}
