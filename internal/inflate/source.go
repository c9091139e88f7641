package inflate

import (
	"io"
	"sync"
)

// A Source hands over the compressed bytes, slice by slice. A slice is valid
// until the next call and is not written to. At the end Next returns io.EOF;
// it may return bytes together with an error. Slices may have any length;
// a few KiB and more are best, because the last bytes of each one are decoded
// by the slow loop.
type Source interface {
	Next() ([]byte, error)
}

// sourceBuffer is what FromReader reads at once: large enough that system
// calls do not show, small enough to stay in the second-level cache.
const sourceBuffer = 128 << 10

var sourceBuffers = sync.Pool{New: func() any { return new([sourceBuffer]byte) }}

type readerSource struct {
	r   io.Reader
	buf *[sourceBuffer]byte
}

// FromReader is the Source of an io.Reader. Its buffer goes back to a pool
// when the reader ends or fails.
func FromReader(r io.Reader) Source { return &readerSource{r: r} }

func (s *readerSource) Next() ([]byte, error) {
	if s.buf == nil {
		s.buf = sourceBuffers.Get().(*[sourceBuffer]byte)
	}
	n, err := s.r.Read(s.buf[:])
	if err != nil && n == 0 {
		sourceBuffers.Put(s.buf)
		s.buf = nil
		return nil, err
	}
	return s.buf[:n], err
}

type bytesSource struct{ slices [][]byte }

// FromBytes is the Source of bytes in memory, in the order given.
func FromBytes(slices ...[]byte) Source { return &bytesSource{slices} }

func (s *bytesSource) Next() ([]byte, error) {
	if len(s.slices) == 0 {
		return nil, io.EOF
	}
	b := s.slices[0]
	s.slices = s.slices[1:]
	return b, nil
}
