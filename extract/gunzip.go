package extract

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// gunzip decodes a gzip stream of one or more members (RFC 1952) and is
// strict about what surrounds the compressed data, which gzip libraries are
// not: reserved flag bits and unknown methods are refused, every member's
// CRC-32 and length are checked, a header CRC too, and after the last member
// only zero bytes may follow (tapes and blocked devices pad so).
//
//	member:  1f 8b 08 flags mtime(4) xfl os  [extra] [name] [comment] [hcrc]
//	         deflate data
//	         crc32(4) length mod 2^32(4)
//
// io.EOF means that the source, too, is at its end. Errors wrap ErrCorrupt;
// an error of the source itself comes through as it is.
type gunzip struct {
	src     *bufio.Reader // an io.ByteReader, so that flate never reads past its data
	inflate io.ReadCloser
	open    bool // within a member's data
	members int
	crc     uint32
	length  uint32 // of the member so far, modulo 2^32 as in the trailer
	err     error
}

func newGunzip(src *bufio.Reader) *gunzip {
	return &gunzip{src: src, inflate: flate.NewReader(src)}
}

var gzipMagic = []byte{0x1f, 0x8b, 0x08}

const (
	gzipHeaderCRC = 1 << 1
	gzipExtra     = 1 << 2
	gzipName      = 1 << 3
	gzipComment   = 1 << 4
	gzipReserved  = 0xe0
)

// Read implements io.Reader.
func (z *gunzip) Read(p []byte) (int, error) {
	for z.err == nil {
		if !z.open {
			z.err = z.nextMember()
			continue
		}
		n, err := z.inflate.Read(p)
		z.crc = crc32.Update(z.crc, crc32.IEEETable, p[:n])
		z.length += uint32(n)
		switch {
		case err == io.EOF:
			z.open = false
			z.err = z.trailer()
		case err != nil:
			z.err = z.damaged(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

// nextMember reads the next member's header, or finds the end.
func (z *gunzip) nextMember() error {
	first, err := z.src.ReadByte()
	if err != nil {
		if err == io.EOF && z.members == 0 {
			return fmt.Errorf("%w: gzip: empty", ErrCorrupt)
		}
		return err
	}
	if first == 0 && z.members > 0 {
		return z.padding()
	}
	head := [10]byte{first}
	if _, err := io.ReadFull(z.src, head[1:3]); err != nil && !isEOF(err) {
		return err
	}
	if [3]byte(head[:3]) != [3]byte(gzipMagic) {
		if z.members > 0 {
			return fmt.Errorf("%w: gzip: garbage after the end of the data", ErrCorrupt)
		}
		return fmt.Errorf("%w: gzip: bad magic", ErrCorrupt)
	}
	if _, err := io.ReadFull(z.src, head[3:]); err != nil {
		return z.damaged(err)
	}
	flags := head[3]
	if flags&gzipReserved != 0 {
		return fmt.Errorf("%w: gzip: reserved flag bits %#02x are set", ErrCorrupt, flags&gzipReserved)
	}
	if err := z.optionalFields(flags, crc32.ChecksumIEEE(head[:])); err != nil {
		return err
	}
	z.members++
	z.open, z.crc, z.length = true, 0, 0
	return z.inflate.(flate.Resetter).Reset(z.src, nil)
}

// optionalFields skips extra field, name and comment, and checks the header's
// CRC when there is one. crc is that of the fixed part.
func (z *gunzip) optionalFields(flags byte, crc uint32) error {
	next := func() (byte, error) {
		b, err := z.src.ReadByte()
		if err != nil {
			return 0, z.damaged(err)
		}
		crc = crc32.Update(crc, crc32.IEEETable, []byte{b})
		return b, nil
	}
	skipString := func() error {
		// RFC 1952 has no bound; what gzip writes here is a file name.
		for range 1 << 16 {
			if b, err := next(); err != nil || b == 0 {
				return err
			}
		}
		return fmt.Errorf("%w: gzip: a name or comment of more than 64 KiB", ErrCorrupt)
	}
	if flags&gzipExtra != 0 {
		lo, err := next()
		if err != nil {
			return err
		}
		hi, err := next()
		if err != nil {
			return err
		}
		for range int(hi)<<8 | int(lo) {
			if _, err := next(); err != nil {
				return err
			}
		}
	}
	if flags&gzipName != 0 {
		if err := skipString(); err != nil {
			return err
		}
	}
	if flags&gzipComment != 0 {
		if err := skipString(); err != nil {
			return err
		}
	}
	if flags&gzipHeaderCRC != 0 {
		want := uint16(crc)
		lo, err := next()
		if err != nil {
			return err
		}
		hi, err := next()
		if err != nil {
			return err
		}
		if uint16(hi)<<8|uint16(lo) != want {
			return fmt.Errorf("%w: gzip: the header's checksum does not match", ErrCorrupt)
		}
	}
	return nil
}

func (z *gunzip) trailer() error {
	var b [8]byte
	if _, err := io.ReadFull(z.src, b[:]); err != nil {
		return z.damaged(err)
	}
	le32 := func(b []byte) uint32 {
		return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	}
	if le32(b[:4]) != z.crc {
		return fmt.Errorf("%w: gzip: checksum does not match: the data is damaged", ErrCorrupt)
	}
	if le32(b[4:]) != z.length {
		return fmt.Errorf("%w: gzip: length does not match: the data is damaged", ErrCorrupt)
	}
	return nil
}

// padding reads zeros to the end of the source.
func (z *gunzip) padding() error {
	for {
		b, err := z.src.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return fmt.Errorf("%w: gzip: garbage after the end of the data", ErrCorrupt)
		}
	}
}

// damaged explains an error in the middle of a member.
func (z *gunzip) damaged(err error) error {
	var bad flate.CorruptInputError
	switch {
	case isEOF(err):
		return fmt.Errorf("%w: gzip: truncated: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	case errors.As(err, &bad):
		return fmt.Errorf("%w: gzip: bad compressed data: %v", ErrCorrupt, err)
	}
	return err
}

func isEOF(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
