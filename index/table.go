package index

import (
	"context"
	"sort"

	"objectmount/internal/inflate"
)

// Table is what a Reader needs: a Tree, and where its bytes come from. *Index
// and *Growing are ones.
type Table interface {
	Tree
	Layout
	// StreamSize is the bytes of the uncompressed stream; those seen so far
	// while it grows.
	StreamSize() int64

	// await waits until byte off of the stream has been seen, or its end, and
	// gives how much of it is known now.
	await(ctx context.Context, off int64) (known int64, err error)
	// tail copies what it can of stream bytes [off, off+len(p)) from memory.
	tail(p []byte, off int64) int
	// locate finds the span that holds byte off, which is below what await
	// gave and was not in the tail.
	locate(off int64) (span, error)
	// spanAt describes span i.
	spanAt(i int) (span, error)
	// point gives the resume point of span i; not for plain streams.
	point(i int) (inflate.Point, error)
	file(row uint32) (file, error)
	piece(i uint32) (Piece, error)
}

var (
	_ Table = (*Index)(nil)
	_ Table = (*Growing)(nil)
)

// span is one span: bytes [off, off+size) of the stream, made of bytes
// [lo, hi) of the object.
type span struct {
	i      int
	off    int64
	size   int
	sum    uint32 // 0: not known
	lo, hi int64
	plain  bool // not compressed: [lo, hi) are the bytes themselves
}

// plainSpanAt is spanAt of a stream that is the object.
func plainSpanAt(i int, stream int64, sum uint32) span {
	off := int64(i) * plainSpan
	size := min(plainSpan, stream-off)
	return span{i: i, off: off, size: int(size), sum: sum, lo: off, hi: off + size, plain: true}
}

// spanOf makes the description of span i from its row and the next one's.
// last says that there is no next one: it ends with stream and object.
func spanOf(i int, s, next spanRow, last bool, stream, object int64) (span, error) {
	out, hi := stream, object
	if !last {
		out, hi = next.out, (next.in+7)/8
	}
	size := out - s.out
	if s.out < 0 || size < 0 || size > MaxSpan || s.in < 0 || s.in/8 > hi || hi > object || hi < 0 {
		return span{}, damaged("span %d makes no sense", i)
	}
	return span{i: i, off: s.out, size: int(size), sum: s.sum, lo: s.in / 8, hi: hi}, nil
}

// await implements Table: everything is known.
func (x *Index) await(context.Context, int64) (int64, error) { return x.stream, nil }

func (x *Index) tail([]byte, int64) int { return 0 }

func (x *Index) spanRow(i int) (spanRow, error) {
	if i < 0 || i >= x.spans {
		return spanRow{}, damaged("span %d of %d", i, x.spans)
	}
	b, err := x.record(secSpans, uint64(i))
	if err != nil {
		return spanRow{}, err
	}
	return parseSpan(b), nil
}

func (x *Index) spanAt(i int) (sp span, err error) {
	defer x.guard(&err)()
	if x.flags&flagGzip == 0 {
		if i < 0 || i >= x.spans {
			return span{}, damaged("span %d of %d", i, x.spans)
		}
		var sum uint32
		if x.HasSums() {
			b, err := x.get(secSpans, 4*uint64(i), 4)
			if err != nil {
				return span{}, err
			}
			sum = le.Uint32(b)
		}
		return plainSpanAt(i, x.stream, sum), nil
	}
	s, err := x.spanRow(i)
	if err != nil {
		return span{}, err
	}
	var next spanRow
	last := i == x.spans-1
	if !last {
		if next, err = x.spanRow(i + 1); err != nil {
			return span{}, err
		}
	}
	return spanOf(i, s, next, last, x.stream, x.object.Size)
}

func (x *Index) locate(off int64) (sp span, err error) {
	defer x.guard(&err)()
	i := int(off / plainSpan)
	if x.flags&flagGzip != 0 {
		var err error
		// The last span that begins at or before off.
		i = sort.Search(x.spans, func(i int) bool {
			if err != nil {
				return true
			}
			var s spanRow
			s, err = x.spanRow(i)
			return s.out > off
		}) - 1
		if err != nil {
			return span{}, err
		}
	}
	s, err := x.spanAt(i)
	if err == nil && (off < s.off || off-s.off >= int64(s.size)) {
		err = damaged("no span holds byte %d", off)
	}
	return s, err
}

func (x *Index) point(i int) (p inflate.Point, err error) {
	defer x.guard(&err)()
	s, err := x.spanRow(i)
	if err != nil {
		return inflate.Point{}, err
	}
	packed, err := x.get(secWindows, s.at, uint64(s.packed))
	if err != nil {
		return inflate.Point{}, err
	}
	return s.point(packed)
}

// NumSpans implements Layout.
func (x *Index) NumSpans() int { return x.spans }

// Span implements Layout. Of a span that the index has damaged it says that
// it has no bytes.
func (x *Index) Span(i int) (off int64, size int, sum uint32) {
	s, err := x.spanAt(i)
	if err != nil {
		return 0, 0, 0
	}
	return s.off, s.size, s.sum
}
