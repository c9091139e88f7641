package objects_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"objectmount/objects"
)

const key = "ak_CANARY7f3a_key"

// api is a scripted API: each request is answered by the next of the answers,
// the last one for ever. It keeps what it was sent.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	seen    []*http.Request
	bodies  []string
	answers []func(http.ResponseWriter, *http.Request)
}

func newAPI(t *testing.T, answers ...func(http.ResponseWriter, *http.Request)) *api {
	a := &api{answers: answers}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		n := min(len(a.seen), len(a.answers)-1)
		a.seen, a.bodies = append(a.seen, r), append(a.bodies, string(b))
		a.mu.Unlock()
		a.answers[n](w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *api) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*http.Request(nil), a.seen...)
}

func answer(status int, body string, headers ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

const objectJSON = `{"id":"obj_1","name":"n","state":"READ_ONLY","content_type":"text","create_time_ms":1,"size_bytes":5,"metadata":{"k":"v"},"unknown":[1]}`

func newClient(t *testing.T, base string, timeout time.Duration) *objects.Client {
	t.Helper()
	c, err := objects.New(objects.Options{BaseURL: base, Key: key, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestBaseURL(t *testing.T) {
	a := newAPI(t, answer(200, objectJSON))
	for base, want := range map[string]string{
		a.URL:                    "/v1/objects/obj_1",
		a.URL + "/":              "/v1/objects/obj_1",
		a.URL + "/pre/fix":       "/pre/fix/v1/objects/obj_1",
		a.URL + "/pre%2Ffix//":   "/pre%2Ffix/v1/objects/obj_1",
		" " + a.URL + "/proxy/ ": "/proxy/v1/objects/obj_1",
	} {
		if _, err := newClient(t, base, 0).Get(t.Context(), "obj_1"); err != nil {
			t.Fatal(err)
		}
		rs := a.requests()
		if got := rs[len(rs)-1].URL.EscapedPath(); got != want {
			t.Errorf("%s: asked for %s, want %s", base, got, want)
		}
	}
	for _, bad := range []string{"ftp://h", "h:80", "/path", "https://", "https://u:CANARY7f3a@h", "https://h?x=CANARY7f3a", "https://h#f", "https://h/%zz"} {
		_, err := objects.New(objects.Options{BaseURL: bad})
		if err == nil {
			t.Errorf("%s was taken", bad)
		}
		noLeak(t, err)
	}
	if _, err := objects.New(objects.Options{Key: "CANARY7f3a\nx"}); err == nil {
		t.Error("a key with a line break was taken")
	} else {
		noLeak(t, err)
	}
}

// TestIDs: what cannot be an id never becomes part of a path.
func TestIDs(t *testing.T) {
	a := newAPI(t, answer(200, objectJSON))
	c := newClient(t, a.URL, 0)
	for _, id := range []string{"", ".", "..", "../../etc", "a/b", "a%2Fb", "obj_1?x=1", "obj 1", "obj_é", strings.Repeat("x", 200)} {
		if _, err := c.Get(t.Context(), id); !errors.Is(err, objects.ErrBadID) {
			t.Errorf("%q: %v", id, err)
		}
		if _, err := c.DownloadURL(t.Context(), id, 0); !errors.Is(err, objects.ErrBadID) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if n := len(a.requests()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	if _, err := c.Get(t.Context(), "obj_2"); err == nil {
		t.Error("an answer about another object was taken")
	}
}

// TestCallRetries: what is tried again, how often, and with which headers.
func TestCallRetries(t *testing.T) {
	ok := answer(200, objectJSON)
	hangUp := func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	}
	for _, c := range []struct {
		name    string
		first   func(http.ResponseWriter, *http.Request)
		retried bool
	}{
		{"hang-up", hangUp, true},
		{"408", answer(408, ""), true},
		{"409", answer(409, ""), true},
		{"409 that says no", answer(409, "", "x-should-retry", "false"), false},
		{"429", answer(429, "", "retry-after-ms", "1"), true},
		{"500", answer(500, "oops"), true},
		{"503 that says no", answer(503, "", "x-should-retry", "false"), false},
		{"400", answer(400, `{"code":"c","message":"bad"}`), false},
		{"400 that says yes", answer(400, "", "x-should-retry", "true"), true},
		{"401", answer(401, ""), false},
		{"404", answer(404, ""), false},
		{"422", answer(422, ""), false},
		{"redirect", answer(302, "", "Location", "https://h/?x=CANARY7f3a"), false},
		{"not JSON", answer(200, "<html>", "Content-Type", "text/html"), false},
		{"half an answer", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, objectJSON)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAPI(t, c.first, ok)
			_, err := newClient(t, a.URL, 0).Complete(t.Context(), "obj_1")
			noLeak(t, err)
			rs := a.requests()
			if c.retried != (err == nil) || len(rs) != map[bool]int{true: 2, false: 1}[c.retried] {
				t.Fatalf("%d requests, error %v", len(rs), err)
			}
			for i, r := range rs {
				id := r.Header.Get("X-Request-Id")
				if id == "" || id != rs[0].Header.Get("X-Request-Id") {
					t.Errorf("request %d has x-request-id %q", i, id)
				}
				if r.Header.Get("Authorization") != "Bearer "+key || r.Header.Get("Content-Type") != "application/json" || a.bodies[i] != "{}" {
					t.Errorf("request %d: %v %q", i, r.Header, a.bodies[i])
				}
			}
			if c.retried {
				return
			}
			if text := err.Error(); !strings.Contains(text, "complete object obj_1") || !strings.Contains(text, a.Listener.Addr().String()) {
				t.Errorf("the error does not say what and where: %s", text)
			}
		})
	}
}

func TestSentinels(t *testing.T) {
	for status, want := range map[int]error{401: objects.ErrCredentials, 403: objects.ErrCredentials, 404: objects.ErrNotFound} {
		a := newAPI(t, answer(status, `{"code":"some_code","message":"some sentence"}`))
		_, err := newClient(t, a.URL, 0).Get(t.Context(), "obj_1")
		e := (*objects.APIError)(nil)
		if !errors.Is(err, want) || !errors.As(err, &e) || e.Status != status || e.Code != "some_code" || e.Message != "some sentence" {
			t.Errorf("%d: %v", status, err)
		}
		t.Log(err)
	}

	// Down, hanging, and failing servers are unreachable once the time is over.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	l.Close()
	done := make(chan struct{})
	defer close(done)
	hangs := newAPI(t, func(http.ResponseWriter, *http.Request) { <-done })
	fails := newAPI(t, answer(503, "<html><title>down</title>", "Content-Type", "text/html"))
	for name, base := range map[string]string{"down": closed, "hanging": hangs.URL, "failing": fails.URL} {
		start := time.Now()
		_, err := newClient(t, base, 300*time.Millisecond).Get(t.Context(), "obj_1")
		if !errors.Is(err, objects.ErrUnreachable) || time.Since(start) > 20*time.Second {
			t.Errorf("%s: %v after %s", name, err, time.Since(start))
		}
		t.Log(err)

		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err = newClient(t, base, 0).Get(ctx, "obj_1")
		if !errors.Is(err, objects.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, caller's deadline: %v", name, err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err = newClient(t, base, 0).Get(ctx, "obj_1"); !errors.Is(err, context.Canceled) || errors.Is(err, objects.ErrUnreachable) {
			t.Errorf("%s, cancelled: %v", name, err)
		}
	}
}

func TestListing(t *testing.T) {
	page := func(more bool, ids ...string) func(http.ResponseWriter, *http.Request) {
		p := objects.ListPage{HasMore: more}
		for _, id := range ids {
			p.Objects = append(p.Objects, objects.Object{ID: id})
		}
		b, _ := json.Marshal(p)
		return answer(200, string(b))
	}
	a := newAPI(t, page(true, "a", "b"), page(true, "c"), page(false, "d"))
	c := newClient(t, a.URL, 0)
	var got []string
	for o, err := range c.All(t.Context(), objects.ListQuery{Limit: 2, Name: "n&m", State: objects.StateReadOnly, Public: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, o.ID)
	}
	if fmt.Sprint(got) != "[a b c d]" {
		t.Error(got)
	}
	rs := a.requests()
	q := rs[2].URL.Query()
	if rs[2].URL.Path != "/v1/objects/list_public" || q.Get("starting_after") != "c" || q.Get("limit") != "2" ||
		q.Get("name") != "n&m" || q.Get("state") != "READ_ONLY" || q.Get("include_total_count") != "false" {
		t.Error(rs[2].URL)
	}

	// A server that goes round in circles must not hold us for ever.
	a = newAPI(t, page(true, "a"))
	n := 0
	var last error
	for _, err := range newClient(t, a.URL, 0).All(t.Context(), objects.ListQuery{}) {
		n, last = n+1, err
	}
	if n > 3 || last == nil {
		t.Errorf("%d objects, error %v", n, last)
	}

	a = newAPI(t, answer(200, `{"keys":["a","b"]}`), answer(200, `{"key":"x/y","values":["1"]}`))
	c = newClient(t, a.URL, 0)
	keys, err := c.MetadataKeys(t.Context())
	if err != nil || len(keys) != 2 {
		t.Error(keys, err)
	}
	if vs, err := c.MetadataValues(t.Context(), "x/y ?"); err != nil || len(vs) != 1 {
		t.Error(vs, err)
	}
	if got := a.requests()[1].URL.EscapedPath(); got != "/v1/objects/metadata/keys/x%2Fy%20%3F/values" {
		t.Error(got)
	}
	for _, bad := range []string{"", ".", ".."} {
		if _, err := c.MetadataValues(t.Context(), bad); err == nil {
			t.Errorf("key %q was sent", bad)
		}
	}
}

func TestDownloadURL(t *testing.T) {
	const signed = `{"download_url":"https://s/p?X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=CANARY7f3a"}`
	a := newAPI(t, answer(200, signed))
	u, err := newClient(t, a.URL, 0).DownloadURL(t.Context(), "obj_1", 90*time.Second+1)
	if err != nil || u.Expires.Sub(u.Issued) != time.Minute || strings.Contains(fmt.Sprintf("%+v", u), "CANARY") {
		t.Errorf("%+v, %v", u, err)
	}
	if got := a.requests()[0].URL.RawQuery; got != "duration_seconds=90" {
		t.Error(got)
	}

	a = newAPI(t, answer(200, `{"download_url":"https://s/p?sig=x"}`, "Date", "Thu, 01 Jan 2026 00:00:00 GMT"))
	u, err = newClient(t, a.URL, 0).DownloadURL(t.Context(), "obj_1", 0)
	if err != nil || !u.Issued.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) || u.Expires.Sub(u.Issued) != time.Hour {
		t.Errorf("%+v, %v", u, err)
	}

	for state, want := range map[objects.State]error{objects.StateDeleted: objects.ErrDeleted, objects.StateUploading: nil} {
		a = newAPI(t, answer(400, `{"message":"bad"}`), answer(200, strings.Replace(objectJSON, "READ_ONLY", string(state), 1)))
		_, err = newClient(t, a.URL, 0).DownloadURL(t.Context(), "obj_1", 0)
		if err == nil || want != nil && !errors.Is(err, want) || want == nil && !strings.Contains(err.Error(), "UPLOADING") {
			t.Errorf("%s: %v", state, err)
		}
	}
	for _, bad := range []string{`{}`, `{"download_url":"file:///CANARY7f3a"}`, `{"download_url":"/p?CANARY7f3a"}`, `{"download_url":7}`} {
		a = newAPI(t, answer(200, bad))
		if _, err = newClient(t, a.URL, 0).DownloadURL(t.Context(), "obj_1", 0); err == nil {
			t.Errorf("%s was taken", bad)
		}
		noLeak(t, err)
	}
}

// TestEchoes: a server that echoes the key in every part of an error gives
// it to nobody.
func TestEchoes(t *testing.T) {
	echo := func(status int, kind, format string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			fmt.Fprintf(w, format, r.Header.Get("Authorization"))
		}
	}
	for _, h := range []func(http.ResponseWriter, *http.Request){
		echo(400, "application/json", `{"code":"%[1]s","message":"you sent %[1]s"}`),
		echo(401, "application/json", `{"error":{"message":"%s"}}`),
		echo(403, "application/xml", `<Error><Code>X</Code><Message>%s</Message></Error>`),
		echo(404, "text/html", `<html><title>%s</title></html>`),
		echo(422, "text/plain", `%s`),
		echo(500, "text/plain", `%s`),
		echo(200, "text/%[1]s", `%s`),
	} {
		a := newAPI(t, h)
		_, err := newClient(t, a.URL, 200*time.Millisecond).Get(t.Context(), "obj_1")
		if err == nil {
			t.Error("no error")
		}
		noLeak(t, err)
	}
}
