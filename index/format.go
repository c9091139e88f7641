package index

import (
	"encoding/binary"
	"hash/crc32"
)

// The file's layout is drawn in doc.go. Here are its numbers, and how rows are
// put into bytes and taken out of them. Everything is little-endian.
const (
	magic         = "OBJMIDX\n"
	formatVersion = 1

	headerSize = 512
	// sumBlock is how many bytes of the file one block sum covers: what is
	// checked when the first byte of it is used.
	sumBlock = 64 << 10

	// Places in the header.
	atVersion    = 8
	atFlags      = 12
	atFileSize   = 16
	atObjectSize = 24
	atStreamSize = 32
	atSumsCRC    = 40
	atStrings    = 44 // three strings: object id, ETag, SHA-256
	atDigest     = 56
	atSections   = 96
	atHeaderCRC  = headerSize - 4
)

// The header's flags.
const (
	flagGzip = 1 << iota // the object is a gzip; else the stream is the object
	flagTree             // the stream is a tar; else row 0 is a file
	flagSums             // spans have checksums
	allFlags = 1<<iota - 1
)

// The sections, in the order in which they lie in the file, each at a multiple
// of 8.
type section int

const (
	secRows section = iota
	secChildren
	secStrings
	secClasses
	secExtras
	secXattrs
	secPieces
	secSpans
	secWindows
	secSums
	numSections
)

// stride is the size of a section's records.
var stride = [numSections]uint64{
	secRows: 48, secChildren: 4, secStrings: 1, secClasses: 12, secExtras: 24, secXattrs: 8,
	secPieces: 24, secSpans: 44, secWindows: 1, secSums: 4,
}

var (
	le         = binary.LittleEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// classTimed is the bit of a class's first word that says that a time is an
// entry's. The type is in its highest byte, the mode in the lowest 12 bits.
const classTimed = 1 << 16

func (r *row) append(b []byte) []byte {
	for _, v := range [...]uint32{r.parent, r.name, r.class, r.extra, r.data, r.nsec} {
		b = le.AppendUint32(b, v)
	}
	b = le.AppendUint64(b, uint64(r.sec))
	b = le.AppendUint64(b, uint64(r.size))
	return le.AppendUint64(b, uint64(r.content))
}

func parseRow(b []byte) row {
	_ = b[47]
	return row{
		parent: le.Uint32(b), name: le.Uint32(b[4:]), class: le.Uint32(b[8:]), extra: le.Uint32(b[12:]),
		data: le.Uint32(b[16:]), nsec: le.Uint32(b[20:]), sec: int64(le.Uint64(b[24:])),
		size: int64(le.Uint64(b[32:])), content: int64(le.Uint64(b[40:])),
	}
}

func (c class) append(b []byte) []byte {
	v := uint32(c.typ)<<24 | uint32(c.mode)
	if c.timed {
		v |= classTimed
	}
	b = le.AppendUint32(b, v)
	b = le.AppendUint32(b, c.uid)
	return le.AppendUint32(b, c.gid)
}

func parseClass(b []byte) class {
	_ = b[11]
	v := le.Uint32(b)
	return class{
		typ: Type(v >> 24), timed: v&classTimed != 0, mode: uint16(v & 0o7777),
		uid: le.Uint32(b[4:]), gid: le.Uint32(b[8:]),
	}
}

func (x extra) append(b []byte) []byte {
	var flags uint32
	if x.sparse {
		flags = 1
	}
	for _, v := range [...]uint32{x.nlink, flags, x.xattrs, x.nxattrs, x.pieces, x.npieces} {
		b = le.AppendUint32(b, v)
	}
	return b
}

func parseExtra(b []byte) extra {
	_ = b[23]
	return extra{
		nlink: le.Uint32(b), sparse: le.Uint32(b[4:])&1 != 0, xattrs: le.Uint32(b[8:]),
		nxattrs: le.Uint32(b[12:]), pieces: le.Uint32(b[16:]), npieces: le.Uint32(b[20:]),
	}
}

func (p Piece) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(p.Off))
	b = le.AppendUint64(b, uint64(p.Stream))
	return le.AppendUint64(b, uint64(p.Len))
}

func parsePiece(b []byte) Piece {
	_ = b[23]
	return Piece{Off: int64(le.Uint64(b)), Stream: int64(le.Uint64(b[8:])), Len: int64(le.Uint64(b[16:]))}
}

// spanRow is a row of the table of spans: where a span begins in the stream,
// its checksum, and the resume point there. Its window and its code lengths,
// one behind the other and compressed, are bytes [at, at+packed) of the section
// of windows.
type spanRow struct {
	out, in        int64 // stream bytes; bits of the object
	sum            uint32
	crc, size      uint32 // of the gzip member before the point
	member         bool
	tables, window uint16 // bytes of each
	packed         uint16
	at             uint64
}

func (s *spanRow) append(b []byte) []byte {
	b = le.AppendUint64(b, uint64(s.out))
	b = le.AppendUint64(b, uint64(s.in))
	var flags uint16
	if s.member {
		flags = 1
	}
	b = le.AppendUint32(b, s.sum)
	b = le.AppendUint32(b, s.crc)
	b = le.AppendUint32(b, s.size)
	b = le.AppendUint16(b, flags)
	b = le.AppendUint16(b, s.tables)
	b = le.AppendUint16(b, s.window)
	b = le.AppendUint16(b, s.packed)
	return le.AppendUint64(b, s.at)
}

func parseSpan(b []byte) spanRow {
	_ = b[43]
	return spanRow{
		out: int64(le.Uint64(b)), in: int64(le.Uint64(b[8:])), sum: le.Uint32(b[16:]),
		crc: le.Uint32(b[20:]), size: le.Uint32(b[24:]), member: le.Uint16(b[28:])&1 != 0,
		tables: le.Uint16(b[30:]), window: le.Uint16(b[32:]), packed: le.Uint16(b[34:]), at: le.Uint64(b[36:]),
	}
}

func appendUvarint(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

// cutString splits off the string that b begins with.
func cutString(b []byte) (s []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, false
	}
	return b[k : k+int(n)], true
}

func uvarint(b []byte) (uint64, int) { return binary.Uvarint(b) }
