// Package archivetest makes deterministic archives for tests, tame and
// hostile, and describes directory trees so that they can be compared.
//
// Archives are put together from 512-byte blocks rather than with
// archive/tar, because most of the interesting ones are those that no
// library would write:
//
//	data := archivetest.Gzip(archivetest.Tar(
//		archivetest.Dir("d/"),
//		archivetest.File("d/a.txt", "hello"),
//		archivetest.Entry{Name: "../evil", Body: "x"}.Bytes(),
//	))
//
// Cases is the table of everything that an extractor, an index or a mount
// must accept, with the tree it makes, or refuse, with the reason. List reads
// the tree that really came out.
//
// Nothing in here reads a clock or a random source: the same call gives the
// same bytes.
package archivetest

import (
	"bytes"
	"fmt"
	"strconv"
)

// BlockSize is tar's unit: headers are one block, content is padded to it.
const BlockSize = 512

// MTime is the modification time of entries that set none, in seconds.
const MTime = 1700000000

// A Flavor is a dialect of tar headers.
type Flavor int

// The dialects differ in their magic bytes.
const (
	USTAR Flavor = iota // "ustar\0" "00"
	GNU                 // "ustar  \0"
	V7                  // none
)

// Entry describes one header and its content. The zero values are those of an
// ordinary empty file.
type Entry struct {
	Name, Link   string
	Type         byte  // '0' if zero; use AREGTYPE for the type byte 0
	Mode         int64 // 0644 if zero, 0755 for directories; -1 for mode 0
	UID, GID     int
	MTime        int64 // seconds; MTime if zero
	Body         string
	Size         int64  // what the header says; the body's length if zero
	Flavor       Flavor //
	Uname, Gname string
	// Edit changes the block before its checksum is made, Break after that.
	Edit, Break func(block []byte)
}

// AREGTYPE as Entry.Type stands for the type byte 0, an ordinary file of V7.
const AREGTYPE = 0xff

// Bytes returns the header block and the padded content.
func (e Entry) Bytes() []byte {
	b := make([]byte, BlockSize, BlockSize+len(e.Body)+BlockSize)
	mode, typ, mtime, size := e.Mode, e.Type, e.MTime, e.Size
	if typ == 0 {
		typ = '0'
	}
	switch {
	case mode == -1:
		mode = 0
	case mode == 0 && typ == '5':
		mode = 0o755
	case mode == 0 && typ == '2':
		mode = 0o777
	case mode == 0:
		mode = 0o644
	}
	if mtime == 0 {
		mtime = MTime
	}
	if size == 0 {
		size = int64(len(e.Body))
	}
	copy(b[0:100], e.Name)
	octal(b[100:108], mode)
	octal(b[108:116], int64(e.UID))
	octal(b[116:124], int64(e.GID))
	octal(b[124:136], size)
	octal(b[136:148], mtime)
	b[156] = typ
	if typ == AREGTYPE {
		b[156] = 0
	}
	copy(b[157:257], e.Link)
	switch e.Flavor {
	case USTAR:
		copy(b[257:], "ustar\x0000")
	case GNU:
		copy(b[257:], "ustar  \x00")
	}
	if e.Flavor != V7 {
		copy(b[265:297], e.Uname)
		copy(b[297:329], e.Gname)
	}
	if e.Edit != nil {
		e.Edit(b)
	}
	Checksum(b)
	if e.Break != nil {
		e.Break(b)
	}
	return append(b, Pad(e.Body)...)
}

// octal writes v as tar does: digits and a NUL; too large ones in base 256.
func octal(field []byte, v int64) {
	digits := len(field) - 1
	if v < 0 || v>>(3*digits) > 0 {
		for i := len(field) - 1; i >= 0; i-- {
			field[i] = byte(v)
			v >>= 8
		}
		field[0] |= 0x80
		return
	}
	for i := digits - 1; i >= 0; i-- {
		field[i] = '0' + byte(v&7)
		v >>= 3
	}
}

// Checksum writes the right checksum into a header block.
func Checksum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block[:BlockSize] {
		sum += int(c)
	}
	copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// Pad returns content filled up with zeros to whole blocks.
func Pad(content string) []byte {
	n := (len(content) + BlockSize - 1) / BlockSize * BlockSize
	b := make([]byte, n)
	copy(b, content)
	return b
}

// Zeros returns n blocks of zeros; two of them end an archive.
func Zeros(n int) []byte { return make([]byte, n*BlockSize) }

// Join concatenates.
func Join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// Tar concatenates entries and ends them as an archive should end.
func Tar(entries ...[]byte) []byte { return append(Join(entries...), Zeros(2)...) }

// File is an ordinary file with mode 0644.
func File(name, body string) []byte { return Entry{Name: name, Body: body}.Bytes() }

// Dir is a directory with mode 0755.
func Dir(name string) []byte { return Entry{Name: name, Type: '5'}.Bytes() }

// Symlink is a symbolic link.
func Symlink(name, target string) []byte {
	return Entry{Name: name, Type: '2', Link: target}.Bytes()
}

// HardLink is a hard link to an entry before it.
func HardLink(name, target string) []byte {
	return Entry{Name: name, Type: '1', Link: target}.Bytes()
}

// PAX is an extended header for the entry after it, made of key, value pairs
// in the given order.
func PAX(pairs ...string) []byte {
	return Entry{Name: "PaxHeaders/x", Type: 'x', Body: Records(pairs...)}.Bytes()
}

// GlobalPAX is an extended header for all entries after it.
func GlobalPAX(pairs ...string) []byte {
	return Entry{Name: "PaxHeaders/g", Type: 'g', Body: Records(pairs...)}.Bytes()
}

// Records encodes PAX records: "<length> <key>=<value>\n", where the length
// counts itself.
func Records(pairs ...string) string {
	var all string
	for i := 0; i+1 < len(pairs); i += 2 {
		rest := " " + pairs[i] + "=" + pairs[i+1] + "\n"
		n := len(rest) + 1
		for len(strconv.Itoa(n))+len(rest) > n {
			n++
		}
		all += strconv.Itoa(n) + rest
	}
	return all
}

// LongName is GNU's header for a long name of the entry after it, LongLink
// the one for a long link target.
func LongName(name string) []byte {
	return Entry{Name: "././@LongLink", Type: 'L', Body: name + "\x00", Flavor: GNU}.Bytes()
}

// LongLink is described with LongName.
func LongLink(target string) []byte {
	return Entry{Name: "././@LongLink", Type: 'K', Body: target + "\x00", Flavor: GNU}.Bytes()
}

// Many is an archive of dirs directories with files files of size bytes each,
// for tests that need time to pass and for benchmarks.
func Many(dirs, files, size int) []byte {
	body := make([]byte, size)
	var all [][]byte
	for d := range dirs {
		dir := fmt.Sprintf("dir%05d/", d)
		all = append(all, Dir(dir))
		for f := range files {
			for i := range body {
				body[i] = byte('a' + (d*31+f*7+i*i)%26)
			}
			all = append(all, File(fmt.Sprintf("%sfile%05d.txt", dir, f), string(body)))
		}
	}
	return Tar(all...)
}
