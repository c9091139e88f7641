package inflate

import (
	"encoding/binary"
	"io"
)

// next makes the source's next slice the current one, when all of the
// current one is in the bit buffer. It returns false at the end of the source
// and after its failure; ended then has the error.
func (r *Reader) next() bool {
	for empty := 0; ; empty++ {
		if r.srcErr != nil {
			return false
		}
		if empty == 100 {
			r.srcErr = io.ErrNoProgress
			return false
		}
		r.inOff += int64(len(r.in))
		r.in, r.ip = nil, 0
		r.in, r.srcErr = r.src.Next()
		if len(r.in) > 0 {
			return true
		}
	}
}

// ended is the error for input that ran out inside the stream.
func (r *Reader) ended() error {
	if r.srcErr != nil && r.srcErr != io.EOF {
		return r.srcErr
	}
	return errEnd
}

// bitPos is the compressed bit offset of the first bit not yet taken.
func (r *Reader) bitPos() int64 { return (r.inOff+int64(r.ip))*8 - int64(r.nb) }

// refill brings the bit buffer to at least 48 bits, which lasts for any
// symbol with its extra bits, or to the last bits of the source.
func (r *Reader) refill() {
	if r.nb >= 48 {
		return
	}
	if b := r.in[r.ip:]; len(b) >= 8 {
		r.bits |= binary.LittleEndian.Uint64(b) << r.nb
		r.ip += int(63-r.nb) >> 3
		r.nb |= 56
		return
	}
	for r.nb < 56 && (r.ip < len(r.in) || r.next()) {
		r.bits |= uint64(r.in[r.ip]) << r.nb
		r.ip++
		r.nb += 8
	}
}

// drop takes n bits that the buffer has.
func (r *Reader) drop(n uint64) {
	r.bits >>= n
	r.nb -= n
}

// take takes n bits, at most 48. When the source ends before, it sets short
// and gives 0.
func (r *Reader) take(n uint64) uint64 {
	if r.nb < n {
		if r.refill(); r.nb < n {
			r.short = true
			return 0
		}
	}
	v := r.bits & (1<<n - 1)
	r.drop(n)
	return v
}

// align goes to the next byte boundary.
func (r *Reader) align() { r.drop(r.nb & 7) }

// readByte takes a byte at a byte boundary; ok is false at the end of the
// source or after its failure.
func (r *Reader) readByte() (b byte, ok bool) {
	if r.nb >= 8 {
		b = byte(r.bits)
		r.drop(8)
		return b, true
	}
	r.bits = 0 // bits above nb are bytes from ip on
	if r.ip == len(r.in) && !r.next() {
		return 0, false
	}
	b = r.in[r.ip]
	r.ip++
	return b, true
}
