package index

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"objectmount/internal/inflate"
)

// BuildOptions say what is indexed, and how. The zero value is useful.
type BuildOptions struct {
	// Object is put into the index. Its Size is the Source's.
	Object ObjectID
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

// A Builder makes an index of what it is told, by whoever reads the object
// anyway: a first pass, or an extraction. It wants
//
//   - Format, once, before all else;
//   - of a gzip, the decoder's points: Cut and Point, as inflate.Options'
//     OnCut and OnPoint have them;
//   - all bytes of the stream, in order: Bytes. The cuts among them come before;
//   - of a tar, each entry: Entry. The bytes may be ahead of it, or behind;
//   - and Finish, when the stream has ended well and all checksums were right.
//
// The index that comes out depends on the object and the options alone, not on
// the pieces in which it was told. Methods may be called by several
// goroutines, of each kind by one.
type Builder struct {
	mu       sync.RWMutex // guards all
	c        contents
	ready    bool
	finished bool
}

var errNotFinished = errors.New("index: the builder has not been told everything")

// NewBuilder returns a Builder. Of opt it heeds Object, Limits and, for Skim,
// that there will be no bytes.
func NewBuilder(opt BuildOptions) *Builder {
	return &Builder{c: contents{
		object: opt.Object, tree: newTreeBuilder(opt.Limits), spans: &spanBuilder{sums: !opt.Skim},
	}}
}

// Format says whether the object is a gzip and whether the stream is a tar.
func (b *Builder) Format(gzip, tar bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.gzip, b.c.tar, b.c.spans.gzip, b.ready = gzip, tar, gzip, true
	if gzip {
		b.c.spans.sums = true
	}
	if !tar { // the root is the file
		*b.c.tree.rows.at(0) = row{class: b.c.tree.class(class{typ: TypeFile, mode: 0o644})}
	}
}

// Cut says where the next point lies: at which bit of the object, and at which
// byte of the stream.
func (b *Builder) Cut(in, out int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.spans.cut(in, out)
}

// Point tells the next point. Its slices are copied.
func (b *Builder) Point(p inflate.Point) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.c.spans.point(p)
}

// Bytes tells the next bytes of the stream. They are not kept.
func (b *Builder) Bytes(p []byte) {
	for len(p) > 0 {
		n, _ := b.bytes(p)
		p = p[n:]
	}
}

// bytes is spanBuilder.bytes.
func (b *Builder) bytes(p []byte) (n int, ended bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ended = b.c.spans.bytes(p)
	if !b.c.tar && b.ready {
		b.c.tree.rows.at(0).size = b.c.spans.off
	}
	return n, ended
}

// Entry tells the next entry of the tar. What extraction would refuse is
// refused, with a *TarError that wraps ErrTarUnsafe or ErrTarLimit.
func (b *Builder) Entry(e *Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, refusal := b.c.tree.add(e); refusal != nil {
		refusal.Name, refusal.Offset = string(e.Name), e.Offset
		return refusal
	}
	return nil
}

// Finish says that the object has ended, after size bytes as stored.
func (b *Builder) Finish(size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ready {
		return errNotFinished
	}
	b.c.object.Size, b.c.stream = size, b.c.spans.off
	if !b.c.gzip && !b.c.spans.sums {
		b.c.stream = size
		if !b.c.tar {
			b.c.tree.rows.at(0).size = size
		}
	} else if err := b.c.spans.finish(); err != nil {
		return err
	}
	if !b.c.gzip && b.c.stream != size {
		return fmt.Errorf("%w: %d bytes of %d were seen", errNotFinished, b.c.stream, size)
	}
	b.finished = true
	return nil
}

// Save writes the finished index to path, by rename, and opens it; "" is in
// memory. The Builder is of no more use then.
func (b *Builder) Save(path string) (*Index, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.finished {
		return nil, errNotFinished
	}
	b.finished = false
	giveBack(b.c.tree.rows.n)
	want := b.c.object
	if path == "" {
		data, err := b.c.toMemory()
		if err != nil {
			return nil, err
		}
		return Parse(data, want)
	}
	if err := b.c.toFile(path); err != nil {
		return nil, err
	}
	return Open(path, want)
}

// giveBack gives back to the system what the collector would get to later, when
// the rows of a large archive have been made or are not needed any more. A
// million rows are some 70 MB, and while they are made there may be as much
// again of garbage; from then on there is the mapped file besides. It takes
// milliseconds, as rows hold no pointers.
func giveBack(rows int) {
	if rows > 1<<17 {
		debug.FreeOSMemory()
	}
}
