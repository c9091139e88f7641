package index

import (
	"fmt"
	"sort"
	"syscall"
)

// file is where a file's content lies: all of it at content of the stream, or
// in the pieces [pieces, pieces+npieces) of the table, with holes between.
type file struct {
	size    int64
	content int64
	sparse  bool
	pieces  uint32
	npieces uint32
}

// at says where byte off of the file lies, off < size: run bytes from there on
// lie together, at stream, or are a hole (stream -1).
func (f *file) at(off int64, piece func(i uint32) (Piece, error)) (stream, run int64, err error) {
	if !f.sparse {
		return f.content + off, f.size - off, nil
	}
	// The first piece that ends behind off.
	i := sort.Search(int(f.npieces), func(i int) bool {
		if err != nil {
			return true
		}
		var p Piece
		p, err = piece(f.pieces + uint32(i))
		return off < p.Off+p.Len
	})
	if err != nil || i == int(f.npieces) {
		return -1, f.size - off, err
	}
	p, err := piece(f.pieces + uint32(i))
	switch {
	case err != nil:
		return 0, 0, err
	case off < p.Off:
		return -1, min(p.Off, f.size) - off, nil
	case off >= p.Off+p.Len: // a table that is not in order
		return 0, 0, damaged("piece %d lies before its place", f.pieces+uint32(i))
	}
	return p.Stream + off - p.Off, min(p.Off+p.Len, f.size) - off, nil
}

// list gives all pieces.
func (f *file) list(piece func(i uint32) (Piece, error)) ([]Piece, error) {
	if !f.sparse {
		if f.size == 0 {
			return nil, nil
		}
		return []Piece{{Off: 0, Stream: f.content, Len: f.size}}, nil
	}
	var all []Piece
	end := int64(0)
	for i := range f.npieces {
		p, err := piece(f.pieces + i)
		if err != nil {
			return nil, err
		}
		if p.Off < end || p.Len > f.size-p.Off {
			return nil, damaged("piece %d of a file overlaps another or leaves it", f.pieces+i)
		}
		end = p.Off + p.Len
		all = append(all, p)
	}
	return all, nil
}

// piece reads a piece and checks that it lies in the stream.
func (x *Index) piece(i uint32) (p Piece, err error) {
	defer x.guard(&err)()
	b, err := x.record(secPieces, uint64(i))
	if err != nil {
		return Piece{}, err
	}
	p = parsePiece(b)
	if p.Off < 0 || p.Len <= 0 || p.Off > 1<<62 || p.Stream < 0 || p.Stream > x.stream || p.Len > x.stream-p.Stream {
		return Piece{}, damaged("piece %d leaves the stream", i)
	}
	return p, nil
}

// stored is the content of a sparse file: its pieces lie one behind the other
// in the stream.
func (x *Index) stored(e *extra) (int64, error) {
	if e.npieces == 0 {
		return 0, nil
	}
	first, err := x.piece(e.pieces)
	if err != nil {
		return 0, err
	}
	last, err := x.piece(e.pieces + e.npieces - 1)
	if err != nil {
		return 0, err
	}
	if e.npieces > defaultFragmentsLimit || last.Stream < first.Stream {
		return 0, damaged("the pieces at %d are not in order", e.pieces)
	}
	return last.Stream - first.Stream + last.Len, nil
}

// file tells where the content of a row lies.
func (x *Index) file(r uint32) (f file, err error) {
	defer x.guard(&err)()
	n, c, err := x.node(r)
	if err == nil {
		_, n, c, err = x.inode(r, n, c)
	}
	switch {
	case err != nil:
		return file{}, err
	case c.typ == TypeDir:
		return file{}, fmt.Errorf("row %d: %w", r, syscall.EISDIR)
	case c.typ != TypeFile:
		return file{}, fmt.Errorf("row %d is no file: %w", r, syscall.EINVAL)
	}
	e, err := x.extraOf(&n)
	if err != nil {
		return file{}, err
	}
	f = file{size: n.size, content: n.content}
	if e != nil && e.sparse {
		f.sparse, f.pieces, f.npieces = true, e.pieces, e.npieces
		if f.npieces > defaultFragmentsLimit {
			return file{}, damaged("row %d has %d pieces", r, f.npieces)
		}
	} else if n.content > x.stream || n.size > x.stream-n.content {
		return file{}, damaged("the content of row %d leaves the stream", r)
	}
	return f, nil
}

// Extents implements Tree.
func (x *Index) Extents(r uint32) ([]Piece, error) {
	f, err := x.file(r)
	if err != nil {
		return nil, err
	}
	return f.list(x.piece)
}
