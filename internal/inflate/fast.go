package inflate

// The fast loop decodes most symbols of a block. It exists twice, line by
// line the same: with pointers in fast_unsafe.go, and with bounds-checked
// slices in fast_checked.go for the build tag purego and for machines that
// are big-endian or refuse unaligned loads. It runs while there is room on
// both sides, so that nothing inside it asks whether there is:
//
//	in   |========p-------------------------|<- inSlack ->|
//	out  |<- history ->|====w---------------|<- outSlack ->|
//	     lo            mark (or lo)         soft
//
// Input. One turn starts with p <= len(in)-inSlack. It refills at most four
// times, each time reading 8 bytes and moving on by at most 7:
// 7+7+7+8 <= inSlack.
//
// Output. One turn starts with w < soft <= len(out)-outSlack. It writes at
// most 3 literals and a match of 258 bytes. A match is copied in pieces of 16
// or 8 bytes, the first four without asking, and so overruns its end by 61 if
// it is short and by 15 if it is long: 3+258+15 <= outSlack. What an overrun
// spoils lies behind the new w, where the next symbols are written.
//
// History. A match reads from w-dist on. That is at or behind mark, or the
// loop stops and Reader.far decides: mark is the first byte of the history
// (lo), or a later one behind which references are being collected.
//
// Refill. bits holds the next nb bits of input, the first in bit 0. Loading 8
// bytes and shifting them in by nb fills it up; of these, (63-nb)/8 whole
// bytes are counted as taken, which leaves nb at 56 to 63. The bits above nb
// are the ones the next refill brings again, so or-ing them in twice does no
// harm. Only the low six bits of nb mean anything inside the loop: shifts look
// at no more, and so a whole entry can be subtracted from it.
//
// Budget. Of 56 bits, three literals of the main table and the index of the
// next entry take 3*12+12; a length, a distance and that index take
// 12+5 + 8+13 + 12. So there is a refill after literals, after each match, and
// where a subtable makes a code longer.
//
// The next entry is loaded before the match is copied, so that its latency
// passes meanwhile; refilling afterwards does not change the bits it took.
const (
	inSlack  = 32
	outSlack = 320
)

// outcome says why a loop stopped.
type outcome int

const (
	atLimit    outcome = iota // too little room on either side
	endOfBlock                // the end-of-block symbol was taken
	endOfInput                // the source has no more (slow loop only)
	badSymbol                 // bits that are no symbol
	tooFar                    // a match from before mark
)
