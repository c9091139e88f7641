package extract

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// entryKind is what an entry of an archive makes. All other types of tar are
// refused or skipped by members.
type entryKind byte

const (
	entryFile entryKind = iota
	entryDir
	entrySymlink
	entryHardLink
)

// entry is one member of an archive after the rules of names have been
// applied: name and, for a hard link, link are clean paths below the root.
type entry struct {
	kind   entryKind
	name   string
	link   string // target of a link; a symbolic one as it is in the archive
	size   int64  // of a file's content, holes included
	sparse bool
	mode   uint32 // permission bits; with the sticky bit on directories
	mtime  unix.Timespec
	uid    int
	gid    int

	rawName string // as in the archive
	offset  int64  // of the first header, in the uncompressed stream
}

// members reads the entries of a tar stream. The tar format itself is
// archive/tar's business; here are the rules that it does not have, and an
// account of the bytes so that errors can say where.
//
// next gives an entry, and Read its content, all of which must be read before
// the following next. finish reads what follows the end marker.
type members struct {
	in      *meter
	tar     *tar.Reader
	lim     Limits
	entries int64 // of all kinds
	skipped int64
}

// meter counts the bytes that the tar reader takes, and knows whether any of
// them was other than zero since mark was last cleared.
type meter struct {
	r       io.Reader
	n       int64
	watch   bool
	nonzero bool

	// Content is paid for by the budget. Headers, padding and what follows
	// the end are not, so they have a bound of their own against streams that
	// are nothing else: 1 GiB and 8 KiB for each entry.
	overhead, allowed int64
}

const (
	overheadBase     = 1 << 30
	overheadPerEntry = 8 << 10
)

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.watch {
		m.nonzero = m.nonzero || !allZero(p[:n])
		if m.overhead += int64(n); m.overhead > m.allowed {
			return n, fmt.Errorf("%w: more than %d bytes of tar headers, padding and bytes after the end",
				ErrLimit, m.allowed)
		}
	}
	return n, err
}

func newMembers(r io.Reader, lim Limits) *members {
	in := &meter{r: r, allowed: overheadBase}
	return &members{in: in, tar: tar.NewReader(in), lim: lim}
}

// Read reads the content of the current entry.
func (m *members) Read(p []byte) (int, error) {
	n, err := m.tar.Read(p)
	if err != nil && err != io.EOF {
		err = m.damaged(err)
	}
	return n, err
}

// next returns the next entry that makes something, io.EOF after the last.
// Its errors are *EntryError, wrap ErrCorrupt, or come from the reader.
func (m *members) next() (*entry, error) {
	for {
		start := (m.in.n + blockSize - 1) / blockSize * blockSize
		m.in.watch, m.in.nonzero = true, false
		hdr, err := m.tar.Next()
		m.in.watch = false
		if err == io.EOF {
			return nil, m.checkEnd(start)
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names have our own rules
			return nil, m.damaged(err)
		}
		m.entries++
		m.in.allowed += overheadPerEntry
		e, err := m.judge(hdr)
		if err != nil {
			return nil, locate(err, hdr.Name, start)
		}
		if e != nil && e.kind == entryFile {
			e.offset = start
			return e, nil
		}
		// What is no file may still have content (a label, a directory of an
		// incremental backup). It must be read to keep the meter's count right.
		m.in.watch = true
		_, err = io.Copy(io.Discard, m.tar)
		m.in.watch = false
		if err != nil {
			return nil, m.damaged(err)
		}
		if e != nil {
			e.offset = start
			return e, nil
		}
	}
}

// checkEnd is asked when archive/tar sees the end. start is where a header
// could have begun.
func (m *members) checkEnd(start int64) error {
	switch {
	case m.in.n%blockSize != 0:
		return fmt.Errorf("%w: tar: truncated in a block, at byte %d", ErrCorrupt, m.in.n)
	case m.in.n < start:
		return fmt.Errorf("%w: tar: truncated in the padding, at byte %d", ErrCorrupt, m.in.n)
	case m.in.nonzero:
		// A long name or extended header for an entry that never came.
		return fmt.Errorf("%w: tar: ends after an extension header, at byte %d", ErrCorrupt, m.in.n)
	}
	return io.EOF
}

// finish reads to the end of the stream, so that checksums behind the end
// marker are verified too.
func (m *members) finish() error {
	m.in.watch, m.in.nonzero = true, false
	if _, err := io.Copy(io.Discard, m.in); err != nil {
		return err
	}
	if m.entries == 0 && m.in.nonzero {
		return fmt.Errorf("%w: tar: no entry, but bytes after the end marker", ErrCorrupt)
	}
	return nil
}

// judge applies the rules that concern the header alone. It returns nil for
// an entry to skip.
func (m *members) judge(hdr *tar.Header) (*entry, error) {
	switch hdr.Typeflag {
	case tar.TypeXGlobalHeader:
		// git archive writes one with a comment, pax one with times. Those
		// that would rename or resize every later entry are an attack.
		for _, key := range []string{"path", "linkpath", "size"} {
			if hdr.PAXRecords[key] != "" {
				return nil, refuse(ErrUnsafe, "a global extended header sets %q for all entries", key)
			}
		}
		return nil, nil
	case 'V': // the archive's label
		m.skipped++
		return nil, nil
	}
	name, slash, err := cleanName(hdr.Name, m.lim)
	if err != nil {
		return nil, err
	}
	e := &entry{
		name: name, rawName: hdr.Name, link: hdr.Linkname, size: hdr.Size,
		mode:  uint32(hdr.Mode) & 0o777,
		mtime: unix.Timespec{Sec: hdr.ModTime.Unix(), Nsec: int64(hdr.ModTime.Nanosecond())},
		uid:   hdr.Uid, gid: hdr.Gid,
	}
	if err := m.judgeType(hdr, e, slash); err != nil {
		return nil, err
	}
	if name == "" && e.kind != entryDir {
		return nil, refuse(ErrUnsafe, "its name means the root of the tree, but it is no directory")
	}
	return e, nil
}

func (m *members) judgeType(hdr *tar.Header, e *entry, slash bool) error {
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeRegA, tar.TypeCont, tar.TypeGNUSparse:
		if slash {
			// V7 had no type for directories: a name with a slash was one.
			if hdr.Size != 0 {
				return refuse(ErrCorrupt, "it is a directory by its name, but has %d bytes of content", hdr.Size)
			}
			e.kind = entryDir
			break
		}
		if e.size < 0 {
			return refuse(ErrCorrupt, "its size is negative")
		}
		sparse, err := sparseness(hdr)
		if err != nil {
			return err
		}
		e.kind, e.sparse = entryFile, sparse
		return nil
	case tar.TypeDir, 'D': // 'D' is of GNU's incremental backups; its content lists names
		e.kind = entryDir
	case tar.TypeSymlink:
		e.kind = entrySymlink
	case tar.TypeLink:
		e.kind = entryHardLink
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		what := map[byte]string{tar.TypeChar: "a character device", tar.TypeBlock: "a block device", tar.TypeFifo: "a FIFO"}
		return refuse(ErrUnsafe, "it is %s", what[hdr.Typeflag])
	case 'M':
		return refuse(ErrCorrupt, "it continues a file from another volume")
	default:
		return refuse(ErrUnsafe, "its type %q is unknown", hdr.Typeflag)
	}
	e.size = 0
	switch e.kind {
	case entryDir:
		e.mode |= uint32(hdr.Mode) & unix.S_ISVTX
		return nil
	case entrySymlink:
		return m.judgeLink(e, slash)
	}
	if err := m.judgeLink(e, slash); err != nil {
		return err
	}
	target, _, err := cleanName(e.link, m.lim)
	if err != nil {
		r := err.(*EntryError)
		return refuse(r.Err, "hard link to %s: %s", quote(e.link), strings.Replace(r.Rule, "its name", "that name", 1))
	}
	if target == "" {
		return refuse(ErrUnsafe, "hard link to the root of the tree")
	}
	e.link = target
	return nil
}

func (m *members) judgeLink(e *entry, slash bool) error {
	switch {
	case slash:
		return refuse(ErrUnsafe, "it is a link, but its name ends in a slash")
	case e.link == "":
		return refuse(ErrCorrupt, "it is a link to nothing")
	case len(e.link) > m.lim.Link:
		return refuse(ErrLimit, "its link target has %d bytes, more than %d", len(e.link), m.lim.Link)
	case strings.IndexByte(e.link, 0) >= 0:
		return refuse(ErrUnsafe, "its link target holds a NUL byte")
	}
	return nil
}

// sparseness says whether a file has holes. archive/tar reads GNU's formats
// 0.0, 0.1 and 1.0, and would take any other for plain content.
func sparseness(hdr *tar.Header) (bool, error) {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true, nil
	}
	major, minor := hdr.PAXRecords["GNU.sparse.major"], hdr.PAXRecords["GNU.sparse.minor"]
	switch major + "." + minor {
	case ".":
		return hdr.PAXRecords["GNU.sparse.map"] != "", nil
	case "0.0", "0.1", "1.0":
		return true, nil
	}
	return false, refuse(ErrCorrupt, "its sparse format %s is unknown", quote(major+"."+minor))
}

// owner returns the entry's ids for Options.PreserveOwner.
func (e *entry) owner() (Owner, error) {
	if !validID(e.uid) || !validID(e.gid) {
		return Owner{}, refuse(ErrUnsafe, "its owner %d:%d is out of range", e.uid, e.gid)
	}
	return Owner{e.uid, e.gid}, nil
}

// damaged explains an error of archive/tar. One that came through it from
// below is left as it is; if it is the caller's reader's, source.explain
// overrules what is said here.
func (m *members) damaged(err error) error {
	switch {
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrLimit):
		return err
	case isEOF(err):
		return fmt.Errorf("%w: tar: truncated at byte %d: %w", ErrCorrupt, m.in.n, io.ErrUnexpectedEOF)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: tar: bad header before byte %d", ErrCorrupt, m.in.n)
	}
	return fmt.Errorf("%w: tar: before byte %d: %w", ErrCorrupt, m.in.n, err)
}

// locate fills in which entry an EntryError is about, if it does not say yet.
func locate(err error, name string, offset int64) error {
	var r *EntryError
	if errors.As(err, &r) && r.Entry == "" {
		r.Entry, r.Offset = name, offset
	}
	return err
}
