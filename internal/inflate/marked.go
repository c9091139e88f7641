package inflate

import "encoding/binary"

// A guess does not know the 32 KiB before it. So its output has two planes: the
// bytes, and for each a mark.
//
//	bytes  | i & 255       |  h   e   l   l  17  18  19 | ...
//	marks  | 128 | i >> 8  |  0   0   0   0 130 130 130 | ...
//	       |<- history --->|        ^ known      ^ copied from history
//
// Before it begins, both hold the number i of each byte of the history, with the
// upper bit of the mark set. Literals have the mark 0, and matches copy both
// planes. So the mark of a byte is 0 if it is what it says, and else both
// together say which byte of the history it is a copy of. Marks die out as
// literals take the place of copies: once 32 KiB have none, nothing that
// follows can have one, and the guess goes on as a Reader does.
//
// (Others write one plane of 16-bit symbols. With two the bytes are where they
// belong when the marks are gone, and eight marks are looked at at once.)
const (
	// guessOut is the most that a guess decodes, in bytes.
	guessOut = 5 << 19
	// plane is from a byte to its mark: all of the output, and an odd number of
	// cache lines, so that the two do not compete for one place in the cache.
	plane = historySize + guessOut + outSlack + 65*64 - outSlack%64
)

func unmarked(marks []byte) bool {
	for i := len(marks); i >= 8; i -= 8 {
		if binary.LittleEndian.Uint64(marks[i-8:]) != 0 {
			return false
		}
	}
	return true
}

// learn takes the 32 KiB before the guess: values, by mark and byte, are what
// is meant.
func (g *guess) learn(window []byte) { copy(g.values[1<<16-historySize:], window) }

// resolve puts in what was unknown in p, which is a copy of mem[at:] or itself.
func (g *guess) resolve(p []byte, at int) {
	n := min(len(p), max(0, g.plain-at))
	p, marks := p[:n], g.mem[plane+at:plane+at+n]
	i := 0
	for ; i+8 <= len(marks); i += 8 {
		m := binary.LittleEndian.Uint64(marks[i:])
		if m == 0 {
			continue
		}
		v, q := &g.values, (*[8]byte)(p[i:])
		q[0] = v[uint16(m<<8)|uint16(q[0])]
		q[1] = v[uint16(m)&0xff00|uint16(q[1])]
		q[2] = v[uint16(m>>8)&0xff00|uint16(q[2])]
		q[3] = v[uint16(m>>16)&0xff00|uint16(q[3])]
		q[4] = v[uint16(m>>24)&0xff00|uint16(q[4])]
		q[5] = v[uint16(m>>32)&0xff00|uint16(q[5])]
		q[6] = v[uint16(m>>40)&0xff00|uint16(q[6])]
		q[7] = v[uint16(m>>48)&0xff00|uint16(q[7])]
	}
	for ; i < len(marks); i++ {
		p[i] = g.values[uint16(marks[i])<<8|uint16(p[i])]
	}
}

// last gives the 32 KiB before out, resolved.
func (g *guess) last(window []byte) {
	k := min(g.out-historySize, historySize)
	copy(window, g.values[1<<16-historySize+k:])
	end := window[historySize-k:]
	copy(end, g.mem[g.out-k:g.out])
	g.resolve(end, g.out-k)
}
