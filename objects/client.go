// Package objects speaks the Storage Objects API and reads an object's bytes
// through a URL that expires. (Skeleton: the chapter follows.)
package objects

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"time"
)

// DefaultBaseURL is the public API.
const DefaultBaseURL = "https://api.runloop.ai"

var errSkeleton = errors.New("objects: being written")

// Options of a Client. The zero value speaks to the public API without a key.
type Options struct {
	BaseURL   string            // where the API is, with or without a path prefix and trailing slash; "" = DefaultBaseURL
	Key       Secret            // the API key, sent as a bearer token to BaseURL only
	Timeout   time.Duration     // of a whole call with its retries; 0 = 60 s
	Transport http.RoundTripper // nil = one of its own, with proxies by environment
	UserAgent string            // "" = "objectmount"
}

// Client speaks the Storage Objects API. It is safe for concurrent use.
type Client struct{}

// New makes a Client. It refuses a base URL or a key that cannot work; it
// sends nothing.
func New(opts Options) (*Client, error) { return nil, errSkeleton }

// Close closes idle connections. The client can still be used.
func (c *Client) Close() error { return nil }

// Create makes an object in state UPLOADING; its UploadURL takes the bytes.
func (c *Client) Create(ctx context.Context, req CreateRequest) (Object, error) {
	return Object{}, errSkeleton
}

// Complete ends an upload: the object is readable when it returns.
func (c *Client) Complete(ctx context.Context, id string) (Object, error) {
	return Object{}, errSkeleton
}

// Get tells of one object. A deleted one is still told of, with its state.
func (c *Client) Get(ctx context.Context, id string) (Object, error) { return Object{}, errSkeleton }

// Delete deletes an object. Deleting it twice is no error.
func (c *Client) Delete(ctx context.Context, id string) (Object, error) { return Object{}, errSkeleton }

// List gives one page.
func (c *Client) List(ctx context.Context, q ListQuery) (ListPage, error) {
	return ListPage{}, errSkeleton
}

// All gives every object of the listing, fetching page after page as the
// loop goes on. An error is given once, with a zero Object, and ends it.
func (c *Client) All(ctx context.Context, q ListQuery) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) { yield(Object{}, errSkeleton) }
}

// MetadataKeys lists the metadata keys in use in the account.
func (c *Client) MetadataKeys(ctx context.Context) ([]string, error) { return nil, errSkeleton }

// MetadataValues lists the values that a metadata key has in the account.
func (c *Client) MetadataValues(ctx context.Context, key string) ([]string, error) {
	return nil, errSkeleton
}

// SignedURL is a URL that gives an object's bytes to whoever holds it.
type SignedURL struct {
	URL     Secret
	Issued  time.Time // by the server's clock; zero = unknown
	Expires time.Time // by the server's clock; zero = unknown
}

// DownloadURL mints a URL for an object's bytes that is valid for about that
// long (whole seconds, at least 1; 0 = the server's default, an hour).
func (c *Client) DownloadURL(ctx context.Context, id string, valid time.Duration) (SignedURL, error) {
	return SignedURL{}, errSkeleton
}

// Body is what an upload sends.
type Body struct {
	Open func() (io.ReadCloser, error) // called once per try; a source that can be read only once fails the second time
	Size int64                         // bytes, exactly; -1 = unknown: sent chunked
}

// Upload creates an object, puts the body and completes it. If that fails
// after the creation, the half-made object is deleted again and the error
// says so. progress may be nil; it is told the bytes sent of the current try.
func (c *Client) Upload(ctx context.Context, req CreateRequest, body Body, progress func(sent int64)) (Object, error) {
	return Object{}, errSkeleton
}
