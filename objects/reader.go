package objects

import (
	"context"
	"io"
	"net/http"
	"time"
)

// Minter makes URLs for one object. Mint is called at the start, before a URL
// expires and when it is refused; never twice at the same time by one Reader.
type Minter interface {
	Mint(ctx context.Context) (SignedURL, error)
}

// Minter mints URLs of one object by the API, each valid for that long.
func (c *Client) Minter(id string, valid time.Duration) Minter { return FixedURL("") }

// FixedURL is the Minter of a URL that was given by hand: it cannot be
// renewed, so a refusal is ErrExpired.
func FixedURL(raw Secret) Minter { return fixedURL(raw) }

type fixedURL Secret

// Mint gives the URL itself.
func (u fixedURL) Mint(context.Context) (SignedURL, error) { return SignedURL{URL: Secret(u)}, nil }

// Identity says which bytes an object has: two readings with the same
// Identity read the same bytes. It is comparable and goes into state files.
type Identity struct {
	ETag         string `json:"etag,omitempty"`          // a strong ETag with its quotes; "" = none
	LastModified string `json:"last_modified,omitempty"` // as the server wrote it; "" = none
	Size         int64  `json:"size"`
}

// ReaderOptions of a Reader. The zero value is right for most.
type ReaderOptions struct {
	Size        *int64            // bytes the object must have, as Object.SizeBytes; nil = unknown
	SHA256      string            // of the whole object in hex; "" = not checked
	RetryBudget time.Duration     // longest time without progress; 0 = 15 min
	IdleTimeout time.Duration     // longest wait for the next byte before reconnecting; 0 = 15 s
	Transport   http.RoundTripper // nil = one of its own, HTTP/1.1, with proxies by environment
}

// Reader reads one version of one object, pinned when it was opened. It is
// safe for concurrent use.
type Reader struct{}

// Open finds out the object's size and identity, with the request that also
// brings its first bytes. It retries within the budget.
func Open(ctx context.Context, m Minter, opts ReaderOptions) (*Reader, error) {
	return nil, errSkeleton
}

// Size is the object's size in bytes.
func (r *Reader) Size() int64 { return 0 }

// Identity is what was pinned when the Reader was opened.
func (r *Reader) Identity() Identity { return Identity{} }

// Stats is what a Client or a Reader has done so far.
type Stats struct {
	Requests int64 `json:"requests"` // HTTP requests sent
	Retries  int64 `json:"retries"`  // tries that failed and were followed by another
	Renewals int64 `json:"renewals"` // URLs minted after the first
	Bytes    int64 `json:"bytes"`    // object bytes received or sent
}

// Stats is a snapshot.
func (r *Reader) Stats() Stats { return Stats{} }

// Stream reads from off to the end, resuming and renewing on the way. It
// gives io.EOF only after the last byte. ctx bounds its whole life.
func (r *Reader) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	return nil, errSkeleton
}

// ReadAtContext reads len(p) bytes at off, like io.ReaderAt: fewer bytes come
// with an error, which is io.EOF at the end of the object.
func (r *Reader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, errSkeleton
}

// Download writes the object to path by way of path.part, which a later call
// resumes. progress may be nil.
func (r *Reader) Download(ctx context.Context, path string, progress func(done, total int64)) error {
	return errSkeleton
}

// Close releases connections. Streams must be closed first.
func (r *Reader) Close() error { return nil }
