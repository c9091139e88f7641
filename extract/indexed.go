package extract

import (
	"errors"
	"fmt"
	"runtime"

	"objectmount/index"
)

// ErrIndex: with Options.Index the object could not be decoded. Whether object
// or index is at fault, extraction without the index tells.
var ErrIndex = errors.New("the object cannot be decoded by its index")

// open finds out what the bytes are. The body must be closed, unless there was
// an error.
func open(src *source, opts Options) (*body, error) {
	if opts.Index != nil && runtime.GOMAXPROCS(0) > 1 {
		b, err := openIndexed(src, opts)
		if !errors.Is(err, index.ErrNotInOrder) {
			return b, err
		}
	}
	return sniff(src, opts.Name, opts.ContentType)
}

// openIndexed is for a gzip whose index says where decoding can begin: then
// all processors decode. It passes through the same feed and is held against
// the same claims as any other object. What is decoded is checked to be what
// gzip's own checksums are of, so an index can make it fail and nothing else.
func openIndexed(src *source, opts Options) (*body, error) {
	whole := &copier{src: src}
	parts, err := index.NewDecoder(opts.Index, readFunc(func(p []byte) (int, error) {
		data, err := whole.fill(p).Finish()
		return len(data), err
	}), runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	b := &body{feed: newFeed(byIndex{parts}), format: "gz"}
	wantTar, _ := declared(opts.Name, opts.ContentType)
	if err := b.look(wantTar, false, claim(opts.Name, opts.ContentType)); err != nil {
		b.close()
		return nil, b.explain(err)
	}
	return b, nil
}

// byIndex is a decoder whose parts are decoded into memory of their own, on
// goroutines of their own.
type byIndex struct{ parts *index.Decoder }

func (d byIndex) help() bool { return false }
func (d byIndex) close()     { d.parts.Close() }

func (d byIndex) fill([]byte) part {
	p, err := d.parts.Next()
	if errors.Is(err, index.ErrCorrupt) || errors.Is(err, index.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrIndex, err)
	}
	return indexedPart{p, err}
}

// indexedPart is a part, or an error.
type indexedPart struct {
	p   *index.Part
	err error
}

func (i indexedPart) Last() bool      { return i.err != nil }
func (i indexedPart) Elsewhere() bool { return true }

func (i indexedPart) Finish() ([]byte, error) {
	if i.err != nil {
		return nil, i.err
	}
	return i.p.Data, nil
}

func (i indexedPart) Release() {
	if i.err == nil {
		i.p.Free()
	}
}

// readFunc is an io.Reader.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
