package index

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// blockSize is the unit of tar: headers are one, content is padded to many.
const blockSize = 512

// Stream hands over the bytes of an uncompressed tar in order. A slice is valid
// until the next call of Next; it may have any length, 0 too. io.EOF comes
// alone, after the last byte.
type Stream interface {
	Next() ([]byte, error)
}

// Skipper is a [Stream] that can leave out bytes without reading them.
type Skipper interface {
	// Skip leaves out the next n bytes, which must be there.
	Skip(n int64) error
}

// Type is what an entry is.
type Type byte

// The types of entries. Contiguous files are regular ones, GNU dump
// directories are directories.
const (
	TypeFile     Type = '0'
	TypeHardLink Type = '1'
	TypeSymlink  Type = '2'
	TypeChar     Type = '3'
	TypeBlock    Type = '4'
	TypeDir      Type = '5'
	TypeFIFO     Type = '6'
)

// String names the type as error messages do.
func (t Type) String() string {
	switch t {
	case TypeFile:
		return "file"
	case TypeHardLink:
		return "hard link"
	case TypeSymlink:
		return "symbolic link"
	case TypeChar:
		return "character device"
	case TypeBlock:
		return "block device"
	case TypeDir:
		return "directory"
	case TypeFIFO:
		return "FIFO"
	}
	return fmt.Sprintf("type %q", byte(t))
}

// Extent is a range [Off, Off+Len) of a sparse file that has content.
type Extent struct{ Off, Len int64 }

// Xattr is an extended attribute of an entry, with its whole name
// ("user.comment").
type Xattr struct{ Name, Value []byte }

// Entry is one member of an archive. Its slices are valid until the next call
// of [TarReader.Next].
type Entry struct {
	Name    []byte // as it stands in the archive: not cleaned, no NUL, not empty
	Link    []byte // target of a link; nil otherwise
	Type    Type
	Mode    uint32 // permission and set-ID bits, [0, 07777]
	UID     int64  // [0, 2^32)
	GID     int64  // [0, 2^32)
	ModTime time.Time
	Major   int64 // of devices
	Minor   int64
	Size    int64 // bytes of the file, holes included; 0 unless Type is TypeFile
	Stored  int64 // bytes of content in the archive; Size unless sparse
	// Sparse are the ranges with content, ascending, not touching each
	// other's bytes, all within [0, Size); their lengths add up to Stored.
	// Nil when the file has no holes.
	Sparse []Extent
	Xattrs []Xattr

	Offset  int64 // in the stream: of the first header block, extensions included
	Content int64 // in the stream: of the first content byte
}

// Errors of a TarReader, wrapped in a *TarError.
var (
	ErrTarCorrupt   = errors.New("corrupt tar archive")
	ErrTarTruncated = errors.New("truncated tar archive")
	ErrTarLimit     = errors.New("tar archive over a limit")
	// ErrTarAmbiguous: readers would understand it in different ways.
	ErrTarAmbiguous = errors.New("ambiguous tar archive")
)

// TarError says what is wrong with an archive, and where.
type TarError struct {
	Offset int64  // in the uncompressed stream; of the entry's first header if it has a name
	Name   string // of the entry, as far as it was known; "" otherwise
	Rule   string // what was expected
	Err    error  // ErrTarCorrupt, ErrTarTruncated, ErrTarLimit or ErrTarAmbiguous
}

func (e *TarError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("%v: entry %q at byte %d: %s", e.Err, e.Name, e.Offset, e.Rule)
	}
	return fmt.Sprintf("%v: at byte %d: %s", e.Err, e.Offset, e.Rule)
}

func (e *TarError) Unwrap() error { return e.Err }

// TarLimits bound what headers may ask for. Zero fields have defaults.
type TarLimits struct {
	Header    int64 // bytes of one extension header (PAX, long name); 1 MiB
	Fragments int   // ranges of one sparse file; 1,000,000
}

const (
	defaultHeaderLimit    = 1 << 20
	defaultFragmentsLimit = 1_000_000

	// What is no content may be this much in all. Extension headers of real
	// archives are below 8 KiB an entry.
	overheadBase     = 1 << 30
	overheadPerEntry = 8 << 10
)

// TarReader reads the entries of a tar stream, one after the other. It is not
// safe for concurrent use. An error ends it: later calls give the same one.
type TarReader struct {
	src    Stream
	limits TarLimits
	rest   []byte // unread bytes of the source's last slice
	off    int64  // stream offset of rest[0]
	left   int64  // unread content bytes of the entry
	pad    int64  // zero to 511 bytes of padding behind them
	err    error

	spent   int64 // bytes that were no content
	entries int64

	entry    Entry
	straddle [blockSize]byte // a block that lies in more than one slice
	name     []byte          // joined prefix and name
	link     []byte
	longName extension // 'L'
	longLink extension // 'K'
	local    extension // 'x'
	global   []byte    // body of the last 'g', checked and ignored
	pax      paxRecords
}

// extension is the body of an extension header that waits for its entry.
type extension struct {
	body    []byte
	pending bool
}

// NewTarReader reads a tar from src.
func NewTarReader(src Stream, limits TarLimits) *TarReader {
	if limits.Header <= 0 {
		limits.Header = defaultHeaderLimit
	}
	if limits.Fragments <= 0 {
		limits.Fragments = defaultFragmentsLimit
	}
	return &TarReader{src: src, limits: limits}
}

// Offset is how many bytes of the stream have been consumed.
func (t *TarReader) Offset() int64 { return t.off }

// Next skips what is left of the current entry's content and reads the next
// entry. io.EOF means that the archive ended as it should: by its end marker
// of zero blocks, or at a header boundary. The entry is valid until the next
// call.
func (t *TarReader) Next() (*Entry, error) {
	if t.err == nil {
		t.err = t.next()
	}
	if t.err != nil {
		return nil, t.err
	}
	return &t.entry, nil
}

func (t *TarReader) next() error {
	if err := t.skip(t.left + t.pad); err != nil {
		return err
	}
	t.left, t.pad = 0, 0
	t.entry = Entry{Xattrs: t.entry.Xattrs[:0]}
	t.longName.pending, t.longLink.pending, t.local.pending = false, false, false
	start := t.off
	for {
		at := t.off
		b, err := t.block()
		if err == io.EOF {
			return t.atEnd(at, io.EOF)
		}
		if err == nil {
			err = t.overhead(blockSize)
		}
		if err != nil {
			return err
		}
		if isZero(b) {
			return t.endMarker(at)
		}
		if !checksumOK(b) {
			return t.corrupt(at, "header checksum does not match")
		}
		switch flag := b[156]; flag {
		case 'L':
			err = t.readExtension(b, &t.longName, "long name")
		case 'K':
			err = t.readExtension(b, &t.longLink, "long link")
		case 'x':
			err = t.readExtension(b, &t.local, "PAX")
		case 'g':
			err = t.readGlobal(b)
		case 'V': // a volume label: a name for the tape, not a member
			err = t.skipMember(b)
		default:
			return t.readEntry(b, start)
		}
		if err != nil {
			return err
		}
	}
}

// endMarker checks what follows a first zero block: another one, or the end.
func (t *TarReader) endMarker(at int64) error {
	b, err := t.block()
	switch {
	case err == io.EOF:
		return t.atEnd(at, io.EOF)
	case err != nil:
		return err
	case !isZero(b):
		return t.corrupt(at, "a lone zero block between entries")
	}
	return t.atEnd(at, io.EOF)
}

// atEnd gives end, unless an extension header waits for an entry.
func (t *TarReader) atEnd(at int64, end error) error {
	if t.longName.pending || t.longLink.pending || t.local.pending {
		return t.corrupt(at, "the archive ends after an extension header, before its entry")
	}
	return end
}

// ReadContent gives the next bytes of the current entry's content as they lie
// in the stream (of a sparse file: its extents, one after the other). io.EOF
// comes alone after the last. The slice is valid until the next call of any
// method.
func (t *TarReader) ReadContent() ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	if t.left == 0 {
		return nil, io.EOF
	}
	for len(t.rest) == 0 {
		if err := t.fill(); err != nil {
			t.err = t.ended(err)
			return nil, t.err
		}
	}
	n := min(int64(len(t.rest)), t.left)
	p := t.rest[:n]
	t.advance(n)
	t.left -= n
	return p, nil
}

// Drain reads the stream to its end: what follows the end marker is padding
// of the archive's blocking, of any content, as every tar treats it. zero says
// whether it was zeros only.
func (t *TarReader) Drain() (zero bool, err error) {
	zero = true
	for p := t.rest; ; {
		for _, c := range p {
			if c != 0 {
				zero = false
				break
			}
		}
		t.off += int64(len(p))
		if err := t.overhead(int64(len(p))); err != nil {
			return zero, err
		}
		if p, err = t.src.Next(); err == io.EOF {
			t.rest = nil
			return zero, nil
		} else if err != nil {
			return zero, err
		}
	}
}

// overhead accounts for n bytes that are no content, so that a stream which is
// nothing but headers or padding comes to an end.
func (t *TarReader) overhead(n int64) error {
	if allowed := overheadBase + t.entries*overheadPerEntry; n <= allowed-t.spent {
		t.spent += n
		return nil
	}
	return &TarError{Offset: t.off, Rule: "headers and padding without end", Err: ErrTarLimit}
}

// fill gets the next slice from the source.
func (t *TarReader) fill() error {
	p, err := t.src.Next()
	if err != nil {
		return err
	}
	t.rest = p
	return nil
}

func (t *TarReader) advance(n int64) {
	t.rest = t.rest[n:]
	t.off += n
}

// skip discards n bytes.
func (t *TarReader) skip(n int64) error {
	for n > 0 {
		if len(t.rest) == 0 {
			if s, ok := t.src.(Skipper); ok {
				if err := s.Skip(n); err != nil {
					return t.ended(err)
				}
				t.off += n
				return nil
			}
			if err := t.fill(); err != nil {
				return t.ended(err)
			}
			continue
		}
		k := min(int64(len(t.rest)), n)
		t.advance(k)
		n -= k
	}
	return nil
}

// block takes the next 512 bytes. io.EOF only when there is not one byte more.
// What it gives lies in the source's slice where it can, and is valid until
// the next call.
func (t *TarReader) block() ([]byte, error) {
	for len(t.rest) == 0 {
		if err := t.fill(); err != nil {
			return nil, err
		}
	}
	if len(t.rest) >= blockSize {
		b := t.rest[:blockSize]
		t.advance(blockSize)
		return b, nil
	}
	if err := t.read(t.straddle[:]); err != nil {
		return nil, err
	}
	return t.straddle[:], nil
}

// read fills p from the stream.
func (t *TarReader) read(p []byte) error {
	for len(p) > 0 {
		if len(t.rest) == 0 {
			if err := t.fill(); err != nil {
				return t.ended(err)
			}
			continue
		}
		n := copy(p, t.rest)
		t.advance(int64(n))
		p = p[n:]
	}
	return nil
}

// ended turns the end of the source, where more was due, into the error it is.
func (t *TarReader) ended(err error) error {
	if err != io.EOF {
		return err
	}
	e := &TarError{Offset: t.off, Rule: "the archive ends in the middle of an entry", Err: ErrTarTruncated}
	if len(t.entry.Name) > 0 {
		e.Offset, e.Name = t.entry.Offset, string(t.entry.Name)
		e.Rule += fmt.Sprintf(", at byte %d", t.off)
	}
	return e
}

// ambiguous makes the error of headers that can be read in two ways.
func (t *TarReader) ambiguous(at int64, format string, args ...any) error {
	return &TarError{Offset: at, Name: string(t.entry.Name), Rule: fmt.Sprintf(format, args...), Err: ErrTarAmbiguous}
}

// corrupt makes the error of a header.
func (t *TarReader) corrupt(at int64, format string, args ...any) error {
	return &TarError{Offset: at, Rule: fmt.Sprintf(format, args...), Err: ErrTarCorrupt}
}

// readerStream makes a Stream of an io.Reader.
type readerStream struct {
	r   io.Reader
	buf []byte
}

// StreamReader makes a Stream that reads from r in pieces of size bytes.
func StreamReader(r io.Reader, size int) Stream {
	return &readerStream{r: r, buf: make([]byte, size)}
}

func (s *readerStream) Next() ([]byte, error) {
	for {
		n, err := s.r.Read(s.buf)
		if n > 0 {
			return s.buf[:n], nil // the error comes again with the next call
		}
		if err != nil {
			return nil, err
		}
	}
}
