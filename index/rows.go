package index

import (
	"bytes"
	"hash/maphash"
	"math"
	"strings"
)

// row is one entry of the table of entries; format.go has its place in the
// file. It is a name in a directory, and, unless the entry is a hard link, the
// inode of that name.
type row struct {
	parent  uint32 // row of the directory
	name    uint32 // string
	class   uint32 // type, mode and owner
	extra   uint32 // 1 + number of an extra; 0: none
	data    uint32 // directory: first position in children; symlink: string; hard link: row of the inode
	nsec    uint32
	sec     int64
	size    int64 // of a file; directory: number of children
	content int64 // of a file: stream offset; directory: number of directories in it
}

// class is what many rows have in common.
type class struct {
	typ   Type
	timed bool // the time is an entry's
	mode  uint16
	uid   uint32
	gid   uint32
}

// extra is what few rows have.
type extra struct {
	nlink           uint32
	sparse          bool
	xattrs, nxattrs uint32 // range of the table of xattrs
	pieces, npieces uint32 // range of the table of pieces, if sparse
}

// treeBuilder makes the rows of an archive's entries, by the rules that
// extraction follows when it makes them on disk. The builder's user guards it.
//
//   - A directory is made when it is first mentioned, if only by the name of
//     something in it; a later entry of its own gives it mode and time.
//   - Of two entries with one name the last wins, as a new row: hard links to
//     the old one keep it. Another kind than before is refused.
//   - A hard link is a row of its own as a name, and leads to the row of its
//     target as an inode.
type treeBuilder struct {
	lim Limits

	rows    chunks
	strings []byte
	classes []class
	byClass map[class]uint32
	extras  []extra
	xattrs  [][2]uint32 // strings: name, value
	pieces  []Piece

	seed  maphash.Seed
	table []uint32          // open addressing: live names, as rows; 0: free
	live  int               // names in table
	dead  map[uint32]bool   // rows whose name a later entry took
	links map[uint32]uint32 // names of an inode, where they are not one

	made  int64 // what extraction would have made, for Limits.Entries
	bytes int64

	entered func(dir uint32, name string) // told of each new name; may be nil

	lastDir string // the directory of the last entry, and its row
	lastRow uint32
}

// chunks is a list of rows that grows without moving: doubling a slice of
// millions would need three times its memory for a moment.
type chunks struct {
	full [][]row
	n    int
}

const chunkRows = 4096

func (c *chunks) at(i uint32) *row { return &c.full[i/chunkRows][i%chunkRows] }

func (c *chunks) add(r row) uint32 {
	if c.n%chunkRows == 0 {
		c.full = append(c.full, make([]row, 0, chunkRows))
	}
	last := &c.full[len(c.full)-1]
	*last = append(*last, r)
	c.n++
	return uint32(c.n - 1)
}

func newTreeBuilder(lim Limits) *treeBuilder {
	t := &treeBuilder{
		lim: lim.withDefaults(), byClass: map[class]uint32{}, seed: maphash.MakeSeed(),
		table: make([]uint32, 64), dead: map[uint32]bool{}, links: map[uint32]uint32{},
	}
	t.strings = append(t.strings, 0) // string 0 is the empty one
	t.rows.add(row{class: t.class(class{typ: TypeDir, mode: 0o755})})
	return t
}

// class gives the number of c.
func (t *treeBuilder) class(c class) uint32 {
	n, ok := t.byClass[c]
	if !ok {
		n = uint32(len(t.classes))
		t.classes = append(t.classes, c)
		t.byClass[c] = n
	}
	return n
}

func (t *treeBuilder) classOf(r uint32) class { return t.classes[t.rows.at(r).class] }

// string appends s, with its length before it.
func (t *treeBuilder) string(s []byte) (uint32, *TarError) {
	at := len(t.strings)
	if int64(at)+int64(len(s)) > math.MaxUint32-16 {
		return 0, refuse(ErrTarLimit, "all names together have more than 4 GiB")
	}
	t.strings = appendUvarint(t.strings, uint64(len(s)))
	t.strings = append(t.strings, s...)
	return uint32(at), nil
}

func (t *treeBuilder) stringAt(at uint32) []byte {
	s, _ := cutString(t.strings[at:])
	return s
}

func (t *treeBuilder) hash(parent uint32, name []byte) uint64 {
	return maphash.Bytes(t.seed, name) ^ uint64(parent)*0x9e3779b97f4a7c15
}

// slot finds where name of parent is in the table, or would be.
func (t *treeBuilder) slot(parent uint32, name []byte) int {
	mask := len(t.table) - 1
	for i := int(t.hash(parent, name)) & mask; ; i = (i + 1) & mask {
		r := t.table[i]
		if r == 0 {
			return i
		}
		if x := t.rows.at(r); x.parent == parent && bytes.Equal(t.stringAt(x.name), name) {
			return i
		}
	}
}

// lookup gives the live row of a name as it stands, 0 if there is none.
func (t *treeBuilder) lookup(parent uint32, name []byte) uint32 { return t.table[t.slot(parent, name)] }

// inode is the row that a name leads to.
func (t *treeBuilder) inode(r uint32) uint32 {
	if t.classOf(r).typ == TypeHardLink {
		return t.rows.at(r).data
	}
	return r
}

// enter makes a row for the new name in parent; what had it dies.
func (t *treeBuilder) enter(parent uint32, name string, x row) (uint32, *TarError) {
	at, refusal := t.string([]byte(name))
	if refusal != nil {
		return 0, refusal
	}
	x.parent, x.name = parent, at
	if 2*t.live >= len(t.table) {
		t.grow()
	}
	i := t.slot(parent, []byte(name))
	if old := t.table[i]; old != 0 {
		t.dead[old] = true
		node := t.inode(old)
		t.links[node] = t.nlink(node) - 1
	} else {
		t.live++
	}
	r := t.rows.add(x)
	t.table[i] = r
	if t.entered != nil {
		t.entered(parent, name)
	}
	return r, nil
}

func (t *treeBuilder) nlink(r uint32) uint32 {
	if n, ok := t.links[r]; ok {
		return n
	}
	return 1
}

func (t *treeBuilder) grow() {
	old := t.table
	t.table = make([]uint32, 2*len(old))
	for _, r := range old {
		if r != 0 {
			x := t.rows.at(r)
			t.table[t.slot(x.parent, t.stringAt(x.name))] = r
		}
	}
}

// count accounts for something that is about to be made.
func (t *treeBuilder) count() *TarError {
	if t.made++; t.made > t.lim.Entries {
		return refuse(ErrTarLimit, "the archive has more than %d entries", t.lim.Entries)
	}
	return nil
}

// dir gives the row of the directory at the clean path, made with its parents
// where they are missing.
func (t *treeBuilder) dir(path string) (uint32, *TarError) {
	if path == t.lastDir {
		return t.lastRow, nil
	}
	at := uint32(0)
	for rest := path; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		next := t.lookup(at, []byte(c))
		switch {
		case next == 0:
			refusal := t.count()
			if refusal == nil {
				next, refusal = t.enter(at, c, row{class: t.class(class{typ: TypeDir, mode: 0o755})})
			}
			if refusal != nil {
				return 0, refusal
			}
			t.rows.at(at).content++
		case t.classOf(next).typ != TypeDir:
			whole := path[:len(path)-len(rest)]
			return 0, refuse(ErrTarUnsafe, "%s is not a directory of this archive, but a file or a symbolic link", quote(strings.TrimSuffix(whole, "/")))
		}
		at = next
	}
	t.lastDir, t.lastRow = strings.Clone(path), at
	return at, nil
}

// add makes the row of an entry, and says which it is; 0 when the entry makes
// none (the root's own).
func (t *treeBuilder) add(e *Entry) (uint32, *TarError) {
	name, link, refusal := e.Judge(t.lim)
	if refusal != nil {
		return 0, refusal
	}
	c := class{typ: e.Type, timed: true, mode: uint16(e.Mode & 0o777), uid: uint32(e.UID), gid: uint32(e.GID)}
	if e.Type == TypeDir {
		c.mode |= uint16(e.Mode & 0o1000)
		return t.addDir(name, c, e)
	}
	dir, base := splitPath(name)
	parent, refusal := t.dir(dir)
	if refusal != nil {
		return 0, refusal
	}
	if refusal := t.count(); refusal != nil {
		return 0, refusal
	}
	x := row{sec: e.ModTime.Unix(), nsec: uint32(e.ModTime.Nanosecond())}
	var target uint32
	kind := e.Type
	switch e.Type {
	case TypeHardLink:
		if target, refusal = t.target(link); refusal != nil {
			return 0, refusal
		}
		if link == name {
			return 0, nil
		}
		kind = t.classOf(target).typ
		x = row{data: target}
		c = class{typ: TypeHardLink}
	case TypeSymlink:
		c.mode = 0o777
	default:
		if refusal := t.countFile(e.Size); refusal != nil {
			return 0, refusal
		}
		x.size, x.content = e.Size, e.Content
	}
	if old := t.lookup(parent, []byte(base)); old != 0 {
		if was := t.classOf(t.inode(old)).typ; was != kind {
			return 0, refuse(ErrTarUnsafe, "it is a %s, but an earlier entry made it a %s", kind, was)
		}
	}
	if e.Type == TypeSymlink {
		if x.data, refusal = t.string([]byte(link)); refusal != nil {
			return 0, refusal
		}
		x.size = int64(len(link))
	}
	if e.Type == TypeFile {
		if x.extra, refusal = t.extra(0, e); refusal != nil {
			return 0, refusal
		}
	}
	x.class = t.class(c)
	if e.Type == TypeHardLink { // before the name it takes loses one, which may be its own
		t.links[target] = t.nlink(target) + 1
	}
	return t.enter(parent, base, x)
}

// addDir makes a directory, or takes note of the last word on one.
func (t *treeBuilder) addDir(name string, c class, e *Entry) (uint32, *TarError) {
	if name == "" {
		return 0, nil // the archive does not rule over the root itself
	}
	r, refusal := t.dir(name)
	if refusal != nil {
		return 0, refusal
	}
	x := t.rows.at(r)
	x.class, x.sec, x.nsec = t.class(c), e.ModTime.Unix(), uint32(e.ModTime.Nanosecond())
	x.extra, refusal = t.extra(x.extra, e)
	return r, refusal
}

// target finds the inode that a hard link to the clean path leads to.
func (t *treeBuilder) target(path string) (uint32, *TarError) {
	at := uint32(0)
	for rest := path; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		if t.classOf(at).typ != TypeDir {
			return 0, refuse(ErrTarUnsafe, "hard link to %s, which leads through a file or a symbolic link", quote(path))
		}
		next := t.lookup(at, []byte(c))
		if next == 0 {
			return 0, refuse(ErrTarUnsafe, "hard link to %s, which no earlier entry made", quote(path))
		}
		at = t.inode(next)
	}
	if typ := t.classOf(at).typ; typ == TypeDir {
		return 0, refuse(ErrTarUnsafe, "hard link to %s, which is a %s", quote(path), typ)
	}
	return at, nil
}

// countFile judges the size of a file.
func (t *treeBuilder) countFile(size int64) *TarError {
	switch {
	case size > t.lim.FileBytes:
		return refuse(ErrTarLimit, "it has %d bytes, more than %d for one file", size, t.lim.FileBytes)
	case t.lim.Bytes > 0 && size > t.lim.Bytes-t.bytes:
		return refuse(ErrTarLimit, "with its %d bytes there would be more than %d in all", size, t.lim.Bytes)
	case size > math.MaxInt64-t.bytes:
		return refuse(ErrTarLimit, "all files together have more than 8 EiB")
	}
	t.bytes += size
	return nil
}

// extra notes holes and extended attributes of an entry, if it has any, in the
// place of the extra old.
func (t *treeBuilder) extra(old uint32, e *Entry) (uint32, *TarError) {
	x := extra{nlink: 1, sparse: e.Sparse != nil}
	x.xattrs, x.pieces = uint32(len(t.xattrs)), uint32(len(t.pieces))
	at := e.Content
	for _, s := range e.Sparse {
		t.pieces = append(t.pieces, Piece{Off: s.Off, Stream: at, Len: s.Len})
		at += s.Len
	}
	x.npieces = uint32(len(e.Sparse))
	names := 0
	for i, a := range e.Xattrs {
		if names += len(a.Name) + 1; !keepXattr(a) || names > maxXattrNames || supersededXattr(e.Xattrs[i+1:], a.Name) {
			continue
		}
		name, refusal := t.string(a.Name)
		if refusal != nil {
			return 0, refusal
		}
		value, refusal := t.string(a.Value)
		if refusal != nil {
			return 0, refusal
		}
		t.xattrs = append(t.xattrs, [2]uint32{name, value})
		x.nxattrs++
	}
	if old == 0 && !x.sparse && x.nxattrs == 0 {
		return 0, nil
	}
	if len(t.pieces) > math.MaxUint32 || len(t.xattrs) > math.MaxUint32 {
		return 0, refuse(ErrTarLimit, "too many holes or extended attributes")
	}
	if old != 0 {
		t.extras[old-1] = x
		return old, nil
	}
	t.extras = append(t.extras, x)
	return uint32(len(t.extras)), nil
}

// Bounds of attributes: Linux's own.
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrNames = 64 << 10 // bytes of all names of one entry, each with a NUL
)

// keepXattr says whether an attribute is kept: those of the user namespace,
// within what Linux can hold. All others speak to the kernel; so does
// "user.overlay.*", which overlayfs may believe.
func keepXattr(a Xattr) bool {
	own, ok := bytes.CutPrefix(a.Name, []byte("user."))
	return ok && len(own) > 0 && !bytes.HasPrefix(own, []byte("overlay.")) &&
		len(a.Name) <= maxXattrName && bytes.IndexByte(a.Name, 0) < 0 && len(a.Value) <= maxXattrValue
}

func supersededXattr(later []Xattr, name []byte) bool {
	for _, a := range later {
		if bytes.Equal(a.Name, name) {
			return true
		}
	}
	return false
}
