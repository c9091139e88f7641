package objects

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// DefaultBaseURL is the public API.
const DefaultBaseURL = "https://api.runloop.ai"

const (
	defaultTimeout = 60 * time.Second
	// attemptTimeout bounds one try of an API call, as the public clients do.
	attemptTimeout = 30 * time.Second
	// maxAnswer bounds a JSON answer; a page of 5000 objects with metadata
	// has room in it.
	maxAnswer = 32 << 20
	// maxConflicts is how often a 409 is tried again: one that did not say
	// x-should-retry is rarely transient.
	maxConflicts = 4
)

// Options of a Client. The zero value speaks to the public API without a key.
type Options struct {
	BaseURL   string            // where the API is, with or without a path prefix and trailing slash; "" = DefaultBaseURL
	Key       Secret            // the API key, sent as a bearer token to BaseURL only
	Timeout   time.Duration     // of a whole call with its retries; 0 = 60 s
	Transport http.RoundTripper // for API calls and uploads; nil = its own, with proxies by environment
	UserAgent string            // "" = "objectmount"
}

// Client speaks the Storage Objects API. It is safe for concurrent use.
type Client struct {
	base    *url.URL // path without a trailing slash, no query
	key     Secret
	timeout time.Duration
	agent   string
	api     http.RoundTripper // with the key
	data    http.RoundTripper // signed URLs, without
	stats   counters
}

// New makes a Client. It refuses a base URL or a key that cannot work; it
// sends nothing.
func New(opts Options) (*Client, error) {
	base, err := parseBase(opts.BaseURL)
	if err != nil {
		return nil, err
	}
	key := strings.TrimSpace(opts.Key.Reveal())
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, errors.New("the API key holds characters that no key has (spaces, line breaks, non-ASCII): copy it again")
	}
	c := &Client{base: base, key: Secret(key), timeout: opts.Timeout, agent: opts.UserAgent,
		api: opts.Transport, data: opts.Transport}
	if c.timeout <= 0 {
		c.timeout = defaultTimeout
	}
	if c.agent == "" {
		c.agent = defaultUserAgent
	}
	if opts.Transport == nil {
		c.api, c.data = newTransport(true), newTransport(false)
	}
	return c, nil
}

// parseBase reads a base URL as the public clients do: a path prefix and a
// trailing slash are fine. What could only be a mistake is refused.
func parseBase(raw string) (*url.URL, error) {
	if raw == "" {
		raw = DefaultBaseURL
	}
	u, err := url.Parse(strings.TrimSpace(raw))
	const want = "want a URL such as " + DefaultBaseURL
	switch {
	case err != nil:
		return nil, fmt.Errorf("base URL cannot be read: %s", want)
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("base URL %s is no http or https URL: %s", RedactURL(raw), want)
	case u.User != nil:
		return nil, fmt.Errorf("base URL of %s holds a user name: the API key is given apart", u.Host)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("base URL %s has a query or fragment: %s", RedactURL(raw), want)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = strings.TrimRight(u.RawPath, "/")
	return u, nil
}

// Close closes idle connections. The client can still be used.
func (c *Client) Close() error {
	closeIdle(c.api)
	closeIdle(c.data)
	return nil
}

func closeIdle(rt http.RoundTripper) {
	if t, ok := rt.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// Origin names the server whose objects the client speaks of: its base URL. An
// object's id means something only together with it.
func (c *Client) Origin() string { return c.base.String() }

// Stats is a snapshot of what this client has done.
func (c *Client) Stats() Stats { return c.stats.snapshot() }

// Stats is what a Client or a Reader has done so far.
type Stats struct {
	Requests int64 `json:"requests"` // HTTP requests sent, redirects included
	Retries  int64 `json:"retries"`  // tries that failed and were followed by another
	Renewals int64 `json:"renewals"` // URLs minted after the first
	Hedges   int64 `json:"hedges"`   // second requests for reads that stood still
	Bytes    int64 `json:"bytes"`    // object bytes received or sent
	// ClockSkew is the server's clock less ours, by its last Date header; 0
	// when it sent none. Expiry is judged by the server's clock.
	ClockSkew time.Duration `json:"clock_skew_ns"`
}

type counters struct{ requests, retries, renewals, hedges, bytes, skew atomic.Int64 }

func (c *counters) snapshot() Stats {
	return Stats{c.requests.Load(), c.retries.Load(), c.renewals.Load(), c.hedges.Load(), c.bytes.Load(),
		time.Duration(c.skew.Load())}
}

// call is one API call: what it is called in errors, and what is sent.
type call struct {
	op     string // "get object obj_1"
	method string
	path   string // below the base, escaped, beginning with "/v1/"
	query  url.Values
	body   any // sent as JSON; nil sends none
}

// do sends a call by the retry law until it is answered or the time is over,
// and decodes the answer into out. All tries bear one x-request-id, by which
// the server does a create, complete or delete only once. It gives the
// server's time of the answer, or our own when it did not say.
func (c *Client) do(ctx context.Context, k call, out any) (time.Time, error) {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", k.op, err)
		}
	}
	u := *c.base
	u.RawPath = u.EscapedPath() + k.path
	u.Path, _ = url.PathUnescape(u.RawPath) // call paths are escaped by us
	u.RawQuery = k.query.Encode()
	id := "objectmount-" + rand.Text()

	ctx, cancel := context.WithTimeoutCause(ctx, c.timeout, errCallTimeout)
	defer cancel()
	p := &pacer{budget: c.timeout, retried: func() { c.stats.retries.Add(1) }}
	conflicts := 0
	at, err := retry(ctx, p, func() (time.Time, error) {
		at, err := c.attempt(ctx, k, &u, id, body, out)
		if e := (*APIError)(nil); errors.As(err, &e) && e.Status == http.StatusConflict {
			if conflicts++; conflicts > maxConflicts {
				err = permanent(err)
			}
		}
		return at, err
	})
	if e, refused := err.(*APIError); refused {
		e.Op, e.Host = k.op, c.base.Host
	} else if err != nil {
		err = fmt.Errorf("%s: %s: %w", k.op, c.base.Host, err)
	}
	return at, Redact(err)
}

// attempt is one try of a call.
func (c *Client) attempt(ctx context.Context, k call, u *url.URL, id string, body []byte, out any) (time.Time, error) {
	d := min(attemptTimeout, c.timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, d, &stallError{"no answer", d})
	defer cancel()
	req := &http.Request{Method: k.method, URL: u, Host: u.Host, Header: http.Header{
		"Accept":       {"application/json"},
		"User-Agent":   {c.agent},
		"X-Request-Id": {id},
	}}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key.Reveal())
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	c.stats.requests.Add(1)
	resp, err := c.api.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return time.Time{}, sending(stalled(ctx, err))
	}
	defer resp.Body.Close()
	resp.Request = req

	now := time.Now()
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		now = date
	}
	if resp.StatusCode/100 != 2 {
		e := refusal("", resp, c.key.Reveal())
		e.Host = "" // do says it, once
		if retryableStatus(resp.StatusCode, resp.Header) {
			return now, later(e, retryAfter(resp.Header, now))
		}
		return now, permanent(e)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return now, fmt.Errorf("answer broke off: %w", stalled(ctx, err))
	case len(b) > maxAnswer:
		return now, permanent(fmt.Errorf("answer is longer than %d MiB", maxAnswer>>20))
	}
	if err := json.Unmarshal(b, out); err != nil {
		return now, permanent(fmt.Errorf("answer is not the API's JSON (content type %q): is the base URL right, and is there no login page in between?",
			shown(resp.Header.Get("Content-Type"), nil)))
	}
	return now, nil
}

// stalled is err, or the stall that ended ctx and so made err.
func stalled(ctx context.Context, err error) error {
	if s, ok := context.Cause(ctx).(*stallError); ok {
		return s
	}
	return err
}
