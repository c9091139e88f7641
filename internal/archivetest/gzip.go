package archivetest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"hash/crc32"
)

// Gzip compresses data into one member without name or time.
func Gzip(data []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Members compresses each part into a member of its own, as pigz, bgzip and
// "cat a.gz b.gz" do.
func Members(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, Gzip(p)...)
	}
	return all
}

// Member is a gzip member whose every field can be wrong.
type Member struct {
	Data   []byte
	Method byte   // 8, deflate, if zero
	Flags  byte   // of the header
	Fields []byte // that the flags announce, between header and data
	CRC    uint32 // added to the right one
	Length uint32 // added to the right one
}

// Bytes returns the member.
func (m Member) Bytes() []byte {
	method := m.Method
	if method == 0 {
		method = 8
	}
	var b bytes.Buffer
	b.Write([]byte{0x1f, 0x8b, method, m.Flags, 0, 0, 0, 0, 0, 255})
	b.Write(m.Fields)
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err != nil {
		panic(err)
	}
	if _, err := w.Write(m.Data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	var trailer [8]byte
	binary.LittleEndian.PutUint32(trailer[0:], crc32.ChecksumIEEE(m.Data)+m.CRC)
	binary.LittleEndian.PutUint32(trailer[4:], uint32(len(m.Data))+m.Length)
	b.Write(trailer[:])
	return b.Bytes()
}

// Flip returns data with one bit flipped, counted from the end if negative.
func Flip(data []byte, bit int) []byte {
	data = bytes.Clone(data)
	if bit < 0 {
		bit += 8 * len(data)
	}
	data[bit/8] ^= 1 << (bit % 8)
	return data
}

// headerCRC is the optional field that the flag of a header CRC announces.
func headerCRC(flags byte) []byte {
	sum := crc32.ChecksumIEEE([]byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255})
	return []byte{byte(sum), byte(sum >> 8)}
}
