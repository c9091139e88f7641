package extract

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
)

// source is the caller's reader, as slices: with the context checked, the
// bytes counted and held against the expected size, and the first error kept.
// The layers above turn errors into "truncated" and the like; feed.explain puts
// right what was in truth an error of the reader.
//
// It implements inflate.Source; one goroutine of the decoder reads.
type source struct {
	ctx   context.Context
	r     io.Reader
	next  slicer // r itself, if it can give its bytes without a copy; else nil
	size  int64  // expected, <= 0: unknown
	buf   []byte
	ahead []byte // read by peek
	n     atomic.Int64
	err   error // the first error but io.EOF
	ended bool
}

const readBuffer = 128 << 10

// slicer is a reader that lends its own buffers: Next gives the next bytes,
// which are valid until the next call, and no bytes together with io.EOF. The
// streams of package objects are such.
type slicer interface{ Next() ([]byte, error) }

func newSource(ctx context.Context, r io.Reader, size int64) *source {
	s := &source{ctx: ctx, r: r, size: size}
	s.next, _ = r.(slicer)
	return s
}

// Next gives the next bytes; the slice is valid until the next call.
func (s *source) Next() ([]byte, error) { return s.NextInto(s.buf) }

// NextInto is Next, but what is read now and not lent is read into buf.
func (s *source) NextInto(buf []byte) ([]byte, error) {
	if p := s.ahead; p != nil {
		s.ahead = nil
		return p, nil
	}
	for {
		p, err := s.read(buf)
		if len(p) > 0 || err != nil {
			return p, err
		}
	}
}

// peek gives the first bytes, at least want of them unless the object is
// shorter, without taking them.
func (s *source) peek(want int) ([]byte, error) {
	s.buf = make([]byte, readBuffer)
	n := 0
	for n < want && !s.ended {
		p, err := s.read(s.buf[n:])
		if err != nil && err != io.EOF {
			return nil, err
		}
		if s.next != nil { // the next call takes p back
			s.buf = append(s.buf[:n], p...)
		}
		n += len(p)
	}
	if n > 0 {
		s.ahead = s.buf[:n]
	}
	return s.buf[:n], nil
}

// read reads once: into buf, or what r lends.
func (s *source) read(buf []byte) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	if s.ended {
		return nil, io.EOF
	}
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return nil, err
	}
	var p []byte
	var err error
	if s.next != nil {
		p, err = s.next.Next()
	} else {
		var k int
		k, err = s.r.Read(buf)
		p = buf[:k]
	}
	n := s.n.Add(int64(len(p)))
	s.ended = err == io.EOF
	switch {
	case s.size > 0 && n > s.size:
		err = fmt.Errorf("%w: the object is longer than its %d bytes", ErrCorrupt, s.size)
	case err == io.EOF && s.size > 0 && n < s.size:
		err = fmt.Errorf("%w: truncated: the object ends after %d of %d bytes: %w",
			ErrCorrupt, n, s.size, io.ErrUnexpectedEOF)
	case err == io.EOF && len(p) > 0:
		err = nil // it comes again, alone
	}
	if err != nil && err != io.EOF {
		s.err = err
		return nil, err
	}
	return p, err
}
