package extract

import (
	"context"
	"fmt"
	"io"
)

// source is the caller's reader with the context checked, the bytes counted
// and held against the expected size, and the first error kept. The layers
// above turn errors into "truncated" and the like; explain puts right what
// was in truth an error of the reader.
type source struct {
	ctx  context.Context
	r    io.Reader
	size int64 // expected, <= 0: unknown
	n    int64
	err  error // the first error but io.EOF
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if err := s.ctx.Err(); err != nil {
		s.err = err
		return 0, err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	switch {
	case s.size > 0 && s.n > s.size:
		err = fmt.Errorf("%w: the object is longer than its %d bytes", ErrCorrupt, s.size)
	case err == io.EOF && s.size > 0 && s.n < s.size:
		err = fmt.Errorf("%w: truncated: the object ends after %d of %d bytes: %w",
			ErrCorrupt, s.n, s.size, io.ErrUnexpectedEOF)
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// explain returns the reason behind err: the reader's own error if it had
// one, because everything after it is a consequence.
func (s *source) explain(err error) error {
	if err == nil || s.err == nil {
		return err
	}
	return fmt.Errorf("read object: %w", s.err)
}
