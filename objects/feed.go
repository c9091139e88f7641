package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// feed gives bytes [off, end) of a Reader's object in order, over as many
// requests as that takes, one at a time: it resumes at the first missing byte
// by the retry law. It is the engine below everything that reads: ReadAt uses
// one, a stream one for each of its parts.
//
// It belongs to one goroutine, and to the call or stream whose ctx it has.
type feed struct {
	r        *Reader
	ctx      context.Context
	off, end int64
	pace     *pacer
	sent     func() // called whenever a request goes out; may be nil
	slow     func() // called when the server asks for fewer requests; may be nil
	body     *body  // the open answer; nil: none
	meagre   bool   // the open answer is much shorter than what was asked for
	failed   error  // what ended the last answer after its bytes had been given
}

// read gives at least one byte, or an error. io.EOF means end was reached.
func (f *feed) read(p []byte) (int, error) {
	if f.off >= f.end {
		return 0, io.EOF
	}
	if f.body != nil { // in the middle of a body, where nearly all reads are
		n, err := f.try(p)
		if err == nil {
			return n, nil
		}
		f.failed = err
	}
	n, err := retry(f.ctx, f.pace, func() (int, error) { return f.try(p) })
	if errors.Is(err, ErrNoRanges) {
		f.r.ranges.Store(false) // who begins again does so in one piece
	}
	return n, err
}

// try is one try: open the rest where there is nothing open, and read.
func (f *feed) try(p []byte) (int, error) {
	if err := f.failed; err != nil {
		f.failed = nil
		return 0, err
	}
	if f.body == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	n, err := 0, error(nil)
	for empty := 0; n == 0 && err == nil; empty++ {
		if n, err = f.body.Read(p); empty == 100 && n == 0 && err == nil {
			err = io.ErrNoProgress
		}
	}
	f.off += int64(n)
	f.r.stats.bytes.Add(int64(n))
	if err == nil && f.body.left == 0 && f.meagre && f.off < f.end {
		// Allowed, but a server that gives every byte by itself would be
		// asked for ever without a pause.
		err = errMeagre
	}
	if err != nil || f.body.left == 0 {
		f.close()
	}
	if n == 0 {
		return 0, err
	}
	f.pace.progress(n, f.off == f.end)
	f.failed = err
	return n, nil
}

var errMeagre = errors.New("the server gives only crumbs of the range asked for")

// open asks for the rest of the range.
func (f *feed) open() error {
	if id := f.r.id.Load(); f.off > 0 && id != nil && !f.r.provable() {
		return permanent(unprovable(f.off))
	}
	a := f.r.ask(f.off, f.end)
	a.sent = f.sent
	b, g, err := f.r.request(f.ctx, a)
	if err != nil {
		if e := (*APIError)(nil); f.slow != nil && errors.As(err, &e) &&
			(e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable) {
			f.slow()
		}
		return err
	}
	f.meagre = g.n < progressBytes
	f.body = b
	return nil
}

func unprovable(off int64) error {
	return fmt.Errorf("%w: bytes from %d on cannot be proven to be of the same object: give its SHA-256, or begin again from 0", ErrNoValidator, off)
}

func (f *feed) close() {
	if f.body != nil {
		f.body.Close()
		f.body = nil
	}
}
