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

// probe is the range that is asked for after a 416, to see whether the object
// is still what it was.
var probe = span{0, 1}

// request is one try of getting a range: URL, request, redirects, and the
// answer's head held against what was asked for. A URL that is refused is
// renewed, and the try goes on with the new one.
func (r *Reader) request(ctx context.Context, a ask) (*body, grant, error) {
	for {
		u, gen, err := r.lease.get(ctx)
		if err != nil {
			return nil, grant{}, err
		}
		if a.sent != nil {
			a.sent()
		}
		w := newWatch(ctx)
		resp, err := r.link.get(w, u, a.header())
		if err != nil {
			w.stop()
			return nil, grant{}, err
		}
		g, err := r.examine(ctx, a, u, gen, resp, w)
		if err == nil {
			b := newBody(resp, w, r.link, g.skip+g.n)
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
		return r.settle(a, status, resp.Header, resp.ContentLength)
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
	case status == http.StatusRequestedRangeNotSatisfiable && a.opening && a.pinned == nil && !a.whole:
		return grant{}, errAskWhole
	case status == http.StatusRequestedRangeNotSatisfiable && !a.whole && a.end != probe[1]:
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
	p := r.ask(probe[0], probe[1])
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
