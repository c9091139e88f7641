package objects

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultIdle  = 15 * time.Second
	maxRedirects = 3
)

// link sends GET requests to signed URLs.
type link struct {
	rt    http.RoundTripper
	idle  time.Duration // longest wait for an answer, or for the next byte
	stats *counters
	net   *Network
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
