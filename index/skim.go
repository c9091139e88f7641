package index

import (
	"context"
	"io"
)

// A skim reads a plain tar by its headers: over a network each request costs a
// round trip, and each byte its time, so it reads through what is small and
// jumps over what is large.
const (
	// skimJump is how many bytes are rather left out than read: about what a
	// link brings in the time that a request takes.
	skimJump = 1 << 20
	// skimFirst is what is asked for after a jump: a header, and perhaps the
	// small files that follow. It doubles up to skimMost as long as there is
	// no jump.
	skimFirst = 128 << 10
	skimMost  = 4 << 20
)

// skimmer is the Stream of a plain tar's headers.
type skimmer struct {
	ctx  context.Context
	src  Source
	off  int64 // of the next byte to give
	buf  []byte
	have []byte // bytes from off on that are read
	ask  int
}

func newSkimmer(ctx context.Context, src Source, first []byte) *skimmer {
	return &skimmer{ctx: ctx, src: src, have: first, ask: skimFirst}
}

// Next implements Stream.
func (s *skimmer) Next() ([]byte, error) {
	if len(s.have) == 0 {
		if err := s.read(); err != nil {
			return nil, err
		}
	}
	p := s.have
	s.off, s.have = s.off+int64(len(p)), nil
	return p, nil
}

func (s *skimmer) read() error {
	left := s.src.Size() - s.off
	if left <= 0 {
		return io.EOF
	}
	n := int(min(int64(s.ask), left))
	if cap(s.buf) < n {
		s.buf = make([]byte, n)
	}
	got, err := s.src.ReadAtContext(s.ctx, s.buf[:n], s.off)
	if got < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	s.have = s.buf[:n]
	s.ask = min(2*s.ask, skimMost)
	return nil
}

// Skip implements Skipper.
func (s *skimmer) Skip(n int64) error {
	if n > s.src.Size()-s.off {
		return io.EOF
	}
	if k := int64(len(s.have)); n <= k {
		s.have, s.off = s.have[n:], s.off+n
		return nil
	}
	if n-int64(len(s.have)) >= skimJump {
		s.ask = skimFirst
	} else if n > 0 {
		// Read through: it costs less than the round trip.
		for n > 0 {
			p, err := s.Next()
			if err != nil {
				return err
			}
			if int64(len(p)) > n {
				s.have = p[n:]
				s.off -= int64(len(s.have))
				return nil
			}
			n -= int64(len(p))
		}
		return nil
	}
	s.off, s.have = s.off+n, nil
	return nil
}
