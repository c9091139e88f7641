package inflate

import "slices"

// A Point is a place from which decoding can start. It is plain data: store
// it, and give it to Resume with the compressed bytes from In/8 on.
//
// There are three kinds. At a member start (Member) the gzip header comes
// next and there is no history. At a block boundary the next bits are a block
// header. Inside a block (Tables is not empty) the next bits are a symbol.
type Point struct {
	In  int64 // compressed bit offset of what comes next
	Out int64 // stream offset of the next byte of output

	// Member says that In is the first bit of a gzip member's header.
	Member bool
	// Tables are the block's code lengths, for a point inside a block: a byte
	// whose bit 0 is set in the final block; the numbers of length codes less
	// 257 and of distance codes less 1; and the lengths, a byte each. A single
	// byte stands for a block of the fixed codes. At most 319 bytes.
	Tables []byte
	// Window is the end of the history before Out, at most 32 KiB: the bytes
	// that later output refers to, zeros for the others, and none before the
	// first of them.
	Window []byte
	// CRC and Size are the CRC-32 and the length (modulo 1<<32) of the
	// member's output before Out, so that a Reader that starts here checks
	// the member's trailer all the same. Zero in raw streams.
	CRC, Size uint32
}

// tracker is the state of point taking. After a point the bytes before it
// that matches refer to are collected in mem.window, which begins as zeros;
// once 32 KiB have followed, no more can come and the point is handed out.
//
//	        mark-historySize      mark (the point)        w
//	out ...|---- window, as of the point ----|------------|
//	              ^~~~~ far copies these      dist > w-mark
type tracker struct {
	any   bool  // a point was taken
	last  int64 // its Out
	in    int64 // its In
	open  bool  // it waits for its window
	first int   // where in mem.window what was collected begins
	point Point
}

// points takes a point if one is due here, and hands out one that is complete.
func (r *Reader) points() error {
	if r.track.open && r.w-r.mark >= historySize {
		if err := r.settle(); err != nil {
			return err
		}
	}
	since := r.offset() - r.track.last
	switch r.state {
	case atBlock:
		// What compresses badly takes longer: its points come sooner, so that
		// reading up to any byte takes about the same time everywhere.
		dense := since > 0 && (r.bitPos()-r.track.in)/8 >= max(r.opt.Spacing*3/8, 1)
		if since >= r.opt.Spacing || dense || !r.track.any {
			return r.takePoint(Point{In: r.bitPos()})
		}
	case inBlock:
		// A symbol may go a little beyond. Closer than a page would make more
		// points than output.
		limit := max(2*r.opt.Spacing-2*outSlack, 4<<10)
		if since >= limit {
			if err := r.settle(); err != nil { // the last point used packTables' array, too
				return err
			}
			if err := r.takePoint(Point{In: r.bitPos(), Tables: r.packTables()}); err != nil {
				return err
			}
		}
		// The slow loop goes the last steps, symbol by symbol: where the fast
		// one stops depends on the buffers, and points shall not.
		at := r.track.last + limit - r.base
		r.soft = int(min(int64(r.soft), at))
		r.fastSoft = int(min(int64(r.fastSoft), at-outSlack))
	}
	return nil
}

// memberPoint takes a point at a member start, sooner than elsewhere since
// it costs no window.
func (r *Reader) memberPoint(in int64) error {
	if r.opt.OnPoint == nil {
		return nil
	}
	if since := r.offset() - r.track.last; !r.track.any || since > 0 && since >= r.opt.Spacing/2 {
		return r.takePoint(Point{In: in, Member: true})
	}
	return nil
}

func (r *Reader) takePoint(p Point) error {
	if err := r.settle(); err != nil {
		return err
	}
	r.sum()
	p.Out = r.offset()
	if !r.opt.Raw && !r.opt.Unchecked && !p.Member {
		p.CRC, p.Size = r.crc, uint32(p.Out-r.begin)
	}
	t := &r.track
	if r.opt.OnCut != nil {
		r.opt.OnCut(p.In, p.Out)
	}
	t.any, t.last, t.in, t.point = true, p.Out, p.In, p
	t.open = true
	t.first = historySize
	r.mark = r.w
	if p.Member {
		r.lo = r.w
	}
	if r.mark > r.lo {
		clear(r.mem.window[:])
		return nil
	}
	return r.settle()
}

// far decides about the match r.dist, r.length, which reaches before mark:
// into the history of an open point, which it notes, or else before all
// history: then it returns false.
func (r *Reader) far() bool {
	if r.dist > r.w-r.lo || !r.track.open {
		return false
	}
	src := r.w - r.dist
	r.keep(src, min(src+r.length, r.mark))
	return true
}

// keep puts out[src:end], which ends at or before mark, into the window.
func (r *Reader) keep(src, end int) {
	at := historySize - (r.mark - src)
	copy(r.mem.window[at:], r.out[src:end])
	r.track.first = min(r.track.first, at)
}

// settle hands out the open point, if there is one. When less than 32 KiB of
// the block have followed it, what the missing output might refer to is kept.
func (r *Reader) settle() error {
	t := &r.track
	if !t.open {
		return nil
	}
	if behind := r.w - r.mark; behind < historySize && r.state != atTrailer && r.state != atEnd {
		if src := max(r.lo, r.w-historySize); src < r.mark {
			r.keep(src, r.mark)
		}
	}
	t.open = false
	r.mark = r.lo
	t.point.Window = r.mem.window[t.first:]
	return r.opt.OnPoint(t.point)
}

// packTables describes the block for Point.Tables.
func (r *Reader) packTables() []byte {
	b := r.mem.packed[:0]
	var flags byte
	if r.final {
		flags = 1
	}
	if r.nlit == 0 {
		return append(b, flags)
	}
	return append(append(b, flags, byte(r.nlit-257), byte(r.ndist-1)), r.mem.lens[:r.nlit+r.ndist]...)
}

// unpackTables makes r ready for the symbols of the block that b describes.
func (r *Reader) unpackTables(b []byte) error {
	r.state = inBlock
	r.final = b[0]&1 != 0
	if len(b) == 1 {
		r.useFixed()
		return nil
	}
	if len(b) < 3 || int(b[1])+257 > maxLit || int(b[2])+1 > maxDist {
		return errPoint
	}
	if len(b) != 3+int(b[1])+257+int(b[2])+1 || slices.Max(b[3:]) > 15 {
		return errPoint
	}
	copy(r.mem.lens[:], b[3:])
	return r.useLengths(int(b[1])+257, int(b[2])+1)
}

// Resume returns a Reader that starts at p. src gives the compressed bytes
// from byte p.In/8 on. Offsets, in errors, points and Options.End, are those
// of the whole stream; points are recorded from here on if opt asks for them.
// p is checked, as it may come from a file; its slices must stay unchanged
// until the first read.
func Resume(p Point, src Source, opt Options) *Reader {
	r := NewReader(src, opt)
	r.inOff = p.In / 8
	r.out, r.w = p.Window, len(p.Window)
	r.base = p.Out - int64(len(p.Window))
	r.crc, r.begin = p.CRC, p.Out-int64(p.Size)
	r.summed = r.w
	r.track.any, r.track.last, r.track.in = true, p.Out, p.In
	r.err = r.start(p)
	return r
}

// start makes r ready for what comes at p.
func (r *Reader) start(p Point) error {
	if len(p.Window) > historySize || p.Member && p.In%8 != 0 || p.In < 0 || p.Out < int64(len(p.Window)) {
		return r.place(errPoint)
	}
	if p.Member {
		return nil
	}
	r.members = 1
	r.state = atBlock
	if len(p.Tables) > 0 {
		if err := r.unpackTables(p.Tables); err != nil {
			return r.place(err)
		}
	}
	if r.take(uint64(p.In % 8)); r.short {
		return r.place(r.ended())
	}
	return nil
}
