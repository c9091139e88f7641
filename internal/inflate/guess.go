package inflate

import (
	"encoding/binary"
	"math"
)

const (
	// searchStep is how many bits one piece of work searches, and decodeStep
	// how many bytes it decodes.
	searchStep = 32 << 10
	decodeStep = 64 << 10
)

// guess is a row of blocks that is decoded before it is known whether it is
// one. It has a Reader of its own, of bare DEFLATE, that writes marks.
//
//	mem  |<- values 0..32767, marked ->|== block ==|= block =|=== blo
//	     0                             historySize           out     r.w
type guess struct {
	status
	r      Reader
	slabs  []*slab // its input; held
	next   int     // of slabs, for r
	from   int64   // bit at which the search goes on, or found something
	limit  int64   // bit behind which no block begins any more
	mem    *[2 * plane]byte
	values [1 << 16]byte // of bytes with their marks; see learn

	// Guarded by Ahead.mu, as status is, which work gives anew.
	busy bool // somebody works on it
	gone bool // not in the list any more
	held int  // bytes of it that are in parts
}

// status is what others may know of a guess.
type status struct {
	start int64 // bit at which it begins, math.MaxInt64 before that is known
	out   int   // end of the last whole block, in mem ...
	bit   int64 // ... and in the input
	plain int   // from here on in mem there are no marks
	over  bool  // there will be no more
}

// begin makes g ready to search from a byte of input on; no block begins at
// limit or behind it.
func (g *guess) begin(from, limit int64) {
	g.from, g.limit = from*8, limit*8
	g.gone, g.next = false, 0
	if g.mem == nil {
		g.mem = new([2 * plane]byte)
		g.r.opt.Raw = true
		g.r.Reset(g)
		g.r.onlySlow = !fastMarks
		for i := range 256 {
			g.values[i] = byte(i)
		}
		for i := range historySize {
			g.mem[i], g.mem[plane+i] = byte(i), 0x80|byte(i>>8)
		}
	}
	g.status = g.rewind()
}

// rewind forgets what was decoded.
func (g *guess) rewind() status {
	r := &g.r
	r.out, r.marks = g.mem[:historySize+guessOut+outSlack], g.mem[plane:]
	r.w, r.lo, r.mark = historySize, 0, 0
	return status{start: math.MaxInt64, out: historySize, plain: math.MaxInt}
}

// Next is the Source of r: what is already read, and no more.
func (g *guess) Next() ([]byte, error) {
	if g.next == len(g.slabs) {
		return nil, errEnd
	}
	g.next++
	return g.slabs[g.next-1].data, nil
}

// work does a piece and says how g stands then.
func (g *guess) work() status {
	st := g.status
	if st.start == math.MaxInt64 {
		st.over = !g.search(&st)
		return st
	}
	r := &g.r
	full := len(r.out) - outSlack
	for end := min(full, r.w+decodeStep); r.w < end; {
		r.soft, r.fastSoft = end, end
		var err error
		switch r.state {
		case atBlock:
			st.out, st.bit = r.w, r.bitPos()
			st.over = st.bit >= g.limit
			if !st.over {
				err = r.header()
				st.over = r.final // what follows it the reader has to see
			}
		case inBlock:
			err = r.body()
		case inStored:
			err = r.copyStored()
		}
		if err != nil && st.out == historySize { // no block at all
			g.from++
			return g.rewind()
		}
		if st.over = st.over || err != nil; st.over {
			return st
		}
	}
	st.over = r.w >= full
	if r.marks != nil && unmarked(r.marks[r.w-historySize:r.w]) {
		r.marks, st.plain = nil, r.w
	}
	return st
}

// kraft is, for four code lengths of 3 bits each, the sum of 1<<(7-length).
var kraft [1 << 12]uint16

func init() {
	for i := range kraft {
		for k := 0; k < 12; k += 3 {
			if n := i >> k & 7; n > 0 {
				kraft[i] += 1 << (7 - n)
			}
		}
	}
}

// search looks for the header of a dynamic block that is not the last, from
// g.from on. Other blocks it does not know: fixed ones are rare, and stored ones
// tell nothing. Whatever has a complete code of code lengths, one in a few
// hundred bits, is tried. It returns false when the first slab has no more.
func (g *guess) search(st *status) bool {
	const behind = 16 // bytes that are looked at from a bit on
	b, off := g.slabs[0].data, g.slabs[0].off*8
	last := off + int64(len(b)-behind)*8
	for end := min(last, g.from+searchStep); g.from < end; g.from++ {
		i := int(g.from - off)
		v := binary.LittleEndian.Uint64(b[i>>3:]) >> (i & 7)
		if v&7 != 4 || v>>3&31 > maxLit-257 || v>>8&31 >= maxDist {
			continue
		}
		n := int(v>>13&15) + 4
		i += 17
		v = binary.LittleEndian.Uint64(b[i>>3:]) >> (i & 7) & (1<<(3*n) - 1)
		if kraft[v&4095]+kraft[v>>12&4095]+kraft[v>>24&4095]+kraft[v>>36&4095]+kraft[v>>48] != 1<<7 {
			continue
		}
		r := &g.r
		r.in, r.ip, r.inOff, r.srcErr, g.next = b, int(g.from-off)>>3, off/8, nil, 1
		r.bits, r.nb, r.short = 0, 0, false
		r.take(uint64(g.from % 8))
		if r.header() == nil {
			st.start, st.bit = g.from, g.from
			return true
		}
	}
	return g.from < last
}
