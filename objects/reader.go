package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// firstBytes is what the request that opens a Reader asks for: enough for
	// most small objects, little enough to be kept.
	firstBytes = 256 << 10

	defaultRetryBudget = 15 * time.Minute
)

// ReaderOptions of a Reader. The zero value is right for most.
type ReaderOptions struct {
	Size        *int64            // bytes the object must have, as Object.SizeBytes; nil = unknown
	SHA256      string            // of the whole object in hex; "" = not checked
	RetryBudget time.Duration     // longest time without progress; 0 = 15 min
	IdleTimeout time.Duration     // longest wait for the next byte before reconnecting; 0 = 15 s
	Transport   http.RoundTripper // nil = one of its own, HTTP/1.1, with proxies by environment
}

// Reader reads one version of one object, pinned when it was opened: its size
// and its ETag, or Last-Modified where there is no strong ETag. Whatever the
// server sends later is held against that, so bytes of two versions are never
// mixed. It is safe for concurrent use.
//
// Besides the errors of the Minter, reading gives ErrChanged, ErrExpired or
// ErrCredentials (the URL is refused), ErrNotFound, ErrUnreachable (no
// progress within the budget), ErrNoRanges and ErrNoValidator.
type Reader struct {
	lease  *lease
	link   *link
	own    http.RoundTripper // to be closed with the Reader; nil: the caller's
	budget time.Duration
	sha256 []byte // nil: not checked
	stats  counters
	id     Identity

	mu    sync.Mutex
	first []byte // bytes [0, len(first)) of the object; guarded by mu, its content never changes
}

// Open finds out the object's size and identity, with one ranged GET that
// also brings its first bytes (URLs signed for GET refuse HEAD). It retries
// within the budget.
func Open(ctx context.Context, m Minter, opts ReaderOptions) (*Reader, error) {
	r := &Reader{budget: opts.RetryBudget}
	if r.budget <= 0 {
		r.budget = defaultRetryBudget
	}
	if opts.SHA256 != "" {
		sum, err := hex.DecodeString(opts.SHA256)
		if err != nil || len(sum) != 32 {
			return nil, fmt.Errorf("SHA-256 %q is not 64 hexadecimal digits", opts.SHA256)
		}
		r.sha256 = sum
	}
	r.lease = newLease(m, &r.stats)
	r.link = &link{rt: opts.Transport, idle: opts.IdleTimeout, stats: &r.stats}
	if r.link.rt == nil {
		r.own = newTransport(false)
		r.link.rt = r.own
	}
	if r.link.idle <= 0 {
		r.link.idle = defaultIdle
	}

	a := ask{end: firstBytes, size: opts.Size, hashed: r.sha256 != nil}
	_, err := retry(ctx, r.pacer(), func() (int, error) { return r.pin(ctx, a) })
	if err != nil {
		err = r.named("open", err)
		r.Close()
		return nil, err
	}
	return r, nil
}

// pin is one try of the first request.
func (r *Reader) pin(ctx context.Context, a ask) (int, error) {
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
	r.id = g.id
	if err != nil && (!r.provable() || isFinal(err)) {
		return 0, err // the rest may be of another object: all over again
	}
	if int64(n) == g.id.Size && !g.id.Proven() && r.sha256 != nil {
		// Nothing but its bytes can tell it from an error or login page.
		if got := sha256.Sum256(first); !bytes.Equal(got[:], r.sha256) {
			return 0, &protocolError{patient: true, msg: fmt.Sprintf("the answer (%d bytes without ETag) has not the object's SHA-256: is there a login page in between?", n)}
		}
	}
	r.first = first[:n]
	return n, nil
}

// provable says whether a later answer can be told from one of another
// version, at once by a validator or in the end by the SHA-256.
func (r *Reader) provable() bool { return r.id.Proven() || r.sha256 != nil }

func (r *Reader) pacer() *pacer {
	return &pacer{budget: r.budget, retried: func() { r.stats.retries.Add(1) }}
}

// named says of an error what was being done and to what, and redacts it.
func (r *Reader) named(verb string, err error) error {
	if err == nil || err == io.EOF || err == context.Canceled {
		return err
	}
	what := "object"
	// The lease is not waited for: who holds it may take long.
	select {
	case r.lease.flight <- struct{}{}:
		if r.lease.url != nil {
			what = "object at " + RedactURL(r.lease.url.String())
		}
		r.lease.unlock()
	default:
	}
	return Redact(fmt.Errorf("%s %s: %w", verb, what, err))
}

// Size is the object's size in bytes.
func (r *Reader) Size() int64 { return r.id.Size }

// Identity is what was pinned when the Reader was opened.
func (r *Reader) Identity() Identity { return r.id }

// Stats is a snapshot.
func (r *Reader) Stats() Stats { return r.stats.snapshot() }

// Close releases connections. Streams must be closed first.
func (r *Reader) Close() error {
	if r.own != nil {
		closeIdle(r.own)
	}
	return nil
}

// copyFirst copies those of bytes [off, off+len(p)) that the first request
// brought.
func (r *Reader) copyFirst(p []byte, off int64) int {
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	if off >= int64(len(first)) {
		return 0
	}
	return copy(p, first[off:])
}

// ReadAtContext reads len(p) bytes at off, like io.ReaderAt: fewer bytes come
// with an error, which is io.EOF at the end of the object.
func (r *Reader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read object: negative offset")
	}
	if off >= r.id.Size {
		return 0, io.EOF
	}
	var err error
	if int64(len(p)) > r.id.Size-off {
		p, err = p[:r.id.Size-off], io.EOF
	}
	n := r.copyFirst(p, off)
	if n == len(p) {
		return n, err
	}
	f := &feed{r: r, ctx: ctx, off: off + int64(n), end: off + int64(len(p)), pace: r.pacer()}
	defer f.close()
	for n < len(p) {
		m, ferr := f.read(p[n:])
		n += m
		if ferr != nil {
			return n, r.named("read", ferr)
		}
	}
	return n, err
}
