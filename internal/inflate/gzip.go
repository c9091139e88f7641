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
	first, ok := r.readByte()
	switch {
	case !ok && (r.ended() != errEnd || r.members == 0):
		return r.ended()
	case !ok:
		r.state = atEnd
		return nil
	case first == 0 && r.members > 0:
		return r.padding()
	case first != 0x1f:
		return r.noMember()
	}
	if err := r.memberPoint(in); err != nil {
		return err
	}
	h := headerReader{r: r}
	h.add(first)
	id2, err := h.byte()
	if err != nil {
		return err
	}
	if id2 != 0x8b {
		return r.noMember()
	}
	if err := h.rest(); err != nil {
		return err
	}
	r.members++
	r.sum()
	r.crc, r.begin = 0, r.offset()
	r.lo, r.mark = r.w, r.w // a member's matches stay inside it
	r.state = atBlock
	return nil
}

// noMember is the error for bytes that are no gzip header.
func (r *Reader) noMember() error {
	if r.members > 0 {
		return errTail
	}
	return errMagic
}

// padding takes zero bytes to the end of the source.
func (r *Reader) padding() error {
	for {
		b, ok := r.readByte()
		if !ok {
			if r.ended() != errEnd {
				return r.ended()
			}
			r.state = atEnd
			return nil
		}
		if b != 0 {
			return errTail
		}
	}
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
	crc, err := r.take(32)
	if err != nil {
		return err
	}
	size, err := r.take(32)
	if err != nil {
		return err
	}
	r.sum()
	if uint32(crc) != r.crc {
		return errCRC
	}
	if uint32(size) != uint32(r.offset()-r.begin) {
		return errSize
	}
	r.state = atMember
	return nil
}

// headerReader takes the bytes of a gzip header and keeps their checksum.
type headerReader struct {
	r   *Reader
	crc uint32
	n   int
}

func (h *headerReader) add(b byte) {
	// Update would let an array of one byte escape; this is its table's step.
	h.crc = ^(crc32.IEEETable[byte(^h.crc)^b] ^ ^h.crc>>8)
	h.n++
}

func (h *headerReader) byte() (byte, error) {
	if h.n >= maxHeader {
		return 0, errHeaderLong
	}
	b, ok := h.r.readByte()
	if !ok {
		return 0, h.r.ended()
	}
	h.add(b)
	return b, nil
}

func (h *headerReader) skip(n int) error {
	for range n {
		if _, err := h.byte(); err != nil {
			return err
		}
	}
	return nil
}

// rest takes what follows the two magic bytes.
func (h *headerReader) rest() error {
	method, err := h.byte()
	if err != nil {
		return err
	}
	if method != 8 {
		return errMethod
	}
	flags, err := h.byte()
	if err != nil {
		return err
	}
	if flags&flagReserved != 0 {
		return errFlags
	}
	if err := h.skip(6); err != nil { // MTIME, XFL, OS
		return err
	}
	if flags&flagExtra != 0 {
		lo, err := h.byte()
		if err != nil {
			return err
		}
		hi, err := h.byte()
		if err != nil {
			return err
		}
		if err := h.skip(int(hi)<<8 | int(lo)); err != nil {
			return err
		}
	}
	for _, f := range [...]byte{flagName, flagComment} {
		for flags&f != 0 {
			b, err := h.byte()
			if err != nil {
				return err
			}
			if b == 0 {
				break
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(h.crc)
		lo, err := h.byte()
		if err != nil {
			return err
		}
		hi, err := h.byte()
		if err != nil {
			return err
		}
		if uint16(hi)<<8|uint16(lo) != want {
			return errHeaderCRC
		}
	}
	return nil
}
