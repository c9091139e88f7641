package objects

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
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
	Identity    *Identity         // what the object must be, as an index or an earlier Reader knows it; nil = unknown
	Lazy        bool              // Open sends nothing if Size or Identity is given: the first reading pins
	SHA256      string            // of the whole object in hex; "" = not checked
	RetryBudget time.Duration     // longest time without progress; 0 = 15 min
	IdleTimeout time.Duration     // longest wait for the next byte before reconnecting; 0 = 15 s
	HedgeAfter  time.Duration     // a single read asks twice after so much silence; 0 = by experience, < 0 = never
	Network     *Network          // limits shared with other Readers; nil = its own, with the defaults
	Transport   http.RoundTripper // nil = one of its own, HTTP/1.1, with proxies by environment
}

// Reader reads one version of one object, pinned by its first answer: its size
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
	net    *Network
	size   *int64 // the options' Size; nil: unknown
	stats  counters
	waits  experience

	id      atomic.Pointer[Identity] // nil: nothing is pinned yet
	met     atomic.Bool              // the server has answered once
	ranges  atomic.Bool              // it has been seen to serve ranges
	meeting chan struct{}            // held by who makes the opening request

	mu    sync.Mutex // held while an answer is judged
	first []byte     // bytes [0, len(first)) of the object; guarded by mu, its content never changes
}

// Open finds out the object's size and identity, with one ranged GET that
// also brings its first bytes (URLs signed for GET refuse HEAD). It retries
// within the budget. A lazy Reader is opened without any request.
func Open(ctx context.Context, m Minter, opts ReaderOptions) (*Reader, error) {
	r := &Reader{budget: opts.RetryBudget, size: opts.Size, net: opts.Network, meeting: make(chan struct{}, 1)}
	r.waits.fixed = opts.HedgeAfter
	if r.net == nil {
		r.net = NewNetwork(Limits{})
	}
	if id := opts.Identity; id != nil {
		known := *id
		if r.size != nil && *r.size != known.Size {
			return nil, fmt.Errorf("open object: %w: it had %d bytes and has %d", ErrChanged, known.Size, *r.size)
		}
		r.size = &known.Size
		if known.Proven() { // else it tells no more than a size
			r.id.Store(&known)
		}
	}
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
	r.link = &link{rt: opts.Transport, idle: opts.IdleTimeout, stats: &r.stats, net: r.net}
	if r.link.rt == nil {
		r.own = newTransport(false)
		r.link.rt = r.own
	}
	if r.link.idle <= 0 {
		r.link.idle = defaultIdle
	}

	if opts.Lazy && r.size != nil {
		return r, nil
	}
	if err := r.meet(ctx); err != nil {
		err = r.named("open", err)
		r.Close()
		return nil, err
	}
	return r, nil
}

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
func (r *Reader) Size() int64 { return r.Identity().Size }

// Identity is what is pinned. Of a lazy Reader without ReaderOptions.Identity
// it is the size alone until the first answer.
func (r *Reader) Identity() Identity {
	if id := r.id.Load(); id != nil {
		return *id
	}
	return Identity{Size: *r.size}
}

// Ranged says whether any part of the object can be read by itself: the server
// has been seen to serve ranges, and answers can be told from those of another
// version. It is false before the first answer.
func (r *Reader) Ranged() bool { return r.ranges.Load() && r.Identity().Proven() }

// Stats is a snapshot.
func (r *Reader) Stats() Stats { return r.stats.snapshot() }

// Close releases connections. Streams must be closed first.
func (r *Reader) Close() error {
	if r.own != nil {
		closeIdle(r.own)
	}
	return nil
}
