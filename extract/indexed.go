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

// object is a body, and what decodes it.
type object struct {
	*body
	parts *index.Decoder // or nil: the body's own feed does it
}

func (o *object) close() {
	o.body.close()
	if o.parts != nil {
		o.parts.Close()
	}
}

// open finds out what the bytes are. The object must be closed, unless there
// was an error.
func open(src *source, opts Options) (*object, error) {
	if opts.Index != nil && runtime.GOMAXPROCS(0) > 1 {
		o, err := openIndexed(src, opts)
		if !errors.Is(err, index.ErrNotInOrder) {
			return o, err
		}
	}
	b, err := sniff(src, opts.Name, opts.ContentType)
	return &object{body: b}, err
}

// openIndexed is for a gzip whose index says where decoding can begin: then
// all processors decode. It passes through the same feed and is held against
// the same claims as any other object. What is decoded is checked to be what
// gzip's own checksums are of, so an index can make it fail and nothing else.
func openIndexed(src *source, opts Options) (*object, error) {
	read := rawDecoder(src)
	parts, err := index.NewDecoder(opts.Index, readFunc(func(p []byte) (int, error) {
		p, err := read(p)
		return len(p), err
	}), runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	// A part is decoded into memory of its own. The feed's buffers only stand
	// for parts: when it gives one to be filled again, nobody uses what it
	// stood for any more.
	lent := map[*byte]*index.Part{}
	feed := newFeed(func(buf []byte) ([]byte, error) {
		if p := lent[&buf[0]]; p != nil {
			lent[&buf[0]] = nil
			p.Free()
		}
		p, err := parts.Next()
		switch {
		case errors.Is(err, index.ErrCorrupt), errors.Is(err, index.ErrDamaged):
			return nil, fmt.Errorf("%w: %w", ErrIndex, err)
		case err != nil:
			return nil, err
		}
		lent[&buf[0]] = p
		return p.Data, nil
	})
	o := &object{body: &body{feed: feed, format: "gz"}, parts: parts}
	wantTar, _ := declared(opts.Name, opts.ContentType)
	if err := o.look(wantTar, false, claim(opts.Name, opts.ContentType)); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

// readFunc is an io.Reader.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
