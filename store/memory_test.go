package store

import (
	"crypto/sha256"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
)

// TestMemory moves 512 MiB through a server process, both ways, by each
// protocol, and looks at the most memory the process ever held.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("moves gigabytes")
	}
	const (
		size  = 512 << 20
		bound = 64 << 20
	)
	c := startChild(t, t.TempDir())
	for name, test := range map[string]struct {
		client *http.Client
		length int64
	}{"HTTP/1.1": {c.plain, size}, "HTTP/1.1, chunked": {c.plain, -1}, "h2c": {c.calls, size}} {
		v := c.create(name, "")
		sent, got := sha256.New(), sha256.New()
		req, _ := http.NewRequest("PUT", v.UploadURL, io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sent))
		req.ContentLength = test.length
		if a := c.send(test.client, req); a.status != 200 {
			t.Fatalf("%s: upload: %d %s", name, a.status, a.body)
		}
		c.ask("POST", "/v1/objects/"+v.ID+"/complete", "")
		if n := c.drain(test.client, c.downloadURL(v.ID, ""), got); n != size || string(got.Sum(nil)) != string(sent.Sum(nil)) {
			t.Errorf("%s: %d bytes came back, or others", name, n)
		}
		peak := c.peakRSS()
		t.Logf("%s: peak RSS %d MiB", name, peak>>20)
		if peak > bound {
			t.Errorf("%s: peak RSS %d MiB, more than %d MiB", name, peak>>20, bound>>20)
		}
		c.ask("POST", "/v1/objects/"+v.ID+"/delete", "")
	}
}

// drain downloads into a hash.
func (s *server) drain(client *http.Client, url string, into hash.Hash) int64 {
	s.t.Helper()
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(into, resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}
