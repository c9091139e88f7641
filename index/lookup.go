package index

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"syscall"
)

// The tree of a complete index. What a row may say is checked where it is
// used: a directory's parent has a lower row, so there are no cycles; names
// are names; content lies in the stream.

func noRow(row uint32) error { return fmt.Errorf("row %d: %w", row, syscall.EINVAL) }

// node reads a row and its class.
func (x *Index) node(r uint32) (row, class, error) {
	if r >= x.rows {
		return row{}, class{}, noRow(r)
	}
	b, err := x.record(secRows, uint64(r))
	if err != nil {
		return row{}, class{}, err
	}
	n := parseRow(b)
	if b, err = x.record(secClasses, uint64(n.class)); err != nil {
		return row{}, class{}, err
	}
	c := parseClass(b)
	switch {
	case c.typ != TypeFile && c.typ != TypeDir && c.typ != TypeSymlink && c.typ != TypeHardLink,
		n.size < 0, n.content < 0, n.nsec > 999_999_999, r > 0 && n.parent >= r,
		r == 0 && (x.flags&flagTree != 0) != (c.typ == TypeDir):
		return row{}, class{}, damaged("row %d makes no sense", r)
	}
	return n, c, nil
}

// listed is node for a row that the file itself speaks of.
func (x *Index) listed(r uint32) (row, class, error) {
	if r >= x.rows {
		return row{}, class{}, damaged("it speaks of row %d of %d", r, x.rows)
	}
	return x.node(r)
}

// dir reads the row of a directory. Its children are at [data, data+size).
func (x *Index) dir(r uint32) (row, error) {
	n, c, err := x.node(r)
	switch {
	case err != nil:
		return row{}, err
	case c.typ != TypeDir:
		return row{}, fmt.Errorf("row %d: %w", r, syscall.ENOTDIR)
	case n.size > math.MaxUint32:
		return row{}, damaged("directory %d has %d entries", r, n.size)
	}
	return n, nil
}

// child reads the child at position pos of the directory d, whose row is dir.
func (x *Index) child(dir uint32, d *row, pos int64) (r uint32, n row, c class, name []byte, err error) {
	b, err := x.record(secChildren, uint64(d.data)+uint64(pos))
	if err != nil {
		return
	}
	r = le.Uint32(b)
	if n, c, err = x.listed(r); err != nil {
		return
	}
	if r == 0 || n.parent != dir {
		err = damaged("row %d is listed in directory %d", r, dir)
		return
	}
	if name, err = x.string(n.name); err == nil && !validName(name) {
		err = damaged("row %d has the name %.100q", r, name)
	}
	return
}

func validName(name []byte) bool {
	return len(name) > 0 && len(name) <= 255 && bytes.IndexByte(name, '/') < 0 && bytes.IndexByte(name, 0) < 0 &&
		string(name) != "." && string(name) != ".."
}

// inode follows a hard link's row to its inode's.
func (x *Index) inode(r uint32, n row, c class) (uint32, row, class, error) {
	if c.typ != TypeHardLink {
		return r, n, c, nil
	}
	to := n.data
	n, c, err := x.listed(to)
	if err == nil && c.typ != TypeFile && c.typ != TypeSymlink {
		err = damaged("hard link %d leads to row %d, a %s", r, to, c.typ)
	}
	return to, n, c, err
}

// Lookup implements Tree.
func (x *Index) Lookup(ctx context.Context, dir uint32, name string) (row uint32, err error) {
	defer x.guard(&err)()
	d, err := x.dir(dir)
	if err != nil {
		return 0, err
	}
	for lo, hi := int64(0), d.size; lo < hi; {
		mid := lo + (hi-lo)/2
		r, n, c, have, err := x.child(dir, &d, mid)
		if err != nil {
			return 0, err
		}
		switch order := strings.Compare(string(have), name); {
		case order == 0:
			r, _, _, err = x.inode(r, n, c)
			return r, err
		case order < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, fs.ErrNotExist
}

// Children implements Tree.
func (x *Index) Children(ctx context.Context, dir uint32, from int, yield func(pos int, c Child) bool) (err error) {
	defer x.guard(&err)()
	d, err := x.dir(dir)
	if err != nil {
		return err
	}
	var last []byte
	for pos := int64(max(from, 0)); pos < d.size; pos++ {
		r, n, c, name, err := x.child(dir, &d, pos)
		if err != nil {
			return err
		}
		if last != nil && bytes.Compare(last, name) >= 0 {
			return damaged("the entries of directory %d are not in order", dir)
		}
		last = name
		if r, _, c, err = x.inode(r, n, c); err != nil {
			return err
		}
		if !yield(int(pos), Child{Name: string(name), Row: r, Type: c.typ}) {
			return nil
		}
	}
	return nil
}

// extraOf reads the extra of a row; nil if it has none.
func (x *Index) extraOf(n *row) (*extra, error) {
	if n.extra == 0 {
		return nil, nil
	}
	b, err := x.record(secExtras, uint64(n.extra)-1)
	if err != nil {
		return nil, err
	}
	e := parseExtra(b)
	return &e, nil
}

// Attr implements Tree.
func (x *Index) Attr(r uint32) (a Attr, err error) {
	defer x.guard(&err)()
	n, c, err := x.node(r)
	if err == nil {
		_, n, c, err = x.inode(r, n, c)
	}
	if err != nil {
		return Attr{}, err
	}
	e, err := x.extraOf(&n)
	if err != nil {
		return Attr{}, err
	}
	a = attr(&n, c)
	if e != nil {
		a.Xattrs = e.nxattrs > 0
		if c.typ != TypeDir {
			a.Nlink = e.nlink
		}
		if e.sparse {
			if a.Stored, err = x.stored(e); err != nil {
				return Attr{}, err
			}
		}
	}
	return a, nil
}

// attr are the attributes that lie in the row alone.
func attr(n *row, c class) Attr {
	a := Attr{
		Type: c.typ, Mode: uint32(c.mode), UID: c.uid, GID: c.gid, Size: n.size, Stored: n.size,
		Sec: n.sec, Nsec: n.nsec, HasTime: c.timed, Nlink: 1, Parent: n.parent,
	}
	switch c.typ {
	case TypeDir:
		a.Nlink = 2 + uint32(min(n.content, math.MaxInt32))
		a.Size, a.Stored = 0, 0
	case TypeSymlink:
		a.Stored = 0
	}
	return a
}

// ReadLink implements Tree.
func (x *Index) ReadLink(r uint32) (target string, err error) {
	defer x.guard(&err)()
	n, c, err := x.node(r)
	if err == nil {
		_, n, c, err = x.inode(r, n, c)
	}
	switch {
	case err != nil:
		return "", err
	case c.typ != TypeSymlink:
		return "", fmt.Errorf("row %d is no symbolic link: %w", r, syscall.EINVAL)
	}
	s, err := x.string(n.data)
	if err == nil && (len(s) == 0 || len(s) > 4095 || bytes.IndexByte(s, 0) >= 0) {
		err = damaged("row %d has an impossible target", r)
	}
	return string(s), err
}

// Xattrs implements Tree.
func (x *Index) Xattrs(r uint32) (list []Xattr, err error) {
	defer x.guard(&err)()
	n, c, err := x.node(r)
	if err == nil {
		_, n, _, err = x.inode(r, n, c)
	}
	if err != nil {
		return nil, err
	}
	e, err := x.extraOf(&n)
	if err != nil || e == nil || e.nxattrs == 0 {
		return nil, err
	}
	b, err := x.get(secXattrs, uint64(e.xattrs)*8, uint64(e.nxattrs)*8)
	if err != nil {
		return nil, err
	}
	names := 0
	for ; len(b) > 0; b = b[8:] {
		name, err := x.string(le.Uint32(b))
		if err != nil {
			return nil, err
		}
		value, err := x.string(le.Uint32(b[4:]))
		if err != nil {
			return nil, err
		}
		a := Xattr{Name: bytes.Clone(name), Value: bytes.Clone(value)}
		if names += len(name) + 1; !keepXattr(a) || names > maxXattrNames {
			return nil, damaged("row %d has an impossible attribute", r)
		}
		list = append(list, a)
	}
	return list, nil
}

// NumRows implements Tree.
func (x *Index) NumRows() int { return int(x.rows) }

// Complete implements Tree.
func (x *Index) Complete() bool { return true }
