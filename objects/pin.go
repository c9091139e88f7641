package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
)

// A Reader is pinned to one version of the object by the first answer it
// gets, or by ReaderOptions.Identity. There are two ways to the first answer:
//
//	Open, or the first Stream ──meet──→ pin: bytes [0, 256 KiB), which are kept
//	the first ReadAtContext of a lazy Reader ──→ settle: whatever range it is
//
// Several reads may be the first at the same time. The one whose answer comes
// first pins, and the others' answers are held against it.

// meet makes sure that the server has been heard of once.
func (r *Reader) meet(ctx context.Context) error {
	if r.met.Load() {
		return nil
	}
	select {
	case r.meeting <- struct{}{}:
		defer func() { <-r.meeting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if id := r.id.Load(); r.met.Load() || id != nil && id.Size == 0 {
		return nil
	}
	_, err := retry(ctx, r.pacer(), func() (int, error) { return r.pin(ctx) })
	return err
}

// pin is one try of the opening request.
func (r *Reader) pin(ctx context.Context) (int, error) {
	if _, _, err := r.lease.get(ctx); err != nil { // where will it go?
		return 0, err
	}
	leave, err := r.net.gate.pass(ctx, r.lease.where(), true)
	if err != nil {
		return 0, err
	}
	defer leave()
	a := r.ask(0, firstBytes)
	a.opening = true
	b, g, err := r.request(ctx, a)
	if err == errAskWhole {
		// An empty object has no range to give; some servers say so by 416.
		a.whole = true
		b, g, err = r.request(ctx, a)
	}
	if err != nil {
		return 0, err
	}
	defer b.Close()
	first := make([]byte, g.n)
	n, err := io.ReadFull(b, first)
	r.stats.bytes.Add(int64(n))
	if err != nil && (!g.id.Proven() && r.sha256 == nil || isFinal(err)) {
		return 0, err // the rest may be of another object: all over again
	}
	if int64(n) == g.id.Size && !g.id.Proven() && r.sha256 != nil {
		// Nothing but its bytes can tell it from an error or login page.
		if got := sha256.Sum256(first); !bytes.Equal(got[:], r.sha256) {
			return 0, &protocolError{patient: true, msg: fmt.Sprintf("the answer (%d bytes without ETag) has not the object's SHA-256: is there a login page in between?", n)}
		}
	}
	r.id.CompareAndSwap(nil, &g.id)
	if g.sure {
		r.ranges.Store(true)
	}
	r.met.Store(true)
	r.mu.Lock()
	r.first = first[:n]
	r.mu.Unlock()
	return n, nil
}

// ask is what a request for bytes [off, end) says and expects now.
func (r *Reader) ask(off, end int64) ask {
	return ask{off: off, end: end, pinned: r.id.Load(), size: r.size, hashed: r.sha256 != nil, ranged: r.ranges.Load()}
}

// settle judges the head of a 200 or 206, and pins what it tells if nothing
// is pinned yet.
func (r *Reader) settle(a ask, status int, h http.Header, length int64) (grant, error) {
	r.mu.Lock() // no answer is judged while another pins
	defer r.mu.Unlock()
	if a.pinned == nil {
		a.pinned = r.id.Load() // by another request in the meantime
	}
	g, err := a.judge(status, h, length)
	if err != nil || a.opening {
		return g, err // pin decides when it has seen the bytes
	}
	if a.pinned == nil {
		if !g.id.Proven() {
			return g, permanent(unprovable(a.off))
		}
		r.id.Store(&g.id)
	}
	if g.sure {
		r.ranges.Store(true)
		r.met.Store(true)
	}
	return g, nil
}

// provable says whether a later answer can be told from one of another
// version, at once by a validator or in the end by the SHA-256.
func (r *Reader) provable() bool { return r.Identity().Proven() || r.sha256 != nil }

// firstFrom gives those bytes from off on that the opening request brought.
func (r *Reader) firstFrom(off int64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off >= int64(len(r.first)) {
		return nil
	}
	return r.first[off:]
}

// refetch forgets what the opening request brought, and the connections.
func (r *Reader) refetch() {
	r.mu.Lock()
	r.first = nil
	r.mu.Unlock()
	closeIdle(r.link.rt)
}
