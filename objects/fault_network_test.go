package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// notUp are the errors of a network that is not up yet, as a dialer gives
// them.
var notUp = []error{
	&net.DNSError{Err: "server misbehaving", Name: "storage.invalid", IsTemporary: true},
	&net.DNSError{Err: "no such host", Name: "storage.invalid", IsNotFound: true},
	os.NewSyscallError("connect", syscall.ENETUNREACH),
	os.NewSyscallError("connect", syscall.EHOSTUNREACH),
	os.NewSyscallError("connect", syscall.ECONNREFUSED),
	os.NewSyscallError("connect", syscall.EADDRNOTAVAIL),
}

// testNetworkComesUp: at boot there may be no network yet, then no names, no
// route, and then nobody who listens.
func testNetworkComesUp(t *testing.T) {
	data := content(300 << 10)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
	defer s.Close()
	var dials atomic.Int64
	rt := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if n := int(dials.Add(1)) - 1; n < len(notUp) {
			return nil, &net.OpError{Op: "dial", Net: network, Err: notUp[n]}
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	defer rt.CloseIdleConnections()
	opts := calm()
	opts.Transport = rt
	if got, err := readAll(t.Context(), signer(s), opts); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := int(dials.Load()); n <= len(notUp) {
		t.Errorf("%d dials", n)
	}
}

// testNoNetwork: real refusals and a real name that does not exist, until the
// budget is spent.
func testNoNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	for _, host := range []string{l.Addr().String(), "storage.invalid"} {
		opts := calm()
		opts.RetryBudget = 300 * time.Millisecond
		_, err := objects.Open(t.Context(), objects.FixedURL(objects.Secret("http://"+host+"/p?sig="+faulttest.Mark)), opts)
		noLeak(t, err)
		if !errors.Is(err, objects.ErrUnreachable) || !strings.Contains(err.Error(), host) {
			t.Error(err)
		}
		t.Log(err)
	}
}

// through is a Minter of the server's URLs with another host in them.
func through(s *faulttest.Server, p *faulttest.Proxy) objects.Minter {
	return minter(func() objects.SignedURL {
		u, err := url.Parse(s.Sign())
		if err != nil {
			panic(err)
		}
		u.Host = p.Addr()
		return objects.SignedURL{URL: objects.Secret(u.String())}
	})
}

// proxied is a proxy in front of the server.
func proxied(t *testing.T, s *faulttest.Server, plan faulttest.Plan) *faulttest.Proxy {
	t.Helper()
	u, err := url.Parse(s.Sign())
	if err != nil {
		panic(err)
	}
	p, err := faulttest.NewProxy(u.Host, plan)
	if err != nil {
		panic(err)
	}
	t.Cleanup(p.Close)
	return p
}

// testStuck: each break of the proxy, met by the first connections, and
// nothing but silence in all of them. They all wait at the same time.
func testStuck(t *testing.T) {
	data := content(3 << 20)
	var wg sync.WaitGroup
	for _, kind := range faulttest.Breaks {
		for _, after := range []int64{0, 100, 300_000} {
			wg.Go(func() {
				s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
				defer s.Close()
				p := proxied(t, s, func(n int) faulttest.Break {
					if n < 3 {
						return faulttest.Break{Kind: kind, After: after, Wait: 10 * time.Millisecond}
					}
					return faulttest.Break{Kind: faulttest.Whole}
				})
				if got, err := readAll(t.Context(), through(s, p), patience()); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s after %d: %d bytes, %v\nconnections:%s", kind, after, len(got), err, p)
				}
			})
		}
	}
	wg.Go(func() {
		s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
		defer s.Close()
		p := proxied(t, s, faulttest.EachConnection(faulttest.Break{Kind: faulttest.StallOff}))
		opts := patience()
		opts.RetryBudget = 500 * time.Millisecond
		if _, err := readAll(t.Context(), through(s, p), opts); !errors.Is(err, objects.ErrUnreachable) {
			t.Error("silence for ever:", err)
		}
	})
	wg.Wait()
}

// testTLSStall: a handshake that stands still is no word of the peer's, and is
// tried again; see TestTLS for those that are.
func testTLSStall(t *testing.T) {
	data := content(100 << 10)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}, TLS: true})
	defer s.Close()
	for _, kind := range []faulttest.BreakKind{faulttest.StallOff, faulttest.CutOff, faulttest.ResetOff} {
		p := proxied(t, s, func(n int) faulttest.Break {
			if n == 0 {
				return faulttest.Break{Kind: kind, After: 50}
			}
			return faulttest.Break{Kind: faulttest.Whole}
		})
		opts := patience()
		opts.IdleTimeout = 500 * time.Millisecond // a handshake takes processor time
		opts.Transport = s.Transport()
		if got, err := readAll(t.Context(), through(s, p), opts); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", kind, len(got), err)
		}
	}
}

// testShrunk: a 416 for a range that the object had is asked about with its
// first byte, and the answer to that tells that it is another one now. The
// server honours no precondition, or it would have said 412.
func testShrunk(t *testing.T) {
	data := content(600 << 10)
	size := len(data)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var first, last int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		w.Header().Set("Last-Modified", modified.Format(http.TimeFormat))
		if first >= size {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		last = min(last, size-1)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(data[first : last+1])
		size = 300 << 10
	}))
	defer s.Close()
	got, err := readAll(t.Context(), objects.FixedURL(objects.Secret(s.URL)), calm())
	if !errors.Is(err, objects.ErrChanged) || !bytes.HasPrefix(data, got) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
