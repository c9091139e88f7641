package index

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"
)

// Fields of a header block, as [from, to) byte ranges (POSIX.1-1988 ustar;
// the GNU and star layouts share all but the end).
//
//	0    100  name          257 263 magic       345 500 prefix (ustar)
//	100  108  mode          263 265 version     345 476 prefix (star)
//	108  116  uid           265 297 user name   386 482 sparse map (GNU)
//	116  124  gid           297 329 group name  482 483 "more map follows"
//	124  136  size          329 337 major       483 495 real size (GNU)
//	136  148  mtime         337 345 minor       508 512 "tar\0" (star)
//	148  156  checksum
//	156  157  type
//	157  257  link

// format of one header block.
type format int

const (
	formatV7 format = iota
	formatUSTAR
	formatGNU
	formatSTAR
)

func formatOf(b []byte) format {
	magic, version := b[257:263], b[263:265]
	switch {
	case string(magic) == "ustar\x00" && string(b[508:512]) == "tar\x00":
		return formatSTAR
	case string(magic) == "ustar\x00":
		return formatUSTAR
	case string(magic) == "ustar " && string(version) == " \x00":
		return formatGNU
	}
	return formatV7
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}

// checksumOK compares the checksum field with the sum of the block's bytes,
// its own counted as spaces. Some old tars summed signed bytes.
func checksumOK(b []byte) bool {
	want, ok := parseNumber(b[148:156])
	if !ok {
		return false
	}
	// Eight bytes at a time, in four sums of 16 bits.
	const even = 0x00ff00ff00ff00ff
	var sums uint64
	for p := b[:blockSize]; len(p) >= 8; p = p[8:] {
		v := binary.LittleEndian.Uint64(p)
		sums += v&even + v>>8&even
	}
	unsigned := int64(sums&0xffff + sums>>16&0xffff + sums>>32&0xffff + sums>>48)
	for _, c := range b[148:156] {
		unsigned += ' ' - int64(c)
	}
	if want == unsigned {
		return true
	}
	signed := int64(0)
	for i, c := range b[:blockSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		signed += int64(int8(c))
	}
	return want == signed
}

// IsTarHeader is true when block, of 512 bytes or more, starts with a header
// that a [TarReader] would take: what tells a tar from any other file.
func IsTarHeader(block []byte) bool {
	return len(block) >= blockSize && !isZero(block[:blockSize]) && checksumOK(block[:blockSize])
}

// parseString is a field up to its first NUL. What stands behind the NUL is
// leftover of somebody's buffer, in every tar's reading.
func parseString(f []byte) []byte {
	if i := bytes.IndexByte(f, 0); i >= 0 {
		return f[:i]
	}
	return f
}

// parseNumber reads a number field: octal digits between spaces and NULs, or,
// when the first bit is set, base-256 big-endian two's complement (GNU). An
// empty field is 0.
func parseNumber(f []byte) (int64, bool) {
	if len(f) > 0 && f[0]&0x80 != 0 {
		return parseBase256(f)
	}
	for len(f) > 0 && (f[0] == ' ' || f[0] == 0) {
		f = f[1:]
	}
	for len(f) > 0 && (f[len(f)-1] == ' ' || f[len(f)-1] == 0) {
		f = f[:len(f)-1]
	}
	var n int64
	for i, c := range f {
		// Behind a NUL nothing counts.
		if c == 0 && i > 0 {
			return n, true
		}
		if c < '0' || c > '7' || n > math.MaxInt64>>3 {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

func parseBase256(f []byte) (int64, bool) {
	negative := f[0]&0x40 != 0
	fill := byte(0)
	if negative {
		fill = 0xff
	}
	var n uint64
	for i, c := range f {
		if i == 0 {
			c &= 0x7f
			if negative {
				c |= 0x80
			}
		}
		// Everything above the low 8 bytes must be sign extension.
		if i < len(f)-8 && c != fill {
			return 0, false
		}
		n = n<<8 | uint64(c)
	}
	if (int64(n) < 0) != negative {
		return 0, false
	}
	return int64(n), true
}

// parseSize is a number field that counts bytes.
func (t *TarReader) parseSize(b []byte) (int64, error) {
	n, ok := parseNumber(b[124:136])
	if !ok || n < 0 {
		return 0, t.corrupt(t.off-blockSize, "size field %q is no size", b[124:136])
	}
	return n, nil
}

// padding is what fills n bytes up to a whole block.
func padding(n int64) int64 { return -n & (blockSize - 1) }

// readExtension reads the body of an extension header into e.
func (t *TarReader) readExtension(b []byte, e *extension, what string) error {
	at := t.off - blockSize
	if e.pending {
		return t.ambiguous(at, "two %s headers for one entry", what)
	}
	body, err := t.readBody(b, e.body, what)
	if err != nil {
		return err
	}
	e.body, e.pending = body, true
	if e == &t.local {
		return nil
	}
	// GNU ends a long name with NUL; one inside would hide the rest.
	name := bytes.TrimRight(body, "\x00")
	if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 {
		return t.ambiguous(at, "%s is empty or has a NUL inside", what)
	}
	e.body = name
	return nil
}

// readBody reads a bounded body into buf, grown as needed, and its padding.
func (t *TarReader) readBody(b, buf []byte, what string) ([]byte, error) {
	at := t.off - blockSize
	n, err := t.parseSize(b)
	if err != nil {
		return nil, err
	}
	if n > t.limits.Header {
		return nil, &TarError{Offset: at, Rule: sprintf("%s header of %d bytes, more than %d (max-header)", what, n, t.limits.Header), Err: ErrTarLimit}
	}
	if int64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if err := t.overhead(n); err != nil {
		return nil, err
	}
	if err := t.read(buf); err != nil {
		return nil, err
	}
	return buf, t.skip(padding(n))
}

// skipMember skips the content of an entry whose content is of no use.
func (t *TarReader) skipMember(b []byte) error {
	n, err := t.parseSize(b)
	if err != nil {
		return err
	}
	if err := t.overhead(n); err != nil {
		return err
	}
	return t.skip(n + padding(n))
}

// numberFields are the numbers of every header block.
var numberFields = [5]struct {
	what     string
	from, to int
}{{"mode", 100, 108}, {"uid", 108, 116}, {"gid", 116, 124}, {"size", 124, 136}, {"mtime", 136, 148}}

// readEntry makes the entry of a header block and the extensions before it.
// at is the stream offset of the first of them, which errors tell.
func (t *TarReader) readEntry(b []byte, at int64) error {
	f := formatOf(b)
	e := &t.entry
	e.Offset = at
	t.entries++
	t.readNames(b, f)
	e.Name, e.Link = t.name, t.link

	var fields [5]int64
	for i, field := range numberFields {
		n, ok := parseNumber(b[field.from:field.to])
		if !ok {
			return t.badEntry(at, "%s field %q is no number", field.what, b[field.from:field.to])
		}
		fields[i] = n
	}
	mode, mtime := fields[0], fields[4]
	e.UID, e.GID, e.Size = fields[1], fields[2], fields[3]
	e.Mode = uint32(mode) & 0o7777
	e.ModTime = time.Unix(mtime, 0)
	flag := b[156]
	if f != formatV7 && (flag == '3' || flag == '4') {
		maj, ok1 := parseNumber(b[329:337])
		minor, ok2 := parseNumber(b[337:345])
		if !ok1 || !ok2 {
			return t.badEntry(at, "device numbers are no numbers")
		}
		e.Major, e.Minor = maj, minor
	}

	if t.longName.pending {
		e.Name = t.longName.body
	}
	if t.longLink.pending {
		e.Link = t.longLink.body
	}
	t.pax.reset()
	if t.local.pending {
		if err := t.applyPAX(at, e); err != nil {
			return err
		}
	}
	if err := t.setType(at, e, flag); err != nil {
		return err
	}
	if err := t.checkEntry(at, e); err != nil {
		return err
	}
	e.Stored = e.Size
	if err := t.readSparse(b, at, e, flag, f); err != nil {
		return err
	}
	e.Content = t.off
	t.left, t.pad = e.Stored, 0
	if e.Type == TypeFile {
		// Padding counts from the header: a map in the content (sparse 1.0)
		// is made of whole blocks, so the rest of the content tells it too.
		t.pad = padding(e.Stored)
	}
	if flag == 'D' {
		// A GNU dump directory carries a list of names as content.
		t.left, t.pad = 0, 0
		return t.skipMember(b)
	}
	return nil
}

// readNames joins prefix and name into t.name, and copies the link.
func (t *TarReader) readNames(b []byte, f format) {
	t.name = t.name[:0]
	var prefix []byte
	switch f {
	case formatUSTAR:
		prefix = parseString(b[345:500])
	case formatSTAR:
		prefix = parseString(b[345:476])
	}
	if len(prefix) > 0 {
		t.name = append(append(t.name, prefix...), '/')
	}
	t.name = append(t.name, parseString(b[0:100])...)
	t.link = append(t.link[:0], parseString(b[157:257])...)
}

// setType settles what the entry is.
func (t *TarReader) setType(at int64, e *Entry, flag byte) error {
	switch flag {
	case '0', 0, '7', 'S':
		e.Type = TypeFile
		// V7 has no type for directories: the slash at the end says it. BSD
		// wrote such names with a type, too, and every tar reads them alike.
		if flag != 'S' && len(e.Name) > 0 && e.Name[len(e.Name)-1] == '/' {
			e.Type = TypeDir
		}
	case 'D':
		e.Type, e.Size = TypeDir, 0
	case '1', '2', '3', '4', '5', '6':
		e.Type = Type(flag)
	case 'M':
		return t.badEntry(at, "continues a file of another volume: multi-volume archives are not supported")
	default:
		return t.ambiguous(at, "unknown type %q", flag)
	}
	return nil
}

// checkEntry refuses what is ambiguous or impossible.
func (t *TarReader) checkEntry(at int64, e *Entry) error {
	isLink := e.Type == TypeHardLink || e.Type == TypeSymlink
	switch {
	case len(e.Name) == 0:
		return t.badEntry(at, "has no name")
	case isLink && len(e.Link) == 0:
		return t.badEntry(at, "%s without a target", e.Type)
	case e.Size < 0:
		return t.badEntry(at, "size %d is impossible", e.Size)
	case e.Size > math.MaxInt64-blockSize:
		return &TarError{Offset: at, Name: string(e.Name), Rule: sprintf("size %d is impossible", e.Size), Err: ErrTarLimit}
	case e.Type != TypeFile && e.Size != 0:
		// Some readers skip that many bytes, others none: refuse to guess.
		return t.ambiguous(at, "%s with %d bytes of content", e.Type, e.Size)
	case e.UID < 0 || e.UID > math.MaxUint32 || e.GID < 0 || e.GID > math.MaxUint32:
		return t.badEntry(at, "owner %d:%d is out of range", e.UID, e.GID)
	}
	if !isLink {
		e.Link = nil
	}
	return nil
}

// badEntry is the error of an entry whose name is known.
func (t *TarReader) badEntry(at int64, format string, args ...any) error {
	return &TarError{Offset: at, Name: string(t.entry.Name), Rule: sprintf(format, args...), Err: ErrTarCorrupt}
}
