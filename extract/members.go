package extract

import (
	"errors"
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// entryKind is what an entry of an archive makes. All other types of tar are
// refused by members.
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
	kind  entryKind
	name  string
	link  string         // target of a link; a symbolic one as it is in the archive
	size  int64          // of a file's content, holes included
	holes []index.Extent // where a sparse file has content; nil: everywhere
	mode  uint32         // permission bits; with the sticky bit on directories
	mtime unix.Timespec
	uid   int64
	gid   int64

	setID   bool          // its set-ID bits are not in mode
	xattrs  []index.Xattr // all; they lie in the reader's memory until tree.make picks
	rawName string        // as in the archive
	offset  int64         // of the first header, in the uncompressed stream
}

// members reads the entries of a tar stream. The tar format itself is the
// index room's business; here are the rules of what may be made on disk.
//
// next gives an entry, and content its bytes, all of which must be read before
// the following next. finish reads what follows the end marker.
type members struct {
	in   *feed
	tar  *index.TarReader
	lim  Limits
	some bool // there was an entry
}

func newMembers(in *feed, lim Limits) *members {
	return &members{in: in, tar: index.NewTarReader(in, lim.tar()), lim: lim}
}

// content gives the next bytes of the current entry's content, of a sparse
// file those of its extents. io.EOF comes alone after the last. The slice lies
// in the feed's current buffer.
func (m *members) content() ([]byte, error) {
	p, err := m.tar.ReadContent()
	if err != nil && err != io.EOF {
		err = tarError(err)
	}
	return p, err
}

// next returns the next entry, io.EOF after the last. Its errors are
// *EntryError, wrap ErrCorrupt, or come from the reader.
func (m *members) next() (entry, error) {
	t, err := m.tar.Next()
	if err == io.EOF {
		return entry{}, err
	}
	if err != nil {
		return entry{}, tarError(err)
	}
	m.some = true
	e, err := m.judge(t)
	if err != nil {
		return entry{}, locate(err, string(t.Name), t.Offset)
	}
	return e, nil
}

// finish reads to the end of the stream, so that checksums behind the end
// marker are verified too.
func (m *members) finish() error {
	zero, err := m.tar.Drain()
	if err != nil {
		return tarError(err)
	}
	if !m.some && !zero {
		return fmt.Errorf("%w: tar: no entry, but bytes after the end marker", ErrCorrupt)
	}
	return nil
}

// judge applies the rules that concern the header alone.
func (m *members) judge(t *index.Entry) (entry, error) {
	raw := string(t.Name)
	name, slash, err := cleanName(raw, m.lim)
	if err != nil {
		return entry{}, err
	}
	e := entry{
		name: name, rawName: raw, size: t.Size, holes: t.Sparse, offset: t.Offset,
		mode:  t.Mode & 0o777,
		mtime: unix.Timespec{Sec: t.ModTime.Unix(), Nsec: int64(t.ModTime.Nanosecond())},
		uid:   t.UID, gid: t.GID, xattrs: t.Xattrs,
	}
	switch t.Type {
	case index.TypeFile:
		e.kind, e.setID = entryFile, t.Mode&(unix.S_ISUID|unix.S_ISGID) != 0
	case index.TypeDir:
		e.kind, e.setID = entryDir, t.Mode&(unix.S_ISUID|unix.S_ISGID) != 0
		e.mode |= t.Mode & unix.S_ISVTX
	case index.TypeSymlink, index.TypeHardLink:
		err = m.judgeLink(t, &e, slash)
	default:
		err = refuse(ErrUnsafe, "it is a %s", t.Type)
	}
	if err == nil && name == "" && e.kind != entryDir {
		err = refuse(ErrUnsafe, "its name means the root of the tree, but it is no directory")
	}
	return e, err
}

func (m *members) judgeLink(t *index.Entry, e *entry, slash bool) error {
	e.link = string(t.Link)
	switch {
	case slash:
		return refuse(ErrUnsafe, "it is a link, but its name ends in a slash")
	case int64(len(e.link)) > m.lim.Link:
		return refuse(ErrLimit, "its link target has %d bytes, more than %d (max-link)", len(e.link), m.lim.Link)
	}
	if t.Type == index.TypeSymlink {
		e.kind = entrySymlink
		return nil
	}
	e.kind = entryHardLink
	target, _, err := cleanName(e.link, m.lim)
	var r *EntryError
	if errors.As(err, &r) {
		return refuse(r.Err, "hard link to %s: %s", quote(e.link), r.Rule)
	}
	if target == "" {
		return refuse(ErrUnsafe, "hard link to the root of the tree")
	}
	e.link = target
	return nil
}

// owner returns the entry's ids for Options.PreserveOwner.
func (e *entry) owner() (Owner, error) {
	if e.uid > math.MaxUint32-1 || e.gid > math.MaxUint32-1 {
		return Owner{}, refuse(ErrUnsafe, "its owner %d:%d is out of range", e.uid, e.gid)
	}
	return Owner{int(e.uid), int(e.gid)}, nil
}

// tarError gives the tar reader's refusals their sentinel, and those that are
// about one entry their form; errors of the stream pass.
func tarError(err error) error {
	var t *index.TarError
	if !errors.As(err, &t) {
		return err
	}
	sentinel := ErrCorrupt
	switch t.Err {
	case index.ErrTarLimit:
		sentinel = ErrLimit
	case index.ErrTarAmbiguous:
		sentinel = ErrUnsafe
	}
	if t.Name != "" {
		return &EntryError{Entry: t.Name, Offset: t.Offset, Rule: t.Rule, Err: sentinel}
	}
	err = fmt.Errorf("%w: tar: at byte %d: %s", sentinel, t.Offset, t.Rule)
	if errors.Is(t, index.ErrTarTruncated) {
		err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
	}
	return err
}

// locate fills in which entry an EntryError is about, if it does not say yet.
func locate(err error, name string, offset int64) error {
	var r *EntryError
	if errors.As(err, &r) && r.Entry == "" {
		r.Entry, r.Offset = name, offset
	}
	return err
}
