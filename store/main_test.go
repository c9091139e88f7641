package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"objectmount/objects"
)

// The test binary is also the server that some tests kill: see child_test.go.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var testKeys = []Account{{"anna", "ak_anna_key"}, {"bert", "ak_bert_key"}, {"anna", "ak_anna_second_key"}}

// server is a Store behind a real listener, spoken to by a real client: h2c
// with prior knowledge for calls, HTTP/1.1 for content, as public clients do.
type server struct {
	t     *testing.T
	store *Store
	url   string
	calls *http.Client
	plain *http.Client
}

// start serves a store; opts may leave DataDir and Keys out.
func start(t *testing.T, opts Options) *server {
	t.Helper()
	return startTLS(t, opts, nil, nil)
}

func startTLS(t *testing.T, opts Options, serverTLS, clientTLS *tls.Config) *server {
	t.Helper()
	if opts.DataDir == "" {
		opts.DataDir = t.TempDir()
	}
	if opts.Keys == nil {
		opts.Keys = testKeys
	}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, serverTLS) }()
	srv := newServer(t, "http://"+l.Addr().String(), clientTLS)
	if serverTLS != nil {
		srv.url = "https://" + l.Addr().String()
	}
	srv.store = s
	t.Cleanup(func() {
		srv.closeClients()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return srv
}

func newServer(t *testing.T, url string, clientTLS *tls.Config) *server {
	var h2, h1 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	h2.SetHTTP2(true)
	h1.SetHTTP1(true)
	return &server{
		t: t, url: url,
		calls: &http.Client{Transport: &http.Transport{Protocols: &h2, TLSClientConfig: clientTLS.Clone()}},
		plain: &http.Client{Transport: &http.Transport{Protocols: &h1, TLSClientConfig: clientTLS.Clone(), DisableCompression: true}},
	}
}

func (s *server) closeClients() {
	s.calls.CloseIdleConnections()
	s.plain.CloseIdleConnections()
}

// answered is an answer with its body read.
type answered struct {
	status int
	header http.Header
	body   []byte
	proto  string
}

func (a answered) errorCode() string {
	var e objects.ErrorBody
	if json.Unmarshal(a.body, &e) != nil || e.Message == "" || a.header.Get("Content-Type") != "application/json" {
		return fmt.Sprintf("not an error body: %q", a.body)
	}
	return e.Code
}

// send sends a request and reads the answer.
func (s *server) send(c *http.Client, req *http.Request) answered {
	s.t.Helper()
	a, err := trySend(c, req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", req.Method, req.URL.Path, objects.Redact(err))
	}
	return a
}

func trySend(c *http.Client, req *http.Request) (answered, error) {
	resp, err := c.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answered{resp.StatusCode, resp.Header, b, resp.Proto}, err
}

// call makes an API call with anna's key. headers are "Name: value".
func (s *server) call(method, path, body string, headers ...string) answered {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if body == "" {
		req.Body = nil
	}
	req.Header.Set("Authorization", "Bearer ak_anna_key")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	return s.send(s.calls, req)
}

const asBert = "Authorization: Bearer ak_bert_key"

// ask is call for calls that succeed.
func (s *server) ask(method, path, body string, headers ...string) view {
	s.t.Helper()
	a := s.call(method, path, body, headers...)
	if a.status != 200 {
		s.t.Fatalf("%s %s: %d %s", method, path, a.status, a.body)
	}
	var v view
	if err := json.Unmarshal(a.body, &v); err != nil {
		s.t.Fatalf("%s %s: %v in %s", method, path, err, a.body)
	}
	return v
}

// create makes an object of a name; more is further JSON fields, ", ..." first.
func (s *server) create(name, more string, headers ...string) view {
	s.t.Helper()
	return s.ask("POST", "/v1/objects", fmt.Sprintf(`{"name": %q, "content_type": "binary"%s}`, name, more), headers...)
}

// put uploads content to a signed URL.
func (s *server) put(url string, content []byte) answered {
	s.t.Helper()
	req, err := http.NewRequest("PUT", url, bytes.NewReader(content))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.send(s.plain, req)
}

// object makes a complete object.
func (s *server) object(name string, content []byte, more string, headers ...string) view {
	s.t.Helper()
	v := s.create(name, more, headers...)
	if a := s.put(v.UploadURL, content); a.status != 200 {
		s.t.Fatalf("upload: %d %s", a.status, a.body)
	}
	return s.ask("POST", "/v1/objects/"+v.ID+"/complete", "", headers...)
}

func (s *server) downloadURL(id, query string, headers ...string) string {
	s.t.Helper()
	a := s.call("GET", "/v1/objects/"+id+"/download"+query, "", headers...)
	var v struct {
		DownloadURL string `json:"download_url"`
	}
	if err := json.Unmarshal(a.body, &v); err != nil || v.DownloadURL == "" {
		s.t.Fatalf("download URL: %d %s", a.status, a.body)
	}
	return v.DownloadURL
}

// get fetches a signed URL.
func (s *server) get(method, url string, headers ...string) answered {
	s.t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	return s.send(s.plain, req)
}

func (s *server) content(id string) []byte {
	s.t.Helper()
	a := s.get("GET", s.downloadURL(id, ""))
	if a.status != 200 {
		s.t.Fatalf("download: %d %s", a.status, a.body)
	}
	return a.body
}

// want fails unless the answer has this status and error code.
func (s *server) want(what string, a answered, status int, code string) {
	s.t.Helper()
	if a.status != status || a.errorCode() != code {
		s.t.Errorf("%s: %d %s, want %d %s", what, a.status, a.body, status, code)
	}
}

// parseCreated takes id and upload URL from the answer to create.
func parseCreated(body []byte) (id, uploadURL string) {
	var v view
	if err := json.Unmarshal(body, &v); err != nil {
		panic(err)
	}
	return v.ID, v.UploadURL
}
