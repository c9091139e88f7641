package store

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// testTLS makes a CA (as PEM) and a server's certificate for the loopback
// address signed by it.
func testTLS(t *testing.T) (server, client *tls.Config, ca []byte) {
	t.Helper()
	now := time.Now()
	issue := func(serial int64, sub, parent *x509.Certificate, pub, priv any) *x509.Certificate {
		sub.SerialNumber, sub.NotBefore, sub.NotAfter = big.NewInt(serial), now.Add(-time.Hour), now.Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, sub, parent, pub, priv)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, leafKey := key(), key()
	caTemplate := &x509.Certificate{Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caCert := issue(1, caTemplate, caTemplate, caKey.Public(), caKey)
	leaf := issue(2, &x509.Certificate{Subject: pkix.Name{CommonName: "test server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, caCert, leafKey.Public(), caKey)
	pool := x509.NewCertPool()
	pool.AddCert(caCert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw}, PrivateKey: leafKey}}},
		&tls.Config{RootCAs: pool}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caCert.Raw})
}

func TestProtocols(t *testing.T) {
	serverTLS, clientTLS, _ := testTLS(t)
	for scheme, s := range map[string]*server{
		"http": start(t, Options{}), "https": startTLS(t, Options{}, serverTLS, clientTLS),
	} {
		t.Run(scheme, func(t *testing.T) {
			v := s.create("a", "")
			if !strings.HasPrefix(v.UploadURL, scheme+"://127.0.0.1:") {
				t.Errorf("upload_url %s", v.UploadURL)
			}
			content := noise(2<<20, 9)
			for want, c := range map[string]*http.Client{"HTTP/2.0": s.calls, "HTTP/1.1": s.plain} {
				req, _ := http.NewRequest("PUT", v.UploadURL, bytes.NewReader(content))
				if a := s.send(c, req); a.status != 200 || a.proto != want {
					t.Errorf("%s: upload by %s: %d %s", want, a.proto, a.status, a.body)
				}
			}
			s.ask("POST", "/v1/objects/"+v.ID+"/complete", "")
			for want, c := range map[string]*http.Client{"HTTP/2.0": s.calls, "HTTP/1.1": s.plain} {
				req, _ := http.NewRequest("GET", s.downloadURL(v.ID, ""), nil)
				req.Header.Set("Range", "bytes=5-")
				if a := s.send(c, req); a.status != 206 || a.proto != want || !bytes.Equal(a.body, content[5:]) {
					t.Errorf("%s: download by %s: %d, %d bytes", want, a.proto, a.status, len(a.body))
				}
			}
		})
	}
}

func TestServeRefusesTLSWithoutCertificate(t *testing.T) {
	s := start(t, Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Serve(t.Context(), l, &tls.Config{}); err == nil || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("%v", err)
	}
}

// Handler is for servers of others, which may know no deadlines.
func TestHandler(t *testing.T) {
	s := start(t, Options{})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "http://example.com/v1/objects", strings.NewReader(`{"name": "a", "content_type": "text"}`))
	r.Header.Set("Authorization", "Bearer ak_anna_key")
	s.store.Handler().ServeHTTP(w, r)
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"upload_url":"http://example.com/v1/content/obj_`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// The header's timeout must not end idle HTTP/2 connections: the public
// clients would reconnect for ever.
func TestIdleConnectionsStay(t *testing.T) {
	s := start(t, Options{})
	srv, err := s.store.httpServer(nil)
	if err != nil {
		t.Fatal(err)
	}
	srv.ReadHeaderTimeout = 100 * time.Millisecond
	var opened, closed atomic.Int32
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			opened.Add(1)
		case http.StateClosed:
			closed.Add(1)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	idle := newServer(t, "http://"+l.Addr().String(), nil)
	for range 3 {
		idle.ask("GET", "/v1/objects", "")
		idle.get("GET", idle.url+"/")
		time.Sleep(400 * time.Millisecond)
	}
	if opened.Load() != 2 || closed.Load() != 0 {
		t.Errorf("%d connections opened, %d closed; want 2 that stay", opened.Load(), closed.Load())
	}
	// A connection that says nothing is closed, though.
	mute, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	fmt.Fprint(mute, "GET / HT")
	_ = mute.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(mute); err != nil {
		t.Errorf("a connection that never ends its header stays: %v", err)
	}
	idle.closeClients()
	srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// A stopping server lets requests under way end, and cuts those that do not.
func TestGracefulStop(t *testing.T) {
	for name, test := range map[string]struct {
		grace time.Duration
		ends  bool
	}{"a request that ends": {time.Minute, true}, "a request that does not": {100 * time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			st, err := Open(t.Context(), Options{DataDir: t.TempDir(), Keys: testKeys, ShutdownGrace: test.grace})
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			served := make(chan error, 1)
			go func() { served <- st.Serve(ctx, l, nil) }()
			s := newServer(t, "http://"+l.Addr().String(), nil)
			defer s.closeClients()
			s.store = st
			v := s.create("a", "")
			pr, pw := io.Pipe()
			answer := make(chan error, 1)
			go func() {
				req, _ := http.NewRequest("PUT", v.UploadURL, pr)
				a, err := trySend(s.plain, req)
				if err == nil && a.status != 200 {
					err = fmt.Errorf("%d %s", a.status, a.body)
				}
				answer <- err
			}()
			pw.Write([]byte("some"))
			eventually(t, "the upload begins", func() bool { return st.Stats().BytesIn > 0 })
			stop()
			eventually(t, "the listener closes", func() bool {
				c, err := net.Dial("tcp", l.Addr().String())
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			if test.ends {
				pw.Write([]byte(" more"))
				pw.Close()
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			pw.CloseWithError(errors.New("over")) // the client waits for its own body
			if err := <-answer; (err == nil) != test.ends {
				t.Errorf("the request under way: %v", err)
			}
			if err := st.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if n := len(contentFiles(t, st.opts.DataDir)); (n == 1) != test.ends || n > 1 {
				t.Errorf("%d files left", n)
			}
		})
	}
}

// Whatever happens, no log line has a key, a signature or a query.
func TestLogKeepsSecrets(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	s := start(t, Options{Log: zap.New(core)})
	v := s.object("a", []byte("x"), "")
	url := s.downloadURL(v.ID, "")
	s.get("GET", url)
	s.get("GET", url+"&x=canary-query")
	s.get("GET", strings.Replace(url, contentPath, "/canary/../v1//content/", 1))
	s.call("GET", "/v1/objects?search=canary-query", "")
	s.call("GET", "/v1/objects/x?token=canary-query", "", "Authorization: Bearer canary-key-that-is-wrong")
	if err := filesGone(s); err != nil {
		t.Fatal(err)
	}
	s.want("content lost", s.get("GET", url), 500, "internal") // logged as an error
	secrets := []string{"ak_anna_key", "canary-query", "canary-key", "Signature", "Expires", "Bearer"}
	if logs.FilterMessage("request").Len() < 7 || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Errorf("log lines: %v", logs.All())
	}
	enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, l := range logs.All() {
		line, err := enc.EncodeEntry(l.Entry, l.Context)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range secrets {
			if strings.Contains(line.String(), secret) {
				t.Errorf("%q is in the log: %s", secret, line)
			}
		}
	}
	last := logs.FilterMessage("request").FilterField(zap.String("account", "anna")).FilterField(zap.String("method", "POST")).All()
	if len(last) != 2 || last[0].ContextMap()["path"] != "/v1/objects" || last[0].ContextMap()["status"] != int64(200) {
		t.Errorf("lines of anna's posts: %v", last)
	}
}

func TestPanicIsAnswered(t *testing.T) {
	core, logs := observer.New(zapcore.ErrorLevel)
	s := start(t, Options{Log: zap.New(core)})
	h := s.store.logged(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("a bug") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"internal"`) || strings.Contains(w.Body.String(), "a bug") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if logs.FilterMessage("panic").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}
