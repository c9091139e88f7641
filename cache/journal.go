package cache

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
)

// The journal of a blob remembers its spans from one life to the next. It is
// records of 32 bytes, little-endian, appended:
//
//	 0  4  span
//	 4  4  length in bytes; 0: the span is no longer there
//	 8  8  offset in the stream
//	16  4  CRC32C of the span's bytes
//	20  8  zero
//	28  4  CRC32C of the directory's name and the 28 bytes before
//
// A record is written after the bytes it speaks of, but nothing is synced, so
// after a power cut one can be there without the other: records are claims.
// A later record of a span replaces an earlier one. A torn record fails its
// checksum, and so does one that strayed here from another blob; the next one
// is found because all lie at multiples of 32. 32 divides the block size of
// every file system, so a record never needs two blocks of a full disk.
//
// A cache that is short of space while nobody has the blob open cuts off the
// end of the data without a word here: the reading of the journal skips spans
// that have a hole.
const recordSize = 32

// compactFrom is the size below which a journal is not worth writing anew.
const compactFrom = 256 << 10

type record struct {
	span int
	size int
	off  int64
	crc  uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// nameSum is what the checksums of a blob's records begin with.
func nameSum(name string) uint32 { return crc32.Checksum([]byte(name), castagnoli) }

func (r record) encode(b []byte, name uint32) {
	_ = b[recordSize-1]
	le := binary.LittleEndian
	le.PutUint32(b[0:], uint32(r.span))
	le.PutUint32(b[4:], uint32(r.size))
	le.PutUint64(b[8:], uint64(r.off))
	le.PutUint32(b[16:], r.crc)
	le.PutUint64(b[20:], 0)
	le.PutUint32(b[28:], crc32.Update(name, castagnoli, b[:28]))
}

// decodeRecord returns false for what no encode has written.
func decodeRecord(b []byte, name uint32) (record, bool) {
	le := binary.LittleEndian
	if le.Uint32(b[28:]) != crc32.Update(name, castagnoli, b[:28]) {
		return record{}, false
	}
	r := record{
		span: int(le.Uint32(b[0:])),
		size: int(le.Uint32(b[4:])),
		off:  int64(le.Uint64(b[8:])),
		crc:  le.Uint32(b[16:]),
	}
	ok := r.span < MaxSpans && r.size <= MaxSpanSize && r.off >= 0 && le.Uint64(b[20:]) == 0
	return r, ok
}

// readJournal calls f with each record that is whole, in order.
func readJournal(f *os.File, name uint32, record func(record)) error {
	buf := make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := f.ReadAt(buf, at)
		for b := buf[:n]; len(b) >= recordSize; b = b[recordSize:] {
			if r, ok := decodeRecord(b, name); ok {
				record(r)
			}
		}
		at += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// appendRecord adds r, and writes the journal anew when it has grown to
// several times of what it has to say. The lock is held.
func (f *files) appendRecord(r record) error {
	fi, err := f.journal.Stat()
	if err != nil {
		return err
	}
	end := (fi.Size() + recordSize - 1) / recordSize * recordSize
	var b [recordSize]byte
	r.encode(b[:], f.sum)
	if _, err := f.journal.WriteAt(b[:], end); err != nil {
		return err
	}
	if uint64(end) < max(f.state.head.compactAt.Load(), compactFrom) {
		return nil
	}
	return f.compact()
}

// compact writes the journal anew, over itself, because other processes have
// it open. Being killed here leaves some new records followed by some old ones
// and loses the spans that are in neither; that is allowed.
func (f *files) compact() error {
	buf := make([]byte, 0, 64<<10)
	end := int64(0)
	flush := func() error {
		_, err := f.journal.WriteAt(buf, end)
		end += int64(len(buf))
		buf = buf[:0]
		return err
	}
	for i := range f.state.taken() {
		s := &f.state.slots[i]
		if s.word.Load()&stateMask != statePresent {
			continue
		}
		off, size, crc := s.place()
		buf = buf[:len(buf)+recordSize]
		record{span: i, size: size, off: off, crc: crc}.encode(buf[len(buf)-recordSize:], f.sum)
		if len(buf) == cap(buf) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := flush(); err != nil {
		return err
	}
	f.state.head.compactAt.Store(uint64(4 * end))
	return f.journal.Truncate(end)
}
