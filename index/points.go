package index

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"

	"objectmount/internal/inflate"
)

const (
	// plainSpan is the size of all spans but the last where the stream is not
	// compressed.
	plainSpan = 1 << 20
	// groupPoints is how many points' windows are compressed together: more
	// are smaller, fewer faster to get at one of.
	groupPoints = 4
	// maxGroup bounds a group's bytes: windows and code lengths.
	maxGroup = groupPoints * (32<<10 + 512)
)

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

	pending []byte // windows of the points that will be the next group
	inGroup int
	groups  []group
	windows []byte
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
	row := spanRow{
		out: p.Out, in: p.In, crc: p.CRC, size: p.Size, member: p.Member,
		tables: uint16(len(p.Tables)), window: uint16(len(p.Window)),
		group: uint32(len(b.groups)), at: uint32(len(b.pending)),
	}
	if len(p.Tables)+len(p.Window) > 0 {
		b.pending = append(append(b.pending, p.Window...), p.Tables...)
		if b.inGroup++; b.inGroup == groupPoints {
			b.pack()
		}
	} else {
		row.group, row.at = 0, 0
	}
	if b.points >= len(b.spans) || b.spans[b.points].out != p.Out {
		return fmt.Errorf("index: a point at %d, where no span begins", p.Out) // a fault of ours
	}
	row.sum = b.spans[b.points].sum
	b.spans[b.points] = row
	b.points++
	return nil
}

// pack makes a group of the pending windows.
func (b *spanBuilder) pack() {
	if b.inGroup == 0 {
		return
	}
	at := len(b.windows)
	b.windows = windowEncoder().EncodeAll(b.pending, b.windows)
	b.groups = append(b.groups, group{off: uint64(at), size: uint32(len(b.windows) - at), raw: uint32(len(b.pending))})
	b.pending, b.inGroup = b.pending[:0], 0
}

// finish ends the table with the stream.
func (b *spanBuilder) finish() error {
	if b.begun < len(b.spans) && b.spans[b.begun].out == b.off { // a last span without bytes
		b.bytes(nil)
	}
	b.end()
	b.pack()
	if b.begun < len(b.spans) || b.gzip && b.points < len(b.spans) {
		return fmt.Errorf("index: %d spans, %d begun, %d with points", len(b.spans), b.begun, b.points)
	}
	return nil
}

// windowOf gives the window and the code lengths of span i from the pending
// group or from a packed one.
func (b *spanBuilder) windowOf(s spanRow) (window, tables []byte, err error) {
	raw := b.pending
	if int(s.group) < len(b.groups) {
		g := b.groups[s.group]
		if raw, err = unpackGroup(b.windows[g.off:g.off+uint64(g.size)], g.raw); err != nil {
			return nil, nil, err
		}
	}
	return s.cutGroup(raw)
}

// cutGroup takes the span's part of a group's bytes.
func (s *spanRow) cutGroup(raw []byte) (window, tables []byte, err error) {
	w, t := uint64(s.window), uint64(s.tables)
	if w+t == 0 {
		return nil, nil, nil
	}
	at := uint64(s.at)
	if at+w+t > uint64(len(raw)) {
		return nil, nil, fmt.Errorf("%w: a window leaves its group", ErrDamaged)
	}
	window, tables = raw[at:at+w], raw[at+w:at+w+t]
	return append([]byte(nil), window...), append([]byte(nil), tables...), nil
}

// The coders are shared by all: EncodeAll and DecodeAll are stateless. One
// processor and no checksum (the block sums of the file cover the windows):
// the output is the same everywhere.
var (
	windowEncoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err)
		}
		return e
	})
	windowDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxGroup), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// unpackGroup decompresses a group of raw bytes.
func unpackGroup(packed []byte, raw uint32) ([]byte, error) {
	if raw > maxGroup {
		return nil, fmt.Errorf("%w: a group of windows with %d bytes", ErrDamaged, raw)
	}
	out, err := windowDecoder().DecodeAll(packed, make([]byte, 0, raw))
	if err != nil {
		return nil, fmt.Errorf("%w: windows: %v", ErrDamaged, err)
	}
	if len(out) != int(raw) {
		return nil, fmt.Errorf("%w: a group of windows with %d bytes, not %d", ErrDamaged, len(out), raw)
	}
	return out, nil
}
