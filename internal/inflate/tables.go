package inflate

import (
	"math/bits"
	"strings"
	"sync"
)

// Decoding tables. The next 12 bits of input index lit (8 bits index dist);
// the entry found says everything about what they begin with:
//
//	lit, 32 bits   31  30  29  28     21 20  16 15     8 7         0
//	  literal       1   0   0  value in 23-16            code
//	  length        0   0   0   length-3   mask  code     code+extra
//	  pair          0   0   1   length-3    0    literal  both codes
//	  exceptional   0   1   0  subtable index    subBits  kind
//
//	dist, 64 bits  63     48     31  30         16 15     8 7         0
//	  distance       base         0     mask       code     code+extra
//	  exceptional      0          1  subtable index subBits  kind
//
// ("code" is the length of the code in bits.) The low byte is the number of
// bits that everything the entry stands for takes, extra bits included, so
// that one shift moves on to what follows; the value is
// base + (bits>>code)&mask. Shifts take their count straight from the entry,
// since they look at its low six bits only.
//
// A pair is a literal and the short length that follows it (3 to 10, which
// have no extra bits), when both codes fit the index. A quarter of all
// matches come as the second half of a pair, at the price of one look-up, and
// with one branch less to guess. A length is decoded like a pair: the literal
// is stored in any case, but w moves on by bit 29.
//
// Codes longer than the index go through a subtable behind the main table:
// the exceptional entry of kind kindSub gives its start and how many more
// bits index it. Its entries look like the main ones, with full code lengths.
const (
	litBits  = 12
	distBits = 8
	preBits  = 7

	litMask  = 1<<litBits - 1
	distMask = 1<<distBits - 1

	// With all subtables there are fewer than 4,800 and 402 entries (zlib's
	// examples/enough.c); powers of two let a mask replace a bounds check.
	litSize  = 1 << 13
	distSize = 1 << 10

	litFlag  = 1 << 31
	excFlag  = 1 << 30 // of lit entries
	pairFlag = 1 << 29
	farFlag  = 1 << 31 // of dist entries, the exceptional ones
	kindMask = 0xc0    // above any shift count, in the low byte
	kindSub  = 0x40    // look into a subtable
	kindEnd  = 0x80    // end of block; bits 5-0 are the code's length
	kindBad  = 0xc0    // no symbol has this code

	maxLit  = 286
	maxDist = 30
)

type tables struct {
	lit  [litSize]uint32
	dist [distSize]uint64

	limits
}

// What entries are made of: the entry without its code length, by symbol.
var (
	litBase  [288]uint32
	distBase [32]uint64
	preBase  [19]uint32
)

func init() {
	for i := range preBase {
		preBase[i] = uint32(i) << 16
	}
	for i := range 256 {
		litBase[i] = litFlag | uint32(i)<<16
	}
	litBase[256] = excFlag | kindEnd
	base := uint32(3)
	for i := 257; i < 285; i++ {
		extra := uint32(max(0, (i-261)/4))
		litBase[i] = (base-3)<<21 | (1<<extra-1)<<16 | extra
		base += 1 << extra
	}
	litBase[285] = 255 << 21
	litBase[286], litBase[287] = excFlag|kindBad, excFlag|kindBad
	far := uint64(1)
	for i := range maxDist {
		extra := uint64(max(0, i/2-1))
		distBase[i] = far<<48 | (1<<extra-1)<<16 | extra
		far += 1 << extra
	}
	distBase[30], distBase[31] = farFlag|kindBad, farFlag|kindBad
}

// fixed are the tables of block type 1 (RFC 1951, 3.2.6).
var fixed = sync.OnceValue(func() *tables {
	t := new(tables)
	rep := strings.Repeat
	lens := []uint8(rep("\x08", 144) + rep("\x09", 112) + rep("\x07", 24) + rep("\x08", 8))
	build(t.lit[:], litBits, lens, litBase[:], excFlag)
	build(t.dist[:], distBits, []uint8(rep("\x05", 32)), distBase[:], farFlag)
	return t
})

// build fills table for the canonical Huffman code with the given code
// lengths and reports whether that is a code one may use: complete, or with
// one symbol of one bit, or with no symbol at all (whose every use is then
// refused). This is what zlib and compress/flate accept.
//
// The main table grows by doubling: all codes of length n, and all pairs that
// are n bits long, are entered in a table of 1<<n entries, which is then copied
// behind itself for n+1. That way short codes are replicated by memmove.
func build[E uint32 | uint64](table []E, width int, lens []uint8, base []E, exc E) bool {
	var count [16]int
	for _, n := range lens {
		count[n&15]++
	}
	var next [16]int // where in sorted the symbols of a length go
	left := 1        // codes of this length still free
	longest := 0
	for n := 1; n < 16; n++ {
		next[n] = next[n-1] + count[n-1]
		left = left<<1 - count[n]
		if left < 0 {
			return false
		}
		if count[n] > 0 {
			longest = n
		}
	}
	if left > 0 {
		if longest > 1 {
			return false
		}
		for i := range table[:1<<width] {
			table[i] = exc | kindBad
		}
		if longest == 0 {
			return true
		}
	}
	var sorted [288]uint16
	for sym, n := range lens {
		sorted[next[n&15]] = uint16(sym)
		next[n&15]++
	}
	syms := sorted[count[0]:len(lens)]

	if left > 0 { // one symbol of one bit, 0; the bit 1 stays refused
		for i := 0; i < 1<<width; i += 2 {
			table[i] = base[syms[0]] + 0x101
		}
		return true
	}
	var codes [288]uint16
	code := 0 // bit-reversed, as codes come from the low end of the stream
	for n := 1; n <= width; n++ {
		size := 1 << n
		copy(table[size/2:size], table[:size/2])
		add := E(n) * 0x101
		for range count[n] {
			table[code] = base[syms[0]] + add
			codes[syms[0]] = uint16(code)
			syms = syms[1:]
			code = increment(code, size)
		}
		// Pairs of n bits: every literal of n-m bits before each short length
		// of m bits. next[k] is by now where the symbols longer than k begin.
		for sym := 257; sym < min(265, len(lens)); sym++ {
			m := int(lens[sym])
			if m == 0 || m >= n {
				continue
			}
			k := n - m
			second := int(codes[sym]) << k
			e := pairFlag | E(sym-257)<<21 | E(n)
			for _, lit := range sorted[next[k-1]:next[k]] {
				if lit >= 256 {
					break
				}
				table[second|int(codes[lit])] = e | E(lit)<<8
			}
		}
	}
	if len(syms) == 0 {
		return true
	}
	// Longer codes: one subtable for each prefix that fills the index.
	end, prefix, start, sub := 1<<width, -1, 0, 0
	for n := width + 1; n <= longest; n++ {
		add := E(n) * 0x101
		for left := count[n]; left > 0; left-- {
			if code&(1<<width-1) != prefix {
				prefix = code & (1<<width - 1)
				start = end
				// The subtable is as wide as it takes to hold the codes that
				// are left, of this length and then of longer ones.
				sub = n - width
				for space := left; space < 1<<sub; {
					sub++
					space = space<<1 + count[width+sub]
				}
				end += 1 << sub
				table[prefix] = exc | E(start)<<16 | E(sub)<<8 | kindSub
			}
			e := base[syms[0]] + add
			for i := code >> width; i < 1<<sub; i += 1 << (n - width) {
				table[start+i] = e
			}
			syms = syms[1:]
			code = increment(code, 1<<n)
		}
	}
	return true
}

// increment gives the code after code in canonical order, both bit-reversed,
// among those of size = 1<<length; after the last one it gives 0.
func increment(code, size int) int {
	free := code ^ (size - 1)
	if free == 0 {
		return 0
	}
	top := 1 << (bits.Len(uint(free)) - 1)
	return code&(top-1) | top
}
