package faulttest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestPattern: it is the same wherever and in whatever pieces it is read, and
// no two rounds of its block are alike.
func TestPattern(t *testing.T) {
	p := NewPattern(1, 3*patternBlock+100)
	all, err := io.ReadAll(p.Reader())
	if err != nil || int64(len(all)) != p.Size() {
		t.Fatal(len(all), err)
	}
	for _, off := range []int64{0, 3, patternBlock - 5, patternBlock, patternBlock + 3, 2*patternBlock - 1, 3 * patternBlock, p.Size() - 3} {
		for _, n := range []int64{1, 3, 20, patternBlock + 20} {
			b := make([]byte, n)
			m, err := p.ReadAt(b, off)
			want := all[off:min(off+n, p.Size())]
			if m != len(want) || !bytes.Equal(b[:m], want) || (err == io.EOF) != (m < len(b)) {
				t.Errorf("%d bytes at %d: %d came, error %v", n, off, m, err)
			}
		}
	}
	if bytes.Equal(all[:100], all[patternBlock:patternBlock+100]) {
		t.Error("two rounds begin alike")
	}
	if q := NewPattern(2, 100); bytes.Equal(q.block, p.block[:100]) {
		t.Error("two seeds give the same")
	}
}

// TestLine: bytes pass as they are, from a file as from memory, and not sooner
// than the line lets them. How much later is not asked: the machine is shared.
func TestLine(t *testing.T) {
	const size = 3<<20 + 17
	p := NewPattern(1, size)
	want, _ := io.ReadAll(p.Reader())
	name := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	line := Line{Latency: 20 * time.Millisecond, Rate: 30e6}
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: line.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/file" {
			http.ServeFile(w, r, name)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, p.Reader())
	}))}
	done := make(chan error)
	go func() { done <- s.Serve(line.Listener(inner)) }()
	defer func() { s.Close(); <-done }()
	for _, path := range []string{"file", "memory", "file"} {
		start := time.Now()
		resp, err := http.Get(fmt.Sprintf("http://%s/%s", inner.Addr(), path))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %d bytes, %v", path, len(got), err)
		}
		took := time.Since(start)
		// The last slice passes at once, and late is what may be made up for.
		if least := line.Latency + time.Duration((size-2*slice)*int64(time.Second)/line.Rate) - late; took < least {
			t.Errorf("%s: it took %s, less than %s", path, took, least)
		}
		t.Logf("%s: %s, %.1f MB/s", path, took, size/1e6/(took-line.Latency).Seconds())
	}
}
