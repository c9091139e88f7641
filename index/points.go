package index

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"

	"objectmount/internal/inflate"
)

// plainSpan is the size of all spans but the last where the stream is not
// compressed.
const plainSpan = 1 << 20

// spanBuilder makes the table of spans. Where the stream is compressed, spans
// begin where the decoder takes points; it tells of each twice: of the place
// at once (cut), of all else when the window is known (point). The bytes come
// after the cut. The builder's user guards it.
type spanBuilder struct {
	gzip bool
	sums bool

	spans  []spanRow // those that are cut
	points int       // of them, those whose point is known
	begun  int       // of them, those whose bytes have begun
	off    int64     // of the stream: bytes seen
	crc    uint32    // of the current span's bytes so far

	windows []byte // of all points, compressed one by one
	raw     []byte // one that is not
}

// cut says that a span will begin at byte out of the stream, bit in of the
// object.
func (b *spanBuilder) cut(in, out int64) { b.spans = append(b.spans, spanRow{in: in, out: out}) }

// bytes takes the next bytes of the stream, up to where a span begins, and
// says how many that were. ended says that a span did, the one before begun-1.
func (b *spanBuilder) bytes(p []byte) (n int, ended bool) {
	if !b.gzip && b.off == int64(len(b.spans))*plainSpan {
		b.cut(8*b.off, b.off)
	}
	if b.begun < len(b.spans) {
		begin := b.spans[b.begun].out
		if begin == b.off {
			ended = b.end()
			b.begun++
			b.crc = 0
			return 0, ended
		}
		p = p[:min(int64(len(p)), begin-b.off)]
	} else if !b.gzip {
		p = p[:min(int64(len(p)), int64(b.begun)*plainSpan-b.off)]
	}
	if b.sums {
		b.crc = crc32.Update(b.crc, castagnoli, p)
	}
	b.off += int64(len(p))
	return len(p), false
}

// end ends the current span, if there is one.
func (b *spanBuilder) end() bool {
	if b.begun == 0 {
		return false
	}
	b.spans[b.begun-1].sum = b.crc
	return true
}

// point takes the resume point of the first span that has none yet, whose cut
// has been told.
func (b *spanBuilder) point(p inflate.Point) error {
	if b.points >= len(b.spans) || b.spans[b.points].out != p.Out {
		return fmt.Errorf("index: a point at %d, where no span begins", p.Out) // a fault of ours
	}
	row := spanRow{
		out: p.Out, in: p.In, sum: b.spans[b.points].sum, crc: p.CRC, size: p.Size, member: p.Member,
		tables: uint16(len(p.Tables)), window: uint16(len(p.Window)), at: uint64(len(b.windows)),
	}
	if b.raw = append(append(b.raw[:0], p.Window...), p.Tables...); len(b.raw) > 0 {
		b.windows = windowEncoder().EncodeAll(b.raw, b.windows)
		row.packed = uint16(uint64(len(b.windows)) - row.at)
	}
	b.spans[b.points] = row
	b.points++
	return nil
}

// finish ends the table with the stream.
func (b *spanBuilder) finish() error {
	if b.begun < len(b.spans) && b.spans[b.begun].out == b.off { // a last span without bytes
		b.bytes(nil)
	}
	b.end()
	if b.begun < len(b.spans) || b.gzip && b.points < len(b.spans) {
		return fmt.Errorf("index: %d spans, %d begun, %d with points", len(b.spans), b.begun, b.points)
	}
	return nil
}

// The coders are shared by all: EncodeAll and DecodeAll are stateless. One
// processor and no checksum (the block sums of the file cover the windows):
// the output is the same everywhere.
var (
	windowEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(64<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err)
		}
		return e
	})
	windowDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// maxWindow bounds a point's window and code lengths together.
const maxWindow = 32<<10 + 512

// point makes the resume point of a span of its compressed window.
func (s *spanRow) point(packed []byte) (inflate.Point, error) {
	p := inflate.Point{In: s.in, Out: s.out, Member: s.member, CRC: s.crc, Size: s.size}
	n := int(s.window) + int(s.tables)
	switch {
	case n == 0:
		return p, nil
	case n > maxWindow:
		return p, damaged("a window of %d bytes", n)
	}
	raw, err := windowDecoder().DecodeAll(packed, make([]byte, 0, n))
	if err != nil {
		return p, damaged("a window: %v", err)
	}
	if len(raw) != n {
		return p, damaged("a window of %d bytes, not %d", len(raw), n)
	}
	p.Window, p.Tables = raw[:s.window], raw[s.window:]
	return p, nil
}
