package inflate

import "hash/crc32"

// A gzip file is any number of members (RFC 1952):
//
//	1f 8b 08 FLG MTIME(4) XFL OS | [XLEN(2) EXTRA] [NAME 0] [COMMENT 0] [CRC16] | DEFLATE | CRC32 ISIZE
//
// FLG says which of the bracketed fields are there. Zero bytes may pad the
// last member (tapes and some uploaders do); nothing else may follow it.
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 0xe0

	maxHeader = 1 << 20 // of one member, against names without end
)

// member takes a gzip header, or finds the end of the stream.
func (r *Reader) member() error {
	in := r.bitPos()
	bad := errMagic
	first, ok := r.readByte()
	if r.members > 0 {
		for bad = errTail; ok && first == 0; in = -1 { // padding, which only more of it may follow
			first, ok = r.readByte()
		}
		if !ok && r.ended() == errEnd {
			r.state = atEnd
			return nil
		}
	}
	if !ok {
		return r.ended()
	}
	if in < 0 || first != 0x1f {
		return bad
	}
	if err := r.memberPoint(in); err != nil {
		return err
	}
	h := headerReader{r: r}
	h.add(first)
	if id2 := h.byte(); h.err == nil && id2 != 0x8b {
		return bad
	}
	if err := h.rest(); err != nil {
		return err
	}
	r.members++
	r.sum()
	r.crc, r.begin, r.begun = 0, r.offset(), r.w
	r.lo, r.mark = r.w, r.w // a member's matches stay inside it
	r.state = atBlock
	return nil
}

// trailer checks a member's end.
func (r *Reader) trailer() error {
	if err := r.settle(); err != nil { // no later member sees its history
		return err
	}
	if r.opt.Raw {
		r.state = atEnd
		return nil
	}
	r.align()
	crc, size := r.take(32), r.take(32)
	if r.short {
		return r.ended()
	}
	r.sum()
	if r.late {
		r.endLate(uint32(crc))
	}
	switch {
	case r.opt.Unchecked:
	case uint32(crc) != r.crc:
		return errCRC
	case uint32(size) != uint32(r.offset()-r.begin):
		return errSize
	}
	r.state = atMember
	return nil
}

// headerReader takes the bytes of a gzip header and keeps their checksum.
// After an error it gives zeros.
type headerReader struct {
	r   *Reader
	crc uint32
	n   int
	err error
}

func (h *headerReader) add(b byte) {
	// Update would let an array of one byte escape; this is its table's step.
	h.crc = ^(crc32.IEEETable[byte(^h.crc)^b] ^ ^h.crc>>8)
	h.n++
}

func (h *headerReader) byte() byte {
	if h.n >= maxHeader {
		h.err = errHeaderLong
	}
	if h.err != nil {
		return 0
	}
	b, ok := h.r.readByte()
	if !ok {
		h.err = h.r.ended()
		return 0
	}
	h.add(b)
	return b
}

// number takes two bytes, the low one first.
func (h *headerReader) number() int {
	lo := int(h.byte())
	return int(h.byte())<<8 | lo
}

func (h *headerReader) skip(n int) {
	for range n {
		h.byte()
	}
}

// rest takes what follows the two magic bytes.
func (h *headerReader) rest() error {
	method, flags := h.byte(), h.byte()
	switch {
	case h.err != nil:
		return h.err
	case method != 8:
		return errMethod
	case flags&flagReserved != 0:
		return errFlags
	}
	h.skip(6) // MTIME, XFL, OS
	if flags&flagExtra != 0 {
		h.skip(h.number())
	}
	for _, f := range [...]byte{flagName, flagComment} {
		for flags&f != 0 && h.byte() != 0 {
		}
	}
	if want := h.crc & 0xffff; flags&flagHeaderCRC != 0 && h.number() != int(want) && h.err == nil {
		return errHeaderCRC
	}
	return h.err
}
