package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	putStart    = 30 * time.Second // until a connection takes the first byte
	putIdle     = 60 * time.Second // between two of its reads of the body
	putAnswer   = 5 * time.Minute  // from the last byte to the answer: a server may have gigabytes to sync
	putBudget   = 2 * time.Minute  // of failing without a try that got on
	putTries    = 5                // each from the beginning: a signed PUT cannot be resumed
	putBuffer   = 128 << 10
	tidyTimeout = 10 * time.Second // for deleting a half-made object, also after a Ctrl-C
)

// Body is what an upload sends.
type Body struct {
	// Open is called once per try. A source that can be read only once (a
	// pipe) gives an error from the second call on; the first try's failure
	// is then final. Its Close may be called while a Read waits.
	Open func() (io.ReadCloser, error)
	// Size is the number of bytes to send: the source must have as many, and
	// no more of them are read. -1 = unknown: all of it, sent chunked, or by
	// way of a temporary file where the server does not take chunks.
	Size int64
}

// Upload creates an object, puts the body and completes it: when it returns,
// the object can be read. If it fails after the creation, the half-made object
// is deleted again and the error says so.
//
// progress may be nil. It is told the bytes sent in the current try (a new
// try begins at 0 again), from another goroutine, but never after Upload
// returned. Memory does not depend on the size.
func (c *Client) Upload(ctx context.Context, req CreateRequest, body Body, progress func(sent int64)) (Object, error) {
	made, err := c.Create(ctx, req)
	if err != nil {
		return Object{}, err
	}
	done, err := c.fill(ctx, made, body, progress)
	if err == nil {
		return done, nil
	}
	err = fmt.Errorf("upload %q: %w", req.Name, err)
	// The caller's context may be what ended it.
	tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	if _, derr := c.Delete(tidy, made.ID); derr != nil {
		return Object{}, Redact(fmt.Errorf("%w; the half-made object %s could not be deleted, delete it by hand: %v", err, made.ID, Redact(derr)))
	}
	return Object{}, Redact(fmt.Errorf("%w; the half-made object %s was deleted again", err, made.ID))
}

// fill puts the body of a created object, and completes it.
func (c *Client) fill(ctx context.Context, made Object, body Body, progress func(int64)) (Object, error) {
	target, err := parseSigned(made.UploadURL)
	if err != nil {
		return Object{}, fmt.Errorf("the API's upload URL: %w", err)
	}
	sent, err := c.put(ctx, target, body, progress)
	if err != nil {
		return Object{}, err
	}
	done, err := c.Complete(ctx, made.ID)
	if e := (*APIError)(nil); errors.As(err, &e) && e.Status == http.StatusConflict {
		// Perhaps an earlier try of the call was done and its answer lost.
		if o, gerr := c.Get(ctx, made.ID); gerr == nil && o.State == StateReadOnly {
			done, err = o, nil
		}
	}
	switch {
	case err != nil:
		return Object{}, err
	case done.State != StateReadOnly:
		return Object{}, fmt.Errorf("after completion the object's state is %s", done.State)
	case done.SizeBytes != nil && *done.SizeBytes != sent:
		return Object{}, fmt.Errorf("%d bytes were sent and the server has %d", sent, *done.SizeBytes)
	}
	return done, nil
}

// put sends the body by the retry law and gives the number of bytes.
func (c *Client) put(ctx context.Context, target *url.URL, body Body, progress func(int64)) (int64, error) {
	p := &pacer{budget: putBudget, retried: func() { c.stats.retries.Add(1) }}
	src := &source{body: body}
	defer src.done()
	tries := 0
	return retry(ctx, p, func() (int64, error) {
		began := time.Now()
		sent, err := c.putOnce(ctx, target, src, progress)
		if errors.Is(err, errWantsLength) {
			if err = src.spool(ctx); err == nil {
				sent, err = c.putOnce(ctx, target, src, progress)
			}
		}
		if tries++; err != nil && tries >= putTries {
			err = permanent(fmt.Errorf("%w: %d tries failed: %w", ErrUnreachable, tries, err))
		} else if err != nil && time.Since(began) > putBudget/4 {
			p.progress(0, true) // a long try is not a server that is down
		}
		return sent, err
	})
}

// errWantsLength: the server does not take a body of unknown length.
var errWantsLength = errors.New("the server takes no upload of unknown length")

// putOnce is one try: the whole body, following redirects that keep the
// method (storage services send them for new buckets).
func (c *Client) putOnce(ctx context.Context, target *url.URL, src *source, progress func(int64)) (int64, error) {
	for hop := 0; ; hop++ {
		resp, sent, err := c.send(ctx, target, src, progress)
		if err != nil {
			return 0, err
		}
		e := refusal("send the bytes", resp, secretsOf(target)...)
		resp.Body.Close()
		status := resp.StatusCode
		switch {
		case status/100 == 2:
			return sent, nil
		case status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect:
			if hop == maxRedirects {
				return 0, permanent(fmt.Errorf("send the bytes: %s redirects more than %d times", target.Host, maxRedirects))
			}
			if target, err = redirectTarget(target, resp.Header.Get("Location")); err != nil {
				return 0, permanent(err)
			}
		case src.size() < 0 && (status == http.StatusLengthRequired || status == http.StatusNotImplemented):
			return 0, fmt.Errorf("%w: %w", errWantsLength, e)
		case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusBadRequest && saysExpired(e):
			return 0, permanent(fmt.Errorf("the upload URL has expired or is refused: %s", e.refusedURL()))
		case retryableStatus(status, resp.Header):
			return 0, later(e, retryAfter(resp.Header, time.Now()))
		default:
			return 0, permanent(e)
		}
	}
}

// send is one PUT request. The answer's body can still be read when it
// returns, bounded in time.
func (c *Client) send(ctx context.Context, target *url.URL, src *source, progress func(int64)) (*http.Response, int64, error) {
	size := src.size()
	w := newWatch(ctx)
	s, err := src.open(w, progress)
	if err != nil {
		w.stop()
		return nil, 0, permanent(err)
	}
	req := &http.Request{Method: http.MethodPut, URL: target, Host: target.Host, ContentLength: size, Body: s,
		ProtoMajor: 1, ProtoMinor: 1, // else net/http would not expect to be told to continue
		Header: http.Header{"User-Agent": {c.agent}}}
	switch {
	case size == 0:
		req.Body = http.NoBody
	case size < 0:
		// So that a server can refuse chunks before any were taken from a
		// source that perhaps cannot be read twice.
		req.Header.Set("Expect", "100-continue")
	}
	c.stats.requests.Add(1)
	w.arm(&stallError{"the upload stood still", putStart})
	// The transport waits for a read of its body before it lets go.
	stop := context.AfterFunc(w.ctx, s.detach)
	resp, err := c.data.RoundTrip(req.WithContext(w.ctx))
	stop()
	s.detach()
	w.disarm()
	sent := s.sent // nobody changes it any more
	switch {
	case s.err != nil:
		err = permanent(fmt.Errorf("read what is to be sent: %w", s.err))
	case err != nil:
		err = sending(w.cause(err))
	}
	if err != nil {
		w.stop()
		if resp != nil {
			resp.Body.Close()
		}
		return nil, 0, err
	}
	c.stats.bytes.Add(sent)
	if resp.StatusCode/100 == 2 && size != 0 && !s.ended {
		resp.Body.Close()
		w.stop()
		return nil, 0, garbledf("send the bytes: %s says that it has all of them after %d", target.Host, sent)
	}
	resp.Request = req
	w.arm(&stallError{"no byte of the answer", putIdle})
	resp.Body = &watchedClose{resp.Body, w}
	return resp, sent, nil
}

type watchedClose struct {
	io.ReadCloser
	w *watch
}

func (b *watchedClose) Close() error {
	err := b.ReadCloser.Close()
	b.w.stop()
	return err
}
