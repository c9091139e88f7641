package index

import (
	"context"
	"fmt"
	"io/fs"
	"sort"
	"syscall"

	"objectmount/internal/inflate"
)

// The methods of a Growing that make it a Table. Each looks first whether the
// finished index is there, and then, under the builder's lock, at what is
// known so far.

// lock takes the builder's lock for reading, unless the pass is over: then
// there is the finished index, or the error.
func (g *Growing) lock() (*Index, error) {
	if x := g.index.Load(); x != nil {
		return x, nil
	}
	g.b.mu.RLock()
	if g.b.c.tree != nil {
		if err := g.Err(); err != nil {
			g.b.mu.RUnlock()
			return nil, err
		}
		return nil, nil
	}
	g.b.mu.RUnlock()
	if x := g.index.Load(); x != nil {
		return x, nil
	}
	return nil, g.err
}

// entered is called, under the lock, when a name has got a row.
func (g *Growing) entered(dir uint32, name string) {
	if len(g.waiting) == 0 {
		return
	}
	k := nameKey{dir, name}
	if w := g.waiting[k]; w != nil {
		close(w.found)
		delete(g.waiting, k)
	}
}

// Lookup implements Tree.
func (g *Growing) Lookup(ctx context.Context, dir uint32, name string) (uint32, error) {
	for {
		x, err := g.lock()
		if err != nil {
			return 0, err
		}
		if x != nil {
			return x.Lookup(ctx, dir, name)
		}
		r, err := g.b.c.tree.find(dir, name)
		g.b.mu.RUnlock()
		if err != nil || r != 0 {
			return r, err
		}
		if err := g.waitFor(ctx, dir, name); err != nil {
			return 0, err
		}
	}
}

// waitFor waits until name may be there.
func (g *Growing) waitFor(ctx context.Context, dir uint32, name string) error {
	k := nameKey{dir, name}
	g.b.mu.Lock()
	if g.b.c.tree == nil || g.b.c.tree.lookup(dir, []byte(name)) != 0 {
		g.b.mu.Unlock()
		return nil // it came in between
	}
	w := g.waiting[k]
	if w == nil {
		w = &waiter{found: make(chan struct{})}
		g.waiting[k] = w
	}
	w.n++
	g.b.mu.Unlock()
	var err error
	select {
	case <-w.found:
	case <-g.over:
		err = g.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.b.mu.Lock()
	if w.n--; w.n == 0 && g.waiting[k] == w {
		delete(g.waiting, k)
	}
	g.b.mu.Unlock()
	return err
}

// find is Lookup among what is there; 0 if it is not.
func (t *treeBuilder) find(dir uint32, name string) (uint32, error) {
	if dir >= uint32(t.rows.n) {
		return 0, noRow(dir)
	}
	if t.classOf(dir).typ != TypeDir {
		return 0, fmt.Errorf("row %d: %w", dir, syscall.ENOTDIR)
	}
	r := t.lookup(dir, []byte(name))
	if r == 0 {
		return 0, nil
	}
	return t.inode(r), nil
}

// node is the row of an inode.
func (t *treeBuilder) node(r uint32) (*row, class, *extra, error) {
	if r >= uint32(t.rows.n) {
		return nil, class{}, nil, noRow(r)
	}
	n := t.rows.at(t.inode(r))
	if n.extra == 0 {
		return n, t.classes[n.class], nil, nil
	}
	return n, t.classes[n.class], &t.extras[n.extra-1], nil
}

// Attr implements Tree.
func (g *Growing) Attr(r uint32) (Attr, error) {
	x, err := g.lock()
	if err != nil {
		return Attr{}, err
	}
	if x != nil {
		return x.Attr(r)
	}
	defer g.b.mu.RUnlock()
	t := g.b.c.tree
	n, c, e, err := t.node(r)
	if err != nil {
		return Attr{}, err
	}
	a := attr(n, c)
	if c.typ != TypeDir {
		a.Nlink = t.nlink(t.inode(r))
	}
	if e != nil {
		a.Xattrs = e.nxattrs > 0
		if e.sparse {
			a.Stored = 0
			if e.npieces > 0 {
				first, last := t.pieces[e.pieces], t.pieces[e.pieces+e.npieces-1]
				a.Stored = last.Stream - first.Stream + last.Len
			}
		}
	}
	return a, nil
}

// Children implements Tree.
func (g *Growing) Children(ctx context.Context, dir uint32, from int, yield func(pos int, c Child) bool) error {
	x, err := g.finished(ctx)
	if err != nil {
		return err
	}
	return x.Children(ctx, dir, from, yield)
}

// finished waits for the end.
func (g *Growing) finished(ctx context.Context) (*Index, error) {
	select {
	case <-g.over:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if g.err != nil {
		return nil, g.err
	}
	return g.index.Load(), nil
}

// ReadLink implements Tree.
func (g *Growing) ReadLink(r uint32) (string, error) {
	x, err := g.lock()
	if err != nil {
		return "", err
	}
	if x != nil {
		return x.ReadLink(r)
	}
	defer g.b.mu.RUnlock()
	n, c, _, err := g.b.c.tree.node(r)
	if err == nil && c.typ != TypeSymlink {
		err = fmt.Errorf("row %d is no symbolic link: %w", r, syscall.EINVAL)
	}
	if err != nil {
		return "", err
	}
	return string(g.b.c.tree.stringAt(n.data)), nil
}

// Xattrs implements Tree.
func (g *Growing) Xattrs(r uint32) ([]Xattr, error) {
	x, err := g.lock()
	if err != nil {
		return nil, err
	}
	if x != nil {
		return x.Xattrs(r)
	}
	defer g.b.mu.RUnlock()
	t := g.b.c.tree
	_, _, e, err := t.node(r)
	if err != nil || e == nil || e.nxattrs == 0 {
		return nil, err
	}
	var list []Xattr
	for _, a := range t.xattrs[e.xattrs : e.xattrs+e.nxattrs] {
		list = append(list, Xattr{
			Name:  append([]byte(nil), t.stringAt(a[0])...),
			Value: append([]byte{}, t.stringAt(a[1])...),
		})
	}
	return list, nil
}

// Extents implements Tree.
func (g *Growing) Extents(r uint32) ([]Piece, error) {
	f, err := g.file(r)
	if err != nil {
		return nil, err
	}
	return f.list(g.piece)
}

func (g *Growing) file(r uint32) (file, error) {
	x, err := g.lock()
	if err != nil {
		return file{}, err
	}
	if x != nil {
		return x.file(r)
	}
	defer g.b.mu.RUnlock()
	n, c, e, err := g.b.c.tree.node(r)
	switch {
	case err != nil:
		return file{}, err
	case c.typ == TypeDir:
		return file{}, fmt.Errorf("row %d: %w", r, syscall.EISDIR)
	case c.typ != TypeFile:
		return file{}, fmt.Errorf("row %d is no file: %w", r, syscall.EINVAL)
	}
	f := file{size: n.size, content: n.content}
	if e != nil && e.sparse {
		f.sparse, f.pieces, f.npieces = true, e.pieces, e.npieces
	}
	return f, nil
}

func (g *Growing) piece(i uint32) (Piece, error) {
	x, err := g.lock()
	if err != nil {
		return Piece{}, err
	}
	if x != nil {
		return x.piece(i)
	}
	defer g.b.mu.RUnlock()
	return g.b.c.tree.pieces[i], nil
}

// NumRows implements Tree.
func (g *Growing) NumRows() int {
	x, err := g.lock()
	if err != nil {
		return 0
	}
	if x != nil {
		return x.NumRows()
	}
	defer g.b.mu.RUnlock()
	return g.b.c.tree.rows.n
}

// Complete implements Tree.
func (g *Growing) Complete() bool { return g.index.Load() != nil }

// StreamSize implements Table.
func (g *Growing) StreamSize() int64 {
	if x := g.index.Load(); x != nil {
		return x.stream
	}
	g.tailMu.RLock()
	defer g.tailMu.RUnlock()
	return g.seen
}

// NumSpans implements Layout: those whose bytes have all been seen.
func (g *Growing) NumSpans() int {
	x, err := g.lock()
	if err != nil {
		return 0
	}
	if x != nil {
		return x.NumSpans()
	}
	defer g.b.mu.RUnlock()
	if g.skims {
		return int((g.src.Size() + plainSpan - 1) / plainSpan)
	}
	return g.whole
}

// Span implements Layout.
func (g *Growing) Span(i int) (off int64, size int, sum uint32) {
	s, err := g.spanAt(i)
	if err != nil {
		return 0, 0, 0
	}
	return s.off, s.size, s.sum
}

func (g *Growing) spanAt(i int) (span, error) {
	x, err := g.lock()
	if err != nil {
		return span{}, err
	}
	if x != nil {
		return x.spanAt(i)
	}
	defer g.b.mu.RUnlock()
	return g.spanLocked(i)
}

func (g *Growing) spanLocked(i int) (span, error) {
	b := g.b.c.spans
	if g.skims && i >= 0 && int64(i) < (g.src.Size()+plainSpan-1)/plainSpan {
		return plainSpanAt(i, g.src.Size(), 0), nil
	}
	if i < 0 || i >= g.whole {
		return span{}, fmt.Errorf("span %d: %w", i, fs.ErrNotExist)
	}
	if !b.gzip {
		return plainSpanAt(i, g.src.Size(), b.spans[i].sum), nil
	}
	if i+1 < len(b.spans) {
		return spanOf(i, b.spans[i], b.spans[i+1], false, 0, g.src.Size())
	}
	return spanOf(i, b.spans[i], spanRow{}, true, b.off, g.src.Size())
}

// locate implements Table.
func (g *Growing) locate(off int64) (span, error) {
	x, err := g.lock()
	if err != nil {
		return span{}, err
	}
	if x != nil {
		return x.locate(off)
	}
	defer g.b.mu.RUnlock()
	if g.skims {
		return g.spanLocked(int(off / plainSpan))
	}
	b := g.b.c.spans
	i := sort.Search(g.whole, func(i int) bool { return b.spans[i].out > off }) - 1
	s, err := g.spanLocked(i)
	if err == nil && (off < s.off || off-s.off >= int64(s.size)) {
		err = fmt.Errorf("byte %d is in no span: %w", off, fs.ErrNotExist)
	}
	return s, err
}

func (g *Growing) point(i int) (inflate.Point, error) {
	x, err := g.lock()
	if err != nil {
		return inflate.Point{}, err
	}
	if x != nil {
		return x.point(i)
	}
	defer g.b.mu.RUnlock()
	b := g.b.c.spans
	if i < 0 || i >= b.points {
		return inflate.Point{}, fmt.Errorf("point %d: %w", i, fs.ErrNotExist)
	}
	s := b.spans[i]
	return s.point(b.windows[s.at : s.at+uint64(s.packed)])
}

// await implements Table.
func (g *Growing) await(ctx context.Context, off int64) (int64, error) {
	for {
		if x := g.index.Load(); x != nil {
			return x.stream, nil
		}
		if g.isSkim() {
			return g.src.Size(), nil
		}
		g.tailMu.RLock()
		seen, more := g.seen, g.more
		g.tailMu.RUnlock()
		if off < seen {
			return seen, g.Err()
		}
		select {
		case <-more:
		case <-g.over:
			if g.err != nil {
				return 0, g.err
			}
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (g *Growing) isSkim() bool {
	select {
	case <-g.ready:
	default:
		return false
	}
	g.b.mu.RLock()
	defer g.b.mu.RUnlock()
	return g.skims && g.Err() == nil
}

// tail implements Table.
func (g *Growing) tail(p []byte, off int64) int {
	g.tailMu.RLock()
	defer g.tailMu.RUnlock()
	if off < g.tailOff || off >= g.tailOff+int64(len(g.tailBuf)) {
		return 0
	}
	return copy(p, g.tailBuf[off-g.tailOff:])
}
