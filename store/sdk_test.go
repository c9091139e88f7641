package store

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/objects"
)

// npmInstall installs the public client into a temporary copy of sdktest.
func npmInstall(t *testing.T) string {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v: CI must run the public client", err)
			}
			t.Skipf("%v: the public client cannot run", err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "run.mjs"} {
		b, err := os.ReadFile(filepath.Join("sdktest", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	// What is in npm's cache is not fetched again.
	cmd := exec.CommandContext(ctx, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// counted counts the connections that a listener takes.
type counted struct {
	net.Listener
	n atomic.Int32
}

func (l *counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

// TestPublicClient runs @runloop/api-client, unmodified, on cleartext (where
// it speaks h2c with prior knowledge) and on TLS.
func TestPublicClient(t *testing.T) {
	if testing.Short() {
		t.Skip("installs from npm")
	}
	dir := npmInstall(t)
	serverTLS, _, ca := testTLS(t)
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for scheme, tc := range map[string]*tls.Config{"http": nil, "https": serverTLS} {
		t.Run(scheme, func(t *testing.T) {
			const key = "ak_canary_of_the_public_client"
			st, err := Open(t.Context(), Options{DataDir: t.TempDir(), Keys: []Account{{"sdk", objects.Secret(key)}}})
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			l := &counted{Listener: tcp}
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- st.Serve(ctx, l, tc) }()

			ctx2, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx2, "node", "run.mjs")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "RUNLOOP_BASE_URL="+scheme+"://"+l.Addr().String(), "RUNLOOP_API_KEY="+key,
				"NODE_EXTRA_CA_CERTS="+caFile, "NO_PROXY=127.0.0.1", "TMPDIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil || !bytes.HasSuffix(out, []byte("done\n")) {
				t.Errorf("%v\n%s", err, out)
			} else {
				t.Logf("%d steps, %d connections", strings.Count(string(out), "ok: "), l.n.Load())
			}
			if bytes.Contains(out, []byte(key)) || bytes.Contains(out, []byte("Signature=")) {
				t.Error("the output has a key or a signature")
			}
			// The client opens 4 HTTP/2 connections for each of two keys and a
			// few HTTP/1.1 ones; thousands if the server is not to its liking.
			if n := l.n.Load(); n > 100 {
				t.Errorf("%d connections: the client keeps reconnecting", n)
			}
			stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
	http.DefaultClient.CloseIdleConnections()
}
