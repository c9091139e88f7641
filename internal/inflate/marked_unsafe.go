//go:build !purego && (amd64 || arm64 || ppc64le || riscv64 || loong64)

package inflate

import "unsafe"

const fastMarks = true

// fastMarked is fast with marks: the same loop, line by line, but what is
// written is written plane bytes on, too: r.out and r.marks are parts of one
// array (guess.mem), so fast.go's bounds hold there as well.
func (r *Reader) fastMarked() outcome {
	t := r.tab
	in := unsafe.Pointer(unsafe.SliceData(r.in))
	out := unsafe.Pointer(unsafe.SliceData(r.out))
	p, w := unsafe.Add(in, r.ip), unsafe.Add(out, r.w)
	t.inEnd, t.soft, t.mark = unsafe.Add(in, len(r.in)-inSlack), unsafe.Add(out, r.fastSoft), unsafe.Add(out, r.mark)
	bits, nb := r.bits, r.nb
	res := atLimit

	bits, nb, p = refill(bits, nb, p)
	e := uint64(t.lit[bits&litMask])
	for uintptr(p) <= uintptr(t.inEnd) && uintptr(w) < uintptr(t.soft) {
		if e&litFlag != 0 {
			*(*byte)(w) = byte(e >> 16)
			*(*byte)(unsafe.Add(w, plane)) = 0
			bits >>= e & 63
			nb -= e
			w = unsafe.Add(w, 1)
			e = uint64(t.lit[bits&litMask])
			if e&litFlag != 0 {
				*(*byte)(w) = byte(e >> 16)
				*(*byte)(unsafe.Add(w, plane)) = 0
				bits >>= e & 63
				nb -= e
				w = unsafe.Add(w, 1)
				e = uint64(t.lit[bits&litMask])
				if e&litFlag != 0 {
					*(*byte)(w) = byte(e >> 16)
					*(*byte)(unsafe.Add(w, plane)) = 0
					bits >>= e & 63
					nb -= e
					w = unsafe.Add(w, 1)
					e = uint64(t.lit[bits&litMask])
					bits, nb, p = refill(bits, nb, p)
					continue
				}
			}
			bits, nb, p = refill(bits, nb, p)
		}
		if e&excFlag != 0 {
			bits, nb, p = refill(bits, nb, p)
			if e&kindMask == kindSub {
				e = uint64(t.lit[(e>>16+bits>>litBits&(1<<(e>>8&15)-1))&(litSize-1)])
			}
			if e&litFlag != 0 {
				*(*byte)(w) = byte(e >> 16)
				*(*byte)(unsafe.Add(w, plane)) = 0
				bits >>= e & 63
				nb -= e
				w = unsafe.Add(w, 1)
				e = uint64(t.lit[bits&litMask])
				bits, nb, p = refill(bits, nb, p)
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
		*(*byte)(w) = byte(e >> 8)
		*(*byte)(unsafe.Add(w, plane)) = 0
		w = unsafe.Add(w, e>>29)
		end := unsafe.Add(unsafe.Add(w, e>>21&0xff), saved>>(e>>8&63)&(e>>16&31)+3)
		if d&farFlag != 0 {
			bits, nb, p = refill(bits, nb, p)
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
		bits, nb, p = refill(bits, nb, p)
		dist := uintptr(d>>48 + uint64(uint32(saved>>(d>>8&63))&uint32(d>>16)))
		src := unsafe.Add(w, -int(dist))
		if uintptr(src) < uintptr(t.mark) {
			r.dist, r.length = int(dist), int(uintptr(end)-uintptr(w))
			res = tooFar
			break
		}
		if dist >= 16 {
			*(*[16]byte)(w) = *(*[16]byte)(src)
			*(*[16]byte)(unsafe.Add(w, plane)) = *(*[16]byte)(unsafe.Add(src, plane))
			*(*[16]byte)(unsafe.Add(w, 16)) = *(*[16]byte)(unsafe.Add(src, 16))
			*(*[16]byte)(unsafe.Add(w, plane+16)) = *(*[16]byte)(unsafe.Add(src, plane+16))
			*(*[16]byte)(unsafe.Add(w, 32)) = *(*[16]byte)(unsafe.Add(src, 32))
			*(*[16]byte)(unsafe.Add(w, plane+32)) = *(*[16]byte)(unsafe.Add(src, plane+32))
			*(*[16]byte)(unsafe.Add(w, 48)) = *(*[16]byte)(unsafe.Add(src, 48))
			*(*[16]byte)(unsafe.Add(w, plane+48)) = *(*[16]byte)(unsafe.Add(src, plane+48))
			for w = unsafe.Add(w, 64); uintptr(w) < uintptr(end); w = unsafe.Add(w, 16) {
				*(*[16]byte)(w) = *(*[16]byte)(unsafe.Add(src, 64))
				*(*[16]byte)(unsafe.Add(w, plane)) = *(*[16]byte)(unsafe.Add(src, plane+64))
				src = unsafe.Add(src, 16)
			}
		} else if dist == 1 {
			v := uint64(*(*byte)(src)) * 0x0101010101010101
			h := uint64(*(*byte)(unsafe.Add(src, plane))) * 0x0101010101010101
			for ; uintptr(w) < uintptr(end); w = unsafe.Add(w, 8) {
				*(*uint64)(w) = v
				*(*uint64)(unsafe.Add(w, plane)) = h
			}
		} else if dist >= 8 {
			for ; uintptr(w) < uintptr(end); w, src = unsafe.Add(w, 8), unsafe.Add(src, 8) {
				*(*uint64)(w) = *(*uint64)(src)
				*(*uint64)(unsafe.Add(w, plane)) = *(*uint64)(unsafe.Add(src, plane))
			}
		} else {
			for ; uintptr(w) < uintptr(end); w, src = unsafe.Add(w, dist), unsafe.Add(src, dist) {
				*(*uint64)(w) = *(*uint64)(src)
				*(*uint64)(unsafe.Add(w, plane)) = *(*uint64)(unsafe.Add(src, plane))
			}
		}
		w = end
	}
	t.limits = limits{} // a pooled table must not keep buffers alive
	nb &= 63
	r.ip, r.w = int(uintptr(p)-uintptr(in)), int(uintptr(w)-uintptr(out))
	r.bits, r.nb = bits&(1<<nb-1), nb
	return res
}
