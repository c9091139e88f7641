package extract

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

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
	in    *feed
	tar   *index.TarReader
	rules index.Limits
	some  bool // there was an entry
}

func newMembers(in *feed, lim Limits) *members {
	return &members{in: in, tar: index.NewTarReader(in, lim.tar()), rules: lim.rules()}
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
	return m.judge(t)
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

// judge makes an entry of what the index room's rules, which are those of lazy
// mounts too, have let through.
func (m *members) judge(t *index.Entry) (entry, error) {
	name, link, refusal := t.Judge(m.rules)
	if refusal != nil {
		return entry{}, &EntryError{Entry: string(t.Name), Offset: t.Offset, Rule: refusal.Rule, Err: sentinelOf(refusal.Err)}
	}
	e := entry{
		name: name, link: link, size: t.Size, holes: t.Sparse, offset: t.Offset,
		mode:  t.Mode & 0o777,
		mtime: unix.Timespec{Sec: t.ModTime.Unix(), Nsec: int64(t.ModTime.Nanosecond())},
		uid:   t.UID, gid: t.GID, xattrs: t.Xattrs,
	}
	if e.rawName = name; len(name) != len(t.Name) {
		e.rawName = string(t.Name)
	}
	switch t.Type {
	case index.TypeDir:
		e.kind = entryDir
		e.mode |= t.Mode & unix.S_ISVTX
	case index.TypeSymlink:
		e.kind = entrySymlink
	case index.TypeHardLink:
		e.kind = entryHardLink
	}
	e.setID = e.kind <= entryDir && t.Mode&(unix.S_ISUID|unix.S_ISGID) != 0
	return e, nil
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
	if t.Name != "" {
		return &EntryError{Entry: t.Name, Offset: t.Offset, Rule: t.Rule, Err: sentinelOf(t.Err)}
	}
	err = fmt.Errorf("%w: tar: at byte %d: %s", sentinelOf(t.Err), t.Offset, t.Rule)
	if errors.Is(t, index.ErrTarTruncated) {
		err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
	}
	return err
}

// sentinelOf is ours for one of the tar reader's.
func sentinelOf(tar error) error {
	switch tar {
	case index.ErrTarLimit:
		return ErrLimit
	case index.ErrTarAmbiguous, index.ErrTarUnsafe:
		return ErrUnsafe
	}
	return ErrCorrupt
}

// locate fills in which entry an EntryError is about, if it does not say yet.
func locate(err error, name string, offset int64) error {
	var r *EntryError
	if errors.As(err, &r) && r.Entry == "" {
		r.Entry, r.Offset = name, offset
	}
	return err
}

// splitPath cuts a clean name into its directory ("" is the root) and base.
func splitPath(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}
