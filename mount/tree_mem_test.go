package mount

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"objectmount/index"
)

// memTree is a complete Tree and its Content in memory.
type memTree struct {
	rows  []memRow
	total int64
	// read, if set, is asked before each read of content.
	read func(ctx context.Context, row uint32, off int64) error
	// readAts counts reads of content.
	readAts atomic.Int64
}

type memRow struct {
	name     string
	attr     index.Attr
	link     string
	body     string
	pieces   []index.Piece
	xattrs   []index.Xattr
	children []index.Child // sorted by name
}

// node is an entry of a memTree. Directories on the way are implied.
type entry struct {
	name   string // ends in a slash: a directory
	body   string
	link   string // of a symbolic link
	hard   string // the name of the file that this is another name of
	mode   uint32
	uid    uint32
	gid    uint32
	sec    int64
	nsec   uint32
	xattrs []index.Xattr
	holes  []index.Extent // ranges with content; the others are holes, and body lacks them
	size   int64          // with holes
}

const testTime = 1700000000

func newTree(entries ...entry) *memTree {
	t := &memTree{}
	t.add(memRow{attr: index.Attr{Type: index.TypeDir, Mode: 0o755, Nlink: 2}})
	rows := map[string]uint32{"": 0}
	var dir func(name string) uint32
	child := func(name string, r memRow) uint32 {
		parent := dir(strings.TrimPrefix(path.Dir("/"+name), "/"))
		r.attr.Parent = parent
		r.name = path.Base(name)
		row := t.add(r)
		rows[name] = row
		t.link(parent, r.name, row, r.attr.Type)
		return row
	}
	dir = func(name string) uint32 {
		if row, ok := rows[name]; ok {
			return row
		}
		return child(name, memRow{attr: index.Attr{Type: index.TypeDir, Mode: 0o755, Nlink: 2}})
	}
	for _, e := range entries {
		a := index.Attr{Type: index.TypeFile, Mode: 0o644, UID: e.uid, GID: e.gid, Sec: testTime, HasTime: true,
			Nlink: 1, Size: int64(len(e.body)), Stored: int64(len(e.body)), Xattrs: e.xattrs != nil}
		if e.sec != 0 {
			a.Sec, a.Nsec = e.sec, e.nsec
		}
		if e.mode != 0 {
			a.Mode = e.mode
		}
		switch {
		case strings.HasSuffix(e.name, "/"):
			name := strings.TrimSuffix(e.name, "/")
			if e.mode == 0 {
				a.Mode = 0o755
			}
			old := &t.rows[dir(name)]
			a.Type, a.Nlink, a.Parent = index.TypeDir, old.attr.Nlink, old.attr.Parent
			old.attr, old.xattrs = a, e.xattrs
		case e.hard != "":
			row := rows[e.hard]
			t.rows[row].attr.Nlink++
			parent := dir(strings.TrimPrefix(path.Dir("/"+e.name), "/"))
			t.link(parent, path.Base(e.name), row, index.TypeFile)
		case e.link != "":
			a.Type, a.Mode, a.Size, a.Stored = index.TypeSymlink, 0o777, int64(len(e.link)), 0
			child(e.name, memRow{attr: a, link: e.link})
		default:
			r := memRow{attr: a, body: e.body, xattrs: e.xattrs}
			if e.holes != nil {
				r.attr.Size = e.size
				var at int64
				for _, x := range e.holes {
					r.pieces = append(r.pieces, index.Piece{Off: x.Off, Stream: at, Len: x.Len})
					at += x.Len
				}
			} else if len(e.body) > 0 {
				r.pieces = []index.Piece{{Len: int64(len(e.body))}}
			}
			child(e.name, r)
		}
	}
	for i := range t.rows {
		slices.SortFunc(t.rows[i].children, func(a, b index.Child) int { return strings.Compare(a.Name, b.Name) })
	}
	return t
}

func (t *memTree) add(r memRow) uint32 {
	t.rows = append(t.rows, r)
	t.total += int64(len(r.body))
	return uint32(len(t.rows) - 1)
}

func (t *memTree) link(dir uint32, name string, row uint32, typ index.Type) {
	d := &t.rows[dir]
	d.children = append(d.children, index.Child{Name: name, Row: row, Type: typ})
	if typ == index.TypeDir {
		d.attr.Nlink++
	}
}

func (t *memTree) row(row uint32) (*memRow, error) {
	if int(row) >= len(t.rows) {
		return nil, syscall.EINVAL
	}
	return &t.rows[row], nil
}

func (t *memTree) Lookup(_ context.Context, dir uint32, name string) (uint32, error) {
	r, err := t.row(dir)
	if err != nil {
		return 0, err
	}
	i, ok := slices.BinarySearchFunc(r.children, name, func(c index.Child, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return 0, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return r.children[i].Row, nil
}

func (t *memTree) Attr(row uint32) (index.Attr, error) {
	r, err := t.row(row)
	if err != nil {
		return index.Attr{}, err
	}
	return r.attr, nil
}

func (t *memTree) Children(_ context.Context, dir uint32, from int, yield func(int, index.Child) bool) error {
	r, err := t.row(dir)
	if err != nil {
		return err
	}
	for i := from; i < len(r.children); i++ {
		if !yield(i, r.children[i]) {
			return nil
		}
	}
	return nil
}

func (t *memTree) ReadLink(row uint32) (string, error) {
	r, err := t.row(row)
	if err != nil {
		return "", err
	}
	return r.link, nil
}

func (t *memTree) Xattrs(row uint32) ([]index.Xattr, error) {
	r, err := t.row(row)
	if err != nil {
		return nil, err
	}
	return r.xattrs, nil
}

func (t *memTree) Extents(row uint32) ([]index.Piece, error) {
	r, err := t.row(row)
	if err != nil {
		return nil, err
	}
	return r.pieces, nil
}

func (t *memTree) NumRows() int      { return len(t.rows) }
func (t *memTree) Complete() bool    { return true }
func (t *memTree) StreamSize() int64 { return t.total }

// ReadFileAt implements Content.
func (t *memTree) ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
	t.readAts.Add(1)
	if t.read != nil {
		if err := t.read(ctx, row, off); err != nil {
			return 0, err
		}
	}
	r, err := t.row(row)
	if err != nil {
		return 0, err
	}
	n := int(min(int64(len(p)), max(0, r.attr.Size-off)))
	clear(p[:n])
	for _, x := range r.pieces {
		from, to := max(off, x.Off), min(off+int64(n), x.Off+x.Len)
		if from < to {
			copy(p[from-off:to-off], r.body[x.Stream+from-x.Off:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// content is n bytes that are nowhere alike.
func content(n int, seed uint64) string {
	b := make([]byte, n)
	x := seed*2 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return string(b)
}
