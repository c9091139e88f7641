package index

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"sync/atomic"
	"syscall"
)

// Index is a complete index, memory-mapped and immutable. All methods but
// Close are safe for concurrent use; after Close none may be called.
//
// Nothing in the file is believed: each access is held against the bounds of
// its section, and each block of 64 KiB against its checksum when the first
// byte of it is used.
type Index struct {
	b       []byte
	mapped  bool
	object  ObjectID
	flags   uint32
	stream  int64
	digest  [sha256.Size]byte
	section [numSections]span64
	rows    uint32
	spans   int
	checked []atomic.Uint32 // a bit for each block whose sum was right
}

// span64 is a range [off, off+n) of the file.
type span64 struct{ off, n uint64 }

// Open maps the index file at path, which must be of the object want (see
// ObjectID.Match). Errors wrap ErrDamaged, ErrMismatch or are the file's.
// It costs the same for a million entries as for one.
func Open(path string, want ObjectID) (*Index, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() < headerSize || st.Size() != int64(int(st.Size())) {
		return nil, fmt.Errorf("open index %s: %w: it has %d bytes", path, ErrDamaged, st.Size())
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(st.Size()), syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("open index %s: mmap: %w", path, err)
	}
	x, err := parse(b, true, want)
	if err != nil {
		syscall.Munmap(b)
		return nil, fmt.Errorf("open index %s: %w", path, err)
	}
	return x, nil
}

// Parse is Open for the bytes of an index file, which must not change.
func Parse(b []byte, want ObjectID) (*Index, error) {
	x, err := parse(b, false, want)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return x, nil
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

func parse(b []byte, mapped bool, want ObjectID) (x *Index, err error) {
	x = &Index{b: b, mapped: mapped}
	defer x.guard(&err)()
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		return nil, damaged("it does not begin as an index does")
	}
	h := b[:headerSize]
	if v := le.Uint32(h[atVersion:]); v != formatVersion {
		return nil, damaged("its format is version %d, this program knows %d", v, formatVersion)
	}
	if crc32.Checksum(h[:atHeaderCRC], castagnoli) != le.Uint32(h[atHeaderCRC:]) {
		return nil, damaged("the header's checksum does not match")
	}
	if n := le.Uint64(h[atFileSize:]); n != uint64(len(b)) {
		return nil, damaged("it has %d bytes, its header says %d", len(b), n)
	}
	x.flags, x.stream = le.Uint32(h[atFlags:]), int64(le.Uint64(h[atStreamSize:]))
	x.object.Size = int64(le.Uint64(h[atObjectSize:]))
	copy(x.digest[:], h[atDigest:])
	if x.flags&^allFlags != 0 || x.stream < 0 || x.object.Size < 0 ||
		x.flags&flagGzip == 0 && x.stream != x.object.Size {
		return nil, damaged("the header makes no sense")
	}
	if err := x.findSections(h); err != nil {
		return nil, err
	}
	for i, dst := range []*string{&x.object.ID, &x.object.ETag, &x.object.SHA256} {
		s, err := x.string(le.Uint32(h[atStrings+4*i:]))
		if err != nil {
			return nil, err
		}
		*dst = string(s)
	}
	if err := want.Match(x.object); err != nil {
		return nil, err
	}
	return x, x.countSpans()
}

// findSections checks the sections' places: in order, without overlaps, whole
// records, block sums for all that comes before them.
func (x *Index) findSections(h []byte) error {
	end := uint64(headerSize)
	for s := range numSections {
		off, n := le.Uint64(h[atSections+16*int(s):]), le.Uint64(h[atSections+16*int(s)+8:])
		size := stride[s]
		if s == secSpans && x.flags&flagGzip == 0 {
			size = 4
		}
		total := uint64(len(x.b))
		if off != (end+7)&^7 || off > total || n > total-off || n%size != 0 {
			return damaged("section %d at %d of %d bytes is not where it should be", s, off, n)
		}
		x.section[s] = span64{off, n}
		end = off + n
	}
	sums := x.section[secSums]
	blocks := (sums.off - headerSize + sumBlock - 1) / sumBlock
	if end != uint64(len(x.b)) || sums.n != 4*blocks ||
		crc32.Checksum(x.b[sums.off:end], castagnoli) != le.Uint32(h[atSumsCRC:]) {
		return damaged("the block sums do not match")
	}
	x.checked = make([]atomic.Uint32, (blocks+31)/32)
	rows := x.section[secRows].n / stride[secRows]
	if rows == 0 || rows > 1<<32-2 {
		return damaged("it has %d rows", rows)
	}
	x.rows = uint32(rows)
	return nil
}

// countSpans finds out how many spans there are, and that they can be those
// of the stream.
func (x *Index) countSpans() error {
	n := x.section[secSpans].n
	if x.flags&flagGzip != 0 {
		x.spans = int(n / stride[secSpans])
		if x.spans == 0 {
			return damaged("a gzip without spans")
		}
		return nil
	}
	x.spans = int((x.stream + plainSpan - 1) / plainSpan)
	want := 0
	if x.flags&flagSums != 0 {
		want = 4 * x.spans
	}
	if n != uint64(want) {
		return damaged("sums for %d spans of %d", n/4, x.spans)
	}
	return nil
}

// get gives bytes [off, off+n) of a section, checked.
func (x *Index) get(s section, off, n uint64) ([]byte, error) {
	sec := x.section[s]
	if off > sec.n || n > sec.n-off {
		return nil, damaged("byte %d of section %d, which has %d", off, s, sec.n)
	}
	off += sec.off
	if n > 0 {
		for k := (off - headerSize) / sumBlock; k <= (off+n-1-headerSize)/sumBlock; k++ {
			if x.checked[k/32].Load()&(1<<(k%32)) == 0 {
				if err := x.checkBlock(k); err != nil {
					return nil, err
				}
			}
		}
	}
	return x.b[off : off+n : off+n], nil
}

// record gives record i of a section.
func (x *Index) record(s section, i uint64) ([]byte, error) {
	if i > 1<<40 {
		return nil, damaged("record %d of section %d", i, s)
	}
	return x.get(s, i*stride[s], stride[s])
}

// checkBlock holds block k against its sum. Two goroutines may do it at once.
func (x *Index) checkBlock(k uint64) error {
	sums := x.section[secSums]
	from := headerSize + k*sumBlock
	to := min(from+sumBlock, sums.off)
	if crc32.Checksum(x.b[from:to], castagnoli) != le.Uint32(x.b[sums.off+4*k:]) {
		return damaged("the checksum of bytes [%d,%d) does not match", from, to)
	}
	x.checked[k/32].Or(1 << (k % 32))
	return nil
}

// string gives the string at at.
func (x *Index) string(at uint32) ([]byte, error) {
	const short = 64 // most names, with their length
	sec := x.section[secStrings]
	b, err := x.get(secStrings, uint64(at), min(short, sec.n-min(uint64(at), sec.n)))
	if err != nil {
		return nil, err
	}
	if s, ok := cutString(b); ok {
		return s, nil
	}
	n, k := uvarint(b)
	if k <= 0 {
		return nil, damaged("string %d has no length", at)
	}
	return x.get(secStrings, uint64(at)+uint64(k), n)
}

// Object is what the index was made of.
func (x *Index) Object() ObjectID { return x.object }

// Digest is the SHA-256 of the index file in hex, as its header says.
func (x *Index) Digest() string { return hex.EncodeToString(x.digest[:]) }

// Size is the bytes of the index file.
func (x *Index) Size() int64 { return int64(len(x.b)) }

// Bytes are the index file's. They must not be changed.
func (x *Index) Bytes() []byte { return x.b }

// Format is what the object is: "tar", "tar.gz", "gz" or "other".
func (x *Index) Format() string {
	switch x.flags & (flagTree | flagGzip) {
	case flagTree | flagGzip:
		return "tar.gz"
	case flagTree:
		return "tar"
	case flagGzip:
		return "gz"
	}
	return "other"
}

// HasSums says whether the spans have checksums: all but those of plain tars
// that were skimmed (see BuildOptions.Skim).
func (x *Index) HasSums() bool { return x.flags&flagSums != 0 }

// StreamSize is the bytes of the uncompressed stream.
func (x *Index) StreamSize() int64 { return x.stream }

// Verify reads all of the index and checks its digest, which Open leaves to
// the sums of the parts that are used. It does not look at the object.
func (x *Index) Verify() (err error) {
	defer x.guard(&err)()
	h := bytes.Clone(x.b[:headerSize])
	clear(h[atDigest : atDigest+sha256.Size])
	clear(h[atHeaderCRC:])
	d := sha256.New()
	d.Write(x.b[headerSize:])
	d.Write(h)
	if got := d.Sum(nil); !bytes.Equal(got, x.digest[:]) {
		return damaged("its digest is %x, the header says %x", got, x.digest)
	}
	for k := range x.section[secSums].n / 4 {
		if err := x.checkBlock(k); err != nil {
			return err
		}
	}
	return nil
}

// Close unmaps the file.
func (x *Index) Close() error {
	if !x.mapped {
		return nil
	}
	x.mapped = false
	return syscall.Munmap(x.b)
}
