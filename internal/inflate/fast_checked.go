//go:build purego || !(amd64 || arm64 || ppc64le || riscv64 || loong64)

package inflate

import "encoding/binary"

// The bounds-checked twin of fast_unsafe.go.

type limits struct {
	inEnd, soft, mark int
}

// The three-index slices tell the compiler that what it gets is not empty,
// which saves it some care about the pointer.

func load64(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i : i+8 : i+8]) }

func store64(b []byte, i int, v uint64) { binary.LittleEndian.PutUint64(b[i:i+8:i+8], v) }

func refill(in []byte, bits, nb uint64, p int) (uint64, uint64, int) {
	return bits | load64(in, p)<<(nb&63), nb | 56, p + 7 - int(nb>>3&7)
}

// fast decodes symbols of the block until one side runs short of room or the
// block ends. After badSymbol the state is good for nothing but an error
// message; after tooFar, r.dist and r.length are the match that is left to do.
func (r *Reader) fast() outcome {
	t := r.tab
	in, out := r.in, r.out
	p, w := r.ip, r.w
	t.inEnd, t.soft, t.mark = len(in)-inSlack, r.fastSoft, r.mark
	bits, nb := r.bits, r.nb
	res := atLimit

	bits, nb, p = refill(in, bits, nb, p)
	e := uint64(t.lit[bits&litMask])
	for p <= t.inEnd && w < t.soft {
		if e&litFlag != 0 {
			out[w] = byte(e >> 16)
			bits >>= e & 63
			nb -= e
			w++
			e = uint64(t.lit[bits&litMask])
			if e&litFlag != 0 {
				out[w] = byte(e >> 16)
				bits >>= e & 63
				nb -= e
				w++
				e = uint64(t.lit[bits&litMask])
				if e&litFlag != 0 {
					out[w] = byte(e >> 16)
					bits >>= e & 63
					nb -= e
					w++
					e = uint64(t.lit[bits&litMask])
					bits, nb, p = refill(in, bits, nb, p)
					continue
				}
			}
			bits, nb, p = refill(in, bits, nb, p)
		}
		if e&excFlag != 0 {
			bits, nb, p = refill(in, bits, nb, p)
			if e&kindMask == kindSub {
				e = uint64(t.lit[(e>>16+bits>>litBits&(1<<(e>>8&15)-1))&(litSize-1)])
			}
			if e&litFlag != 0 {
				out[w] = byte(e >> 16)
				bits >>= e & 63
				nb -= e
				w++
				e = uint64(t.lit[bits&litMask])
				bits, nb, p = refill(in, bits, nb, p)
				continue
			}
			if e&excFlag != 0 {
				if e&kindMask == kindEnd {
					bits >>= e & 63
					nb -= e
					res = endOfBlock
				} else {
					res = badSymbol
				}
				break
			}
		}
		saved := bits
		bits >>= e & 63
		d := t.dist[bits&distMask]
		nb -= e
		out[w] = byte(e >> 8)
		w += int(e >> 29)
		end := w + int(e>>21&0xff+saved>>(e>>8&63)&(e>>16&31)+3)
		if d&farFlag != 0 {
			bits, nb, p = refill(in, bits, nb, p)
			if d&kindMask == kindSub {
				d = t.dist[(d>>16+bits>>distBits&(1<<(d>>8&15)-1))&(distSize-1)]
			}
			if d&farFlag != 0 {
				res = badSymbol
				break
			}
		}
		saved = bits
		bits >>= d & 63
		e = uint64(t.lit[bits&litMask])
		nb -= d
		bits, nb, p = refill(in, bits, nb, p)
		dist := int(d>>48 + uint64(uint32(saved>>(d>>8&63))&uint32(d>>16)))
		src := w - dist
		if src < t.mark {
			r.dist, r.length = dist, end-w
			res = tooFar
			break
		}
		if dist == 1 {
			v := uint64(out[src]) * 0x0101010101010101
			for ; w < end; w += 8 {
				store64(out, w, v)
			}
		} else {
			step := min(dist, 8)
			for ; w < end; w, src = w+step, src+step {
				store64(out, w, load64(out, src))
			}
		}
		w = end
	}
	nb &= 63
	r.ip, r.w = p, w
	r.bits, r.nb = bits&(1<<nb-1), nb
	return res
}

// fastMarks: guessing is not worth it without the unsafe loop. (Tests do it with
// the slow loop.)
const fastMarks = false

func (r *Reader) fastMarked() outcome { return atLimit }
