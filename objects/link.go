package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultIdle  = 15 * time.Second
	maxRedirects = 3

	// A body slower than this over so much time of waiting is given up for a
	// new connection, which often is fast where the old one was stuck.
	slowWindow = 30 * time.Second
	slowBytes  = 16 << 10 * int64(slowWindow/time.Second)
)

// link sends GET requests to signed URLs.
type link struct {
	rt    http.RoundTripper
	idle  time.Duration // longest wait for an answer, or for the next byte
	stats *counters
}

// get sends one request and follows its redirects by hand. The answer's body
// belongs to the caller and to w, whose context it lives in.
func (l *link) get(w *watch, u *url.URL, h http.Header) (*http.Response, error) {
	h = h.Clone()
	h.Set("User-Agent", defaultUserAgent)
	if u.User != nil {
		password, _ := u.User.Password()
		req := http.Request{Header: h}
		req.SetBasicAuth(u.User.Username(), password)
	}
	for hop := 0; ; hop++ {
		bare := *u
		bare.User = nil
		req := &http.Request{Method: http.MethodGet, URL: &bare, Host: bare.Host, Header: h}
		l.stats.requests.Add(1)
		w.arm(&stallError{"no answer", l.idle})
		resp, err := l.rt.RoundTrip(req.WithContext(w.ctx))
		w.disarm()
		if err != nil {
			return nil, sending(w.cause(err))
		}
		resp.Request = req
		if !isRedirect(resp.StatusCode) {
			return resp, nil
		}
		resp.Body.Close()
		next, err := redirectTarget(u, resp.Header.Get("Location"))
		if err != nil {
			return nil, err
		}
		if hop == maxRedirects {
			return nil, permanent(fmt.Errorf("more than %d redirects, the last from %s to %s", maxRedirects, u.Host, RedactURL(next.String())))
		}
		if !sameHost(next, u) {
			// What is between us and the first host is nobody else's affair.
			// The new one's answer is still held against the pinned identity.
			h = http.Header{}
			for _, k := range []string{"Accept-Encoding", "Range", "User-Agent"} {
				if v := req.Header.Get(k); v != "" {
					h.Set(k, v)
				}
			}
		}
		u = next
	}
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirectTarget is where a redirect of from leads. It must not lead from
// https to http, where everybody could read the signature.
func redirectTarget(from *url.URL, location string) (*url.URL, error) {
	next, err := from.Parse(location)
	if location == "" || err != nil || next.Scheme != "http" && next.Scheme != "https" || next.Hostname() == "" {
		return nil, garbledf("%s redirects to what is no http or https URL", from.Host)
	}
	if from.Scheme == "https" && next.Scheme == "http" {
		return nil, permanent(fmt.Errorf("%s redirects from https to http (%s), which is refused", from.Host, RedactURL(next.String())))
	}
	next.User, next.Fragment, next.RawFragment = nil, "", ""
	return next, nil
}

// sameHost compares host and port.
func sameHost(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		if p := u.Port(); p != "" {
			return p
		}
		return map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b) && a.Scheme == b.Scheme
}

// body is what an answer's body is read through. It gives exactly the bytes
// granted, or an error: a connection that ends early is an error, and so is
// one that goes silent, creeps, or brings more than was announced.
type body struct {
	rc      io.ReadCloser
	w       *watch
	stall   *stallError
	left    int64 // bytes still owed
	counted bool  // net/http itself holds the body to a Content-Length
	more    bool  // the answer goes on after what is wanted

	waited time.Duration // in the present window
	got    int64         // in the present window
}

// newBody guards resp's body, of which n bytes are wanted from where it is.
func newBody(resp *http.Response, w *watch, idle time.Duration, n int64) *body {
	return &body{rc: resp.Body, w: w, stall: &stallError{"no byte", idle}, left: n,
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
	n, err := b.wait(p)
	b.left -= int64(n)
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

// probe is the range that is asked for after a 416, to see whether the object
// is still what it was.
var probe = ask{off: 0, end: 1}

// request is one try of getting a range: URL, request, redirects, and the
// answer's head held against what was asked for. A URL that is refused is
// renewed, and the try goes on with the new one.
func (r *Reader) request(ctx context.Context, a ask) (*body, grant, error) {
	for {
		u, gen, err := r.lease.get(ctx)
		if err != nil {
			return nil, grant{}, err
		}
		w := newWatch(ctx)
		resp, err := r.link.get(w, u, a.header())
		if err != nil {
			w.stop()
			return nil, grant{}, err
		}
		g, err := r.examine(ctx, a, u, gen, resp, w)
		if err == nil {
			b := newBody(resp, w, r.link.idle, g.skip+g.n)
			if _, err = io.CopyN(io.Discard, b, g.skip); err == nil {
				return b, g, nil
			}
		}
		resp.Body.Close()
		w.stop()
		if err != errRenewed {
			return nil, grant{}, err
		}
	}
}

var (
	errRenewed  = errors.New("the URL was refused and has been renewed")
	errAskWhole = errors.New("the server cannot satisfy a range of the object")
)

// examine decides what an answer's status means.
func (r *Reader) examine(ctx context.Context, a ask, u *url.URL, gen int, resp *http.Response, w *watch) (grant, error) {
	status := resp.StatusCode
	if status == http.StatusOK || status == http.StatusPartialContent {
		if err := r.lease.accept(ctx, gen, resp.Header); err != nil {
			return grant{}, err
		}
		return a.judge(status, resp.Header, resp.ContentLength)
	}

	w.arm(&stallError{"no byte", r.link.idle}) // an error's body may stall too
	e := refusal("", resp, append(secretsOf(u), secretsOf(resp.Request.URL)...)...)
	w.disarm()
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden,
		status == http.StatusBadRequest && saysExpired(e):
		if err := r.lease.refused(ctx, gen, errors.New(e.refusedURL())); err != nil {
			return grant{}, err
		}
		return grant{}, errRenewed
	case status == http.StatusPreconditionFailed && a.pinned != nil:
		return grant{}, permanent(fmt.Errorf("%w: %s says it is no longer the version it was (412)", ErrChanged, e.Host))
	case status == http.StatusRequestedRangeNotSatisfiable && a.pinned == nil && !a.whole:
		return grant{}, errAskWhole
	case status == http.StatusRequestedRangeNotSatisfiable && a.pinned != nil && a.end != probe.end:
		return grant{}, r.afterUnsatisfied(ctx, a, e)
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status == http.StatusTooManyRequests,
		status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported:
		return grant{}, later(e, retryAfter(resp.Header, time.Now()))
	case status/100 == 4 && status != http.StatusRequestedRangeNotSatisfiable, status >= 500:
		return grant{}, permanent(e)
	}
	return grant{}, garbledf("%s", e.Error())
}

// afterUnsatisfied finds out what a 416 for a range inside the pinned object
// means: the object has shrunk, or the server was wrong.
func (r *Reader) afterUnsatisfied(ctx context.Context, a ask, e *APIError) error {
	p := probe
	p.pinned, p.hashed = a.pinned, a.hashed
	b, _, err := r.request(ctx, p)
	if err != nil {
		return err
	}
	b.Close()
	return garbledf("%v, for bytes [%d,%d) of an object that has them", e, a.off, a.end)
}

// saysExpired recognizes the refusals that S3 and others send as 400.
func saysExpired(e *APIError) bool {
	switch e.Code {
	case "ExpiredToken", "RequestTimeTooSkewed", "TokenRefreshRequired":
		return true
	}
	return strings.Contains(strings.ToLower(e.Message), "expired")
}

// refusedURL says a refusal of a signed URL without the advice that APIError
// gives about keys.
func (e *APIError) refusedURL() string {
	text := fmt.Sprintf("%s answered %d", e.Host, e.Status)
	if said := e.said(); said != "" {
		text += ": " + said
	}
	return text
}
