package agent_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/objects"
)

// TestPrefetchSame: whatever is prefetched, the bytes are the same; over a
// server that breaks off every third transfer, from a cache that is too small.
func TestPrefetchSame(t *testing.T) {
	w := needFUSE(t)
	id, content := w.publish(10)
	want := filepath.Join(w.dir, "want", "big")
	if err := os.MkdirAll(want, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(want, fmt.Sprint(i)), content(i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var n atomic.Int64
	broken := func(rw http.ResponseWriter, r *http.Request) bool {
		if !isDownload(r) || n.Add(1)%3 != 0 {
			return false
		}
		w.handler.ServeHTTP(&cutting{rw, 200_000}, r)
		return true
	}
	for _, policy := range []agent.Prefetch{agent.PrefetchNone, agent.PrefetchAuto, agent.PrefetchAll} {
		w.write(w.entry(id, "a", lazyMode, fmt.Sprintf(`"prefetch": %q`, policy)))
		d := w.daemon(func(c *agent.Config) { c.CacheSize = 6 << 20 })
		d.settles(states{"a": "ready"})
		w.intercept.Store(&broken)
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if out, err := exec.Command("diff", "-r", want, w.path("a/big")).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%.2000s", policy, err, out)
				}
			})
		}
		all.Wait()
		w.intercept.Store(nil)
		l := w.item(d.status(), "a").Lazy
		if l.Failed != 0 || l.Cached > 6<<20+1<<18 || l.Prefetch.Policy != policy || policy == agent.PrefetchNone && l.Prefetch.Spans != 0 {
			t.Errorf("%s: %+v %+v", policy, l, l.Prefetch)
		}
		if policy == agent.PrefetchAll {
			d.prefetched("a", "full")
		}
		d.stop()
	}
}

// TestHostileTrace: a published trace that is none changes nothing.
func TestHostileTrace(t *testing.T) {
	w := needFUSE(t)
	id, content := w.publish(4)
	x, err := agent.FindIndex(t.Context(), w.client, index.ObjectID{ID: id, Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	meta := map[string]string{index.MetaTraceVersion: "1", index.MetaTraceIndex: x.Metadata[index.MetaDigest], index.MetaObject: id}
	for _, file := range []string{"omtrace\x01" + strings.Repeat("\xff", 1000), strings.Repeat("x", 1<<20)} {
		_, err := w.client.Upload(t.Context(), objects.CreateRequest{Name: index.PublishedTraceName(id), ContentType: index.PublishedContentType, Metadata: meta}, objects.Body{Size: int64(len(file)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(file)), nil }}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.write(w.entry(id, "a", lazyMode))
		d := w.daemon()
		d.settles(states{"a": "ready"})
		if l := d.prefetched("a", "idle"); l.Index != "published" || l.Prefetch.Traced != 0 || l.Prefetch.Spans != 0 {
			t.Errorf("%+v %+v", l, l.Prefetch)
		}
		if got, err := w.cat("a/big/3"); err != nil || got != string(content(3)) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		d.stop()
		if n := strings.Count(w.logs.String(), "published trace is of no use"); n == 0 {
			t.Error("nothing is said of it")
		}
		for _, dir := range []string{"cache", "state"} {
			if err := os.RemoveAll(filepath.Join(w.dir, dir)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
