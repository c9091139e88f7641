package index

// This file is the outline of what is being built; it goes away.

import (
	"context"
	"errors"
	"io/fs"
)

var errSoon = errors.New("not yet")

// Table is what a Reader needs: a Tree and where its bytes come from. *Index
// and *Growing are ones.
type Table interface {
	Tree
	Layout
	// StreamSize is the bytes of the uncompressed stream; those seen so far
	// while it grows.
	StreamSize() int64
}

// Index is a complete index, memory-mapped and immutable. All methods but
// Close are safe for concurrent use; after Close none may be called.
type Index struct{}

// Open maps the index file at path, which must be of the object want (zero
// fields of want are not compared; its Size is). Errors wrap ErrDamaged,
// ErrMismatch or are the file's.
func Open(path string, want ObjectID) (*Index, error) { return nil, errSoon }

// Parse is Open for the bytes of an index file, which must not change.
func Parse(b []byte, want ObjectID) (*Index, error) { return nil, errSoon }

// Close unmaps the file.
func (x *Index) Close() error { return errSoon }

// Object is what the index was made of.
func (x *Index) Object() ObjectID { return ObjectID{} }

// Verify reads all of the index and checks it, which Open leaves to when a
// part is first used.
func (x *Index) Verify() error { return errSoon }

func (x *Index) Lookup(ctx context.Context, dir uint32, name string) (uint32, error) {
	return 0, errSoon
}
func (x *Index) Attr(row uint32) (Attr, error) { return Attr{}, errSoon }
func (x *Index) Children(ctx context.Context, dir uint32, from int, yield func(int, Child) bool) error {
	return errSoon
}
func (x *Index) ReadLink(row uint32) (string, error)          { return "", errSoon }
func (x *Index) Xattrs(row uint32) ([]Xattr, error)           { return nil, errSoon }
func (x *Index) Extents(row uint32) ([]Piece, error)          { return nil, errSoon }
func (x *Index) NumRows() int                                 { return 0 }
func (x *Index) Complete() bool                               { return true }
func (x *Index) NumSpans() int                                { return 0 }
func (x *Index) Span(i int) (off int64, size int, sum uint32) { return 0, 0, 0 }
func (x *Index) StreamSize() int64                            { return 0 }

// BuildOptions of a first pass. The zero value is useful.
type BuildOptions struct {
	Object ObjectID // Size is taken from the Source
	// Name and ContentType are what the object claims to be, as in
	// extract.Options: what they declare must be true.
	Name, ContentType string
	Limits            Limits
	// Path is where the finished index is saved, by rename; "": in memory only.
	Path string
	// Skim indexes a plain tar by its headers alone, with few requests, and
	// so without checksums of spans. It changes nothing for a gzip.
	Skim bool
}

// Limits bound what an archive may ask for. A zero field means its default.
type Limits struct {
	Entries   int64 // files, directories and links; default 10,000,000
	Bytes     int64 // bytes of all files, holes included; default: no limit
	FileBytes int64 // bytes of one file, holes included; default 16 TiB
	Depth     int   // components of a name; default 512
	Path      int   // bytes of a name; default 4095
	Component int   // bytes of a component; default 255
	Link      int   // bytes of a link's target; default 4095
}

// Growing is the index of an object while its first pass runs: a Tree, a
// Layout and, through a Reader, the bytes seen so far. When the pass has
// ended well it is the finished index and needs no more memory than that.
type Growing struct{}

// NewGrowing prepares a first pass over src, which nothing is read of before
// Run. It can at once be given to a cache as Layout, to a Reader and to a mount.
func NewGrowing(src Source, opt BuildOptions) *Growing { return &Growing{} }

// Run is the first pass. It puts each span into spans (nil: none) as it
// comes, and returns when the index is complete and saved, or with the error
// that ended it. It is called once. Whoever waits in a method of g gets that
// error, too.
func (g *Growing) Run(ctx context.Context, spans Spans) error { return errSoon }

// Progress is how far the pass has got: bytes of the object read and of the
// stream decoded.
func (g *Growing) Progress() (in, out int64) { return 0, 0 }

// Index is the finished index, nil before. It is closed with g.
func (g *Growing) Index() *Index { return nil }

// Close frees the finished index. Run must have returned.
func (g *Growing) Close() error { return nil }

func (g *Growing) Lookup(ctx context.Context, dir uint32, name string) (uint32, error) {
	return 0, errSoon
}
func (g *Growing) Attr(row uint32) (Attr, error) { return Attr{}, errSoon }
func (g *Growing) Children(ctx context.Context, dir uint32, from int, yield func(int, Child) bool) error {
	return errSoon
}
func (g *Growing) ReadLink(row uint32) (string, error)          { return "", errSoon }
func (g *Growing) Xattrs(row uint32) ([]Xattr, error)           { return nil, errSoon }
func (g *Growing) Extents(row uint32) ([]Piece, error)          { return nil, errSoon }
func (g *Growing) NumRows() int                                 { return 0 }
func (g *Growing) Complete() bool                               { return true }
func (g *Growing) NumSpans() int                                { return 0 }
func (g *Growing) Span(i int) (off int64, size int, sum uint32) { return 0, 0, 0 }
func (g *Growing) StreamSize() int64                            { return 0 }

// Build makes the index of src in one pass. Close it.
func Build(ctx context.Context, src Source, opt BuildOptions) (*Index, error) { return nil, errSoon }

// ReaderOptions of a Reader; the zero value is good.
type ReaderOptions struct {
	// Memory bounds the bytes held for decoding, compressed and not; 32 MiB
	// if 0.
	Memory int64
	// ReadAhead bounds how far a sequence of reads is read ahead; 16 MiB if
	// 0, none if negative.
	ReadAhead int64
}

// Reader reads any byte of an object's stream, and of its files. It is safe
// for concurrent use. A read waits for nothing but its own spans, which it
// shares with others that want the same, and leaves at once when its context
// ends.
type Reader struct{}

// NewReader reads the stream that t describes, from spans, and where those
// have it not, by decoding src. spans may be nil.
func NewReader(t Table, src Source, spans Spans, opt ReaderOptions) *Reader { return &Reader{} }

// ReadAt reads len(p) bytes of the stream at off: fewer come with an error,
// which is io.EOF at the end.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) { return 0, errSoon }

// ReadFileAt reads len(p) bytes of the file row at off, holes as zeros: fewer
// come with an error, which is io.EOF at the end.
func (r *Reader) ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
	return 0, errSoon
}

// Prefetch decodes the spans of stream bytes [off, end) that are missing from
// Spans, at most ReadAhead at a time, and puts them there.
func (r *Reader) Prefetch(ctx context.Context, off, end int64) error { return errSoon }

// Close ends what is under way and waits for it. Reads then fail.
func (r *Reader) Close() error { return nil }

// Stats are counters of a Reader since it was made.
type Stats struct {
	Hits    int64 // spans found in Spans
	Decoded int64 // spans decoded
	Ahead   int64 // of them by reading ahead
	Fetched int64 // bytes read of the source
	Failed  int64 // decodings that failed
	Waiting int64 // reads that wait right now
}

// Stats is a snapshot.
func (r *Reader) Stats() Stats { return Stats{} }

// FS shows a complete Tree as an fs.FS, for tests and tools. Names that are
// no valid UTF-8 cannot be opened through it.
func FS(t Tree, r *Reader) fs.FS { return nil }

var (
	_ Table = (*Index)(nil)
	_ Table = (*Growing)(nil)
)
