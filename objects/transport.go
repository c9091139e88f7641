package objects

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	dialTimeout    = 10 * time.Second
	maxHeaderBytes = 64 << 10 // of an answer, all headers together

	defaultUserAgent = "objectmount"
)

// newTransport is the HTTP transport for API calls (h2 allowed over TLS) or
// for signed URLs (HTTP/1.1 only: storage services speak it best, and there
// one stuck connection never holds up the requests of another).
//
// It is used through RoundTrip and never through an http.Client, which would
// follow redirects by itself, send a Referer with the signature in it, and
// print whole URLs in its errors.
func newTransport(h2 bool) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(h2)
	return &http.Transport{
		Proxy: proxyFromEnvironment,
		OnProxyConnectResponse: func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
			if resp.StatusCode != http.StatusOK {
				return &proxyError{proxy.Host, resp.StatusCode}
			}
			return nil
		},
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    2 * maxConnections, // with those of single reads
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // never decode at the HTTP level: sizes and ranges would lie
		Protocols:              &protocols,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
}

// proxyFromEnvironment is http.ProxyFromEnvironment, whose error would quote
// the proxy's address with its password.
func proxyFromEnvironment(r *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(r)
	if err != nil {
		return nil, errors.New("the proxy's address in HTTP_PROXY or HTTPS_PROXY is no URL")
	}
	return u, nil
}

// proxyError: the proxy refuses to connect us, which another try cannot help.
type proxyError struct {
	host   string
	status int
}

func (e *proxyError) Error() string {
	if e.status == http.StatusProxyAuthRequired {
		return fmt.Sprintf("the proxy %s wants a name and a password (407): put them into HTTPS_PROXY", e.host)
	}
	return fmt.Sprintf("the proxy %s refuses to connect: %d %s", e.host, e.status, http.StatusText(e.status))
}

// watch ends a context when something does not happen in time. It is armed
// only while we wait for the other side, so that a slow consumer of ours (a
// full disk queue, a stopped process) is not mistaken for a slow server. It
// belongs to one goroutine at a time.
type watch struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	armed  atomic.Pointer[stallError] // what the timer will say
}

// stallError is the cause of a context that a watch ended.
type stallError struct {
	what string
	d    time.Duration
}

func (e *stallError) Error() string { return fmt.Sprintf("%s for %s", e.what, e.d) }

// newWatch gives a watch that is not armed. Its context ends with ctx, with
// stop, or with a stallError.
func newWatch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watch{ctx: ctx, cancel: cancel}
}

// arm ends the context with s after s.d, unless disarm or arm comes before.
func (w *watch) arm(s *stallError) {
	w.armed.Store(s)
	if w.timer == nil {
		w.timer = time.AfterFunc(s.d, func() { w.cancel(w.armed.Load()) })
		return
	}
	w.timer.Reset(s.d)
}

func (w *watch) disarm() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// cause is err, or the stall that made it.
func (w *watch) cause(err error) error {
	if err == nil {
		return nil
	}
	if s, ok := context.Cause(w.ctx).(*stallError); ok {
		return s
	}
	return err
}

// stop disarms the watch and ends its context.
func (w *watch) stop() {
	w.disarm()
	w.cancel(context.Canceled)
}
