package faulttest

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
)

// patternBlock is how much of a Pattern is kept. It is no multiple of
// anything that a client would choose as the size of a part, so that parts in
// the wrong order are wrong bytes.
const patternBlock = 8<<20 - 4093

// Pattern is an object of any size that takes 8 MiB of memory: random bytes
// that begin anew every patternBlock, each time with the number of the round,
// so that no two places hold the same. It is an io.ReaderAt, and safe for
// concurrent use.
type Pattern struct {
	block []byte
	size  int64
}

// NewPattern makes one. The same seed and size are the same bytes.
func NewPattern(seed uint64, size int64) *Pattern {
	p := &Pattern{block: make([]byte, min(patternBlock, size)), size: size}
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	rand.NewChaCha8(key).Read(p.block)
	return p
}

// Size is its number of bytes.
func (p *Pattern) Size() int64 { return p.size }

// Reader reads it from the start.
func (p *Pattern) Reader() *io.SectionReader { return io.NewSectionReader(p, 0, p.size) }

// ReadAt is io.ReaderAt's.
func (p *Pattern) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("faulttest: negative offset")
	}
	for n < len(b) && off < p.size {
		round, at := off/patternBlock, off%patternBlock
		k := copy(b[n:], p.block[at:min(int64(len(p.block)), p.size-off+at)])
		if at < 8 {
			var number [8]byte
			binary.LittleEndian.PutUint64(number[:], uint64(round))
			for i := at; i < 8 && int(i-at) < k; i++ {
				b[n+int(i-at)] ^= number[i]
			}
		}
		n, off = n+k, off+int64(k)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
