package objects

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// A body slower than this over so much time of waiting is given up for a new
// connection, which often is fast where the old one was stuck.
const (
	slowWindow = 30 * time.Second
	slowBytes  = 16 << 10 * int64(slowWindow/time.Second)
)

// body is what an answer's body is read through. It gives exactly the bytes
// granted, or an error: a connection that ends early is an error, and so is
// one that goes silent, creeps, or brings more than was announced.
type body struct {
	rc      io.ReadCloser
	w       *watch
	stall   *stallError
	net     *Network
	left    int64 // bytes still owed
	counted bool  // net/http itself holds the body to a Content-Length
	more    bool  // the answer goes on after what is wanted

	waited time.Duration // in the present window
	got    int64         // in the present window
}

// newBody guards resp's body, of which n bytes are wanted from where it is.
func newBody(resp *http.Response, w *watch, l *link, n int64) *body {
	return &body{rc: resp.Body, w: w, stall: &stallError{"no byte", l.idle}, net: l.net, left: n,
		counted: resp.ContentLength >= 0, more: resp.ContentLength > n}
}

// Read gives io.EOF after the last granted byte and nowhere else.
func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.wait(b.net.cut(p))
	b.left -= int64(n)
	if serr := b.net.spend(b.w.ctx, n); serr != nil && err == nil {
		err = serr
	}
	switch {
	case b.left == 0:
		return b.finish(n)
	case err == io.EOF, err == io.ErrUnexpectedEOF:
		return n, fmt.Errorf("connection closed %d bytes early", b.left)
	case err != nil:
		return n, b.w.cause(err)
	case b.waited >= slowWindow:
		slow := b.got < slowBytes
		b.waited, b.got = 0, 0
		if slow {
			return n, errSlow
		}
	}
	return n, nil
}

var errSlow = errors.New("less than 16 KiB/s for 30s")

// wait reads under the watch, and keeps the account of the rate.
func (b *body) wait(p []byte) (int, error) {
	start := time.Now()
	b.w.arm(b.stall)
	n, err := b.rc.Read(p)
	b.w.disarm()
	b.waited += time.Since(start)
	b.got += int64(n)
	return n, err
}

// finish reads past the last byte, to see the end: only then may the
// connection be used again, and an answer that goes on is a lie. The n bytes
// just read are given only when it is none.
func (b *body) finish(n int) (int, error) {
	if b.more {
		return n, nil
	}
	extra, _ := b.wait(make([]byte, 1)) // any error will do: all bytes are here
	if extra > 0 && !b.counted {
		return 0, permanent(errors.New("the server sent more bytes than it announced"))
	}
	return n, nil
}

// Close ends the answer and its watch.
func (b *body) Close() error {
	err := b.rc.Close()
	b.w.stop()
	return err
}

var _ io.ReadCloser = (*body)(nil)
