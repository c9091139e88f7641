package objects

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// TestProxyRefuses: a proxy that wants a password is a final error, which
// says what to do and nothing of what was asked for.
func TestProxyRefuses(t *testing.T) {
	for status, want := range map[int]string{407: "wants a name and a password", 403: "refuses to connect: 403"} {
		asked := 0
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.WriteHeader(status)
		}))
		rt := newTransport(false)
		rt.Proxy = func(*http.Request) (*url.URL, error) {
			u, err := url.Parse(proxy.URL)
			u.User = url.UserPassword("u", "CANARY")
			return u, err
		}
		_, err := Open(t.Context(), FixedURL("https://storage.invalid/p?sig=CANARY"), ReaderOptions{Transport: rt})
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, ErrUnreachable) || asked != 1 {
			t.Errorf("%d: asked %d times, %v", status, asked, err)
		}
		noMark(t, "proxy", err)
		rt.CloseIdleConnections()
		proxy.Close()
	}
}

// TestProxyAddress: the variable's value is not quoted when it is no URL.
func TestProxyAddress(t *testing.T) {
	rt := newTransport(false)
	rt.Proxy = func(*http.Request) (*url.URL, error) {
		//lint:ignore SA1007 it is meant to be wrong
		_, err := url.Parse("http://u:CANARY@h:port")
		return nil, err
	}
	_, err := Open(t.Context(), FixedURL("http://storage.invalid/p"), ReaderOptions{Transport: rt, RetryBudget: 1})
	if err == nil {
		t.Fatal("no error")
	}
	noMark(t, "proxy", err)
}
