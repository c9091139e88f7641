package objects

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxID bounds an object's id; real ones have 25 characters.
const maxID = 128

// checkID refuses a text that cannot be an id before it becomes part of a
// path: with "../.." the server would be asked for something else.
func checkID(id string) error {
	bad := func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	}
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, bad) {
		if len(id) > maxID {
			id = id[:maxID] + "…"
		}
		return fmt.Errorf("%q is %w (such as obj_31CYd5LLFbBxst8mqnUjO)", scrub(id), ErrBadID)
	}
	return nil
}

// object does a call that is answered with one object.
func (c *Client) object(ctx context.Context, op, method, path string, body any) (Object, error) {
	var o Object
	if _, err := c.do(ctx, call{op: op, method: method, path: path, body: body}, &o); err != nil {
		return Object{}, err
	}
	if err := checkID(o.ID); err != nil {
		return Object{}, fmt.Errorf("%s: the server's answer: %w", op, err)
	}
	return o, nil
}

// ofObject does a call about one object.
func (c *Client) ofObject(ctx context.Context, verb, method, id, suffix string, body any) (Object, error) {
	if err := checkID(id); err != nil {
		return Object{}, err
	}
	op := verb + " object " + id
	o, err := c.object(ctx, op, method, "/v1/objects/"+id+suffix, body)
	if err == nil && o.ID != id {
		return Object{}, fmt.Errorf("%s: the server answered with object %s", op, o.ID)
	}
	return o, err
}

// Create makes an object in state UPLOADING; its UploadURL takes the bytes.
func (c *Client) Create(ctx context.Context, req CreateRequest) (Object, error) {
	switch {
	case req.Name == "":
		return Object{}, errors.New("create object: it needs a name")
	case !req.ContentType.Valid():
		return Object{}, fmt.Errorf("create object %q: content type %q is none of %v", req.Name, req.ContentType, contentTypes)
	}
	return c.object(ctx, fmt.Sprintf("create object %q", req.Name), http.MethodPost, "/v1/objects", req)
}

// Complete ends an upload: the object is readable when it returns.
func (c *Client) Complete(ctx context.Context, id string) (Object, error) {
	return c.ofObject(ctx, "complete", http.MethodPost, id, "/complete", struct{}{})
}

// Get tells of one object. A deleted one is still told of, with its state.
func (c *Client) Get(ctx context.Context, id string) (Object, error) {
	return c.ofObject(ctx, "get", http.MethodGet, id, "", nil)
}

// Delete deletes an object. Deleting it twice is no error.
func (c *Client) Delete(ctx context.Context, id string) (Object, error) {
	return c.ofObject(ctx, "delete", http.MethodPost, id, "/delete", struct{}{})
}

// List gives one page.
func (c *Client) List(ctx context.Context, q ListQuery) (ListPage, error) {
	v := url.Values{}
	set := func(key, value string) {
		if value != "" {
			v.Set(key, value)
		}
	}
	if q.Limit > 0 {
		set("limit", strconv.Itoa(q.Limit))
	}
	set("starting_after", q.StartingAfter)
	set("name", q.Name)
	set("search", q.Search)
	set("content_type", string(q.ContentType))
	set("state", string(q.State))
	if q.NoTotal {
		set("include_total_count", "false")
	}
	k := call{op: "list objects", method: http.MethodGet, path: "/v1/objects", query: v}
	if q.Public {
		k.op, k.path = "list public objects", "/v1/objects/list_public"
	}
	var page ListPage
	_, err := c.do(ctx, k, &page)
	return page, err
}

// All gives every object of the listing, fetching page after page as the
// loop goes on. An error is given once, with a zero Object, and ends it.
func (c *Client) All(ctx context.Context, q ListQuery) iter.Seq2[Object, error] {
	q.NoTotal = true
	if q.Limit <= 0 {
		q.Limit = 200
	}
	return func(yield func(Object, error) bool) {
		q := q
		for {
			page, err := c.List(ctx, q)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range page.Objects {
				if !yield(o, nil) {
					return
				}
			}
			if !page.HasMore || len(page.Objects) == 0 {
				return
			}
			last := page.Objects[len(page.Objects)-1].ID
			if last == q.StartingAfter {
				yield(Object{}, fmt.Errorf("list objects: %s gave the page after %s twice", c.base.Host, last))
				return
			}
			q.StartingAfter = last
		}
	}
}

// MetadataKeys lists the metadata keys in use in the account.
func (c *Client) MetadataKeys(ctx context.Context) ([]string, error) {
	var out struct{ Keys []string }
	_, err := c.do(ctx, call{op: "list metadata keys", method: http.MethodGet, path: "/v1/objects/metadata/keys"}, &out)
	return out.Keys, err
}

// MetadataValues lists the values that a metadata key has in the account.
func (c *Client) MetadataValues(ctx context.Context, key string) ([]string, error) {
	op := fmt.Sprintf("list values of metadata key %q", key)
	if key == "" || key == "." || key == ".." {
		return nil, fmt.Errorf("%s: that cannot be a key", op)
	}
	var out struct{ Values []string }
	_, err := c.do(ctx, call{op: op, method: http.MethodGet,
		path: "/v1/objects/metadata/keys/" + url.PathEscape(key) + "/values"}, &out)
	return out.Values, err
}

// SignedURL is a URL that gives an object's bytes to whoever holds it.
type SignedURL struct {
	URL     Secret
	Issued  time.Time // by the server's clock; zero = unknown
	Expires time.Time // by the server's clock; zero = unknown
}

// DownloadURL mints a URL for an object's bytes that is valid for about that
// long (whole seconds, at least 1; 0 = the server's default, an hour). An
// object that was deleted is ErrDeleted.
func (c *Client) DownloadURL(ctx context.Context, id string, valid time.Duration) (SignedURL, error) {
	if err := checkID(id); err != nil {
		return SignedURL{}, err
	}
	k := call{op: "get download URL of object " + id, method: http.MethodGet, path: "/v1/objects/" + id + "/download"}
	if valid > 0 {
		valid = max(valid.Truncate(time.Second), time.Second)
		k.query = url.Values{"duration_seconds": {strconv.FormatInt(int64(valid/time.Second), 10)}}
	} else {
		valid = time.Hour
	}
	var out struct {
		DownloadURL Secret `json:"download_url"`
		ExpiresAtMS int64  `json:"expires_at_ms"` // of our own server only
	}
	issued, err := c.do(ctx, k, &out)
	if e := (*APIError)(nil); errors.As(err, &e) && e.Status == http.StatusBadRequest {
		// The API says 400 of a deleted object. Only the object's state
		// tells that apart from a bad parameter.
		if o, gerr := c.Get(ctx, id); gerr == nil && o.State == StateDeleted {
			return SignedURL{}, fmt.Errorf("get download URL: %w: %s", ErrDeleted, id)
		} else if gerr == nil && o.State != StateReadOnly {
			return SignedURL{}, fmt.Errorf("object %s is not complete, its state is %s: %w", id, o.State, err)
		}
	}
	if err != nil {
		return SignedURL{}, err
	}
	u, err := parseSigned(out.DownloadURL)
	if err != nil {
		return SignedURL{}, fmt.Errorf("%s: %s answered: %w", k.op, c.base.Host, err)
	}
	s := SignedURL{URL: out.DownloadURL, Issued: issued, Expires: issued.Add(valid)}
	if from, to := lifeOf(u); !to.IsZero() {
		s.Expires = to
		if !from.IsZero() {
			s.Issued = from
		}
	} else if out.ExpiresAtMS > 0 {
		s.Expires = time.UnixMilli(out.ExpiresAtMS)
	}
	return s, nil
}
