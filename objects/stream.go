package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// feed gives bytes [off, end) of a Reader's object in order, over as many
// requests as that takes. It is the engine below Stream and ReadAtContext: a
// parallel one may take its place without anybody above noticing.
//
// It belongs to one goroutine, and to the call or stream whose ctx it has.
type feed struct {
	r        *Reader
	ctx      context.Context
	off, end int64
	pace     *pacer
	body     *body // the open answer; nil: none
	meagre   bool  // the open answer is much shorter than what was asked for
	failed   error // what ended the last answer after its bytes had been given
}

// read gives at least one byte, or an error. io.EOF means end was reached.
func (f *feed) read(p []byte) (int, error) {
	if f.off >= f.end {
		return 0, io.EOF
	}
	if f.body != nil { // in the middle of a body, where nearly all reads are
		n, err := f.try(p)
		if err == nil {
			return n, nil
		}
		f.failed = err
	}
	return retry(f.ctx, f.pace, func() (int, error) { return f.try(p) })
}

// try is one try: open the rest where there is nothing open, and read.
func (f *feed) try(p []byte) (int, error) {
	if err := f.failed; err != nil {
		f.failed = nil
		return 0, err
	}
	if f.body == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	n, err := 0, error(nil)
	for empty := 0; n == 0 && err == nil; empty++ {
		if n, err = f.body.Read(p); empty == 100 && n == 0 && err == nil {
			err = io.ErrNoProgress
		}
	}
	f.off += int64(n)
	f.r.stats.bytes.Add(int64(n))
	if err == nil && f.body.left == 0 && f.meagre && f.off < f.end {
		// Allowed, but a server that gives every byte by itself would be
		// asked for ever without a pause.
		err = errMeagre
	}
	if err != nil || f.body.left == 0 {
		f.close()
	}
	if n == 0 {
		return 0, err
	}
	f.pace.progress(n, f.off == f.end)
	f.failed = err
	return n, nil
}

var errMeagre = errors.New("the server gives only crumbs of the range asked for")

// open asks for the rest of the range.
func (f *feed) open() error {
	if f.off > 0 && !f.r.provable() {
		return permanent(fmt.Errorf("%w: bytes from %d on cannot be proven to be of the same object: give its SHA-256, or begin again from 0", ErrNoValidator, f.off))
	}
	id := f.r.id
	b, g, err := f.r.request(f.ctx, ask{off: f.off, end: f.end, pinned: &id, hashed: f.r.sha256 != nil})
	if err != nil {
		return err
	}
	f.meagre = g.n < progressBytes
	f.body = b
	return nil
}

func (f *feed) close() {
	if f.body != nil {
		f.body.Close()
		f.body = nil
	}
}

// Stream reads from off to the end, resuming and renewing on the way; off is
// at most Size. It gives io.EOF only after the last byte, and when off is 0
// and the SHA-256 is known, only if that is right (else ErrChecksum). After an
// error it gives that error for good.
//
// The stream belongs to one goroutine. Ending ctx ends it from another.
func (r *Reader) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	if off < 0 || off > r.id.Size {
		return nil, fmt.Errorf("read object: offset %d is not within its %d bytes", off, r.id.Size)
	}
	s := &stream{r: r, feed: &feed{r: r, ctx: ctx, off: off, end: r.id.Size, pace: r.pacer()}}
	if off == 0 && r.sha256 != nil {
		s.sum = sha256.New()
	}
	return s, nil
}

type stream struct {
	r    *Reader
	feed *feed
	sum  hash.Hash // of the bytes given; nil: not checked
	err  error     // the final one
}

// Read is io.Reader's.
func (s *stream) Read(p []byte) (int, error) {
	if s.err != nil || len(p) == 0 {
		return 0, s.err
	}
	if err := s.feed.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n := 0
	if s.r.provable() { // else all bytes must be of one answer
		n = s.r.copyFirst(p, s.feed.off)
		s.feed.off += int64(n)
	}
	if n == 0 {
		var err error
		if n, err = s.feed.read(p); err != nil {
			s.err = s.r.named("read", err)
		}
	}
	if s.sum != nil {
		s.sum.Write(p[:n])
		if s.err == io.EOF {
			s.err = checkSum(s.sum, s.r.sha256)
		}
	}
	return n, s.err
}

// checkSum gives io.EOF when the sum is the wanted one.
func checkSum(h hash.Hash, want []byte) error {
	if got := h.Sum(nil); !bytes.Equal(got, want) {
		return fmt.Errorf("%w: want %s, got %s", ErrChecksum, hex.EncodeToString(want), hex.EncodeToString(got))
	}
	return io.EOF
}

// Close ends the stream and its request.
func (s *stream) Close() error {
	if s.err == nil {
		s.err = fmt.Errorf("read object: %w", io.ErrClosedPipe)
	}
	s.feed.close()
	return nil
}
