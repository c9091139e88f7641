package archivetest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"sort"
)

// largeFile is the size of a Large's large files.
const largeFile = 4 << 20

// Large is a .tar.gz of any size that takes little memory: large files, half
// of them words and half noise, which are all the same, and before each a small
// one, which are not. It is one gzip member of ordinary deflate blocks. It is
// an io.ReaderAt, and safe for concurrent use.
type Large struct {
	files  int
	pieces []largePiece
	size   int64
}

type largePiece struct {
	off  int64
	data []byte
}

// NewLarge makes one that is at least of that size, compressed.
func NewLarge(seed uint64, size int64) *Large {
	a := &Large{}
	a.add([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255})
	rnd := rand.New(rand.NewPCG(seed, 0))
	var body bytes.Buffer
	for body.Len() < largeFile/2 {
		fmt.Fprintf(&body, "%x ", rnd.IntN(1<<(1+rnd.IntN(30))))
	}
	noise := make([]byte, largeFile)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(noise)
	body.Write(noise[body.Len():])
	plain, packed := body.Bytes(), deflated(body.Bytes())
	sum, n := crc32.NewIEEE(), int64(0)
	add := func(plain, packed []byte) {
		sum.Write(plain)
		n += int64(len(plain))
		a.add(packed)
	}
	for ; a.size < size; a.files++ {
		head := Join(
			File(a.Small(a.files)),
			Entry{Name: fmt.Sprintf("large/%d", a.files), Size: largeFile}.Bytes())
		add(head, deflated(head))
		add(plain, packed)
	}
	end := Zeros(2)
	add(end, deflated(end))
	tail := []byte{3, 0} // an empty block, the last
	tail = binary.LittleEndian.AppendUint32(tail, sum.Sum32())
	a.add(binary.LittleEndian.AppendUint32(tail, uint32(n)))
	return a
}

// Files is how many small files it has, and how many large ones.
func (a *Large) Files() int { return a.files }

// Small gives name and content of a small file.
func (a *Large) Small(i int) (name, content string) {
	return fmt.Sprintf("small/%d", i), fmt.Sprintf("this is the small file %d\n", i)
}

func (a *Large) add(p []byte) {
	a.pieces = append(a.pieces, largePiece{a.size, p})
	a.size += int64(len(p))
}

// deflated is p as blocks that end with a byte, and of which none is the last.
func deflated(p []byte) []byte {
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, err = w.Write(p)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// Size is its number of bytes.
func (a *Large) Size() int64 { return a.size }

// Reader reads it from the start.
func (a *Large) Reader() *io.SectionReader { return io.NewSectionReader(a, 0, a.size) }

// ReadAt is io.ReaderAt's.
func (a *Large) ReadAt(b []byte, off int64) (n int, err error) {
	i := sort.Search(len(a.pieces), func(i int) bool { return a.pieces[i].off > off }) - 1
	for ; n < len(b) && i >= 0 && i < len(a.pieces); i++ {
		p := a.pieces[i]
		if at := off + int64(n) - p.off; at <= int64(len(p.data)) {
			n += copy(b[n:], p.data[at:])
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
