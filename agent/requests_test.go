package agent_test

import (
	"io"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/internal/archivetest"
	"objectmount/objects"
)

// TestRequests counts what one small file of a large .tar.gz costs, from the
// first question to the last byte, where its index is published: at most three
// requests and 3 MiB, over a line on which each takes 30 ms. The object has
// 128 MiB; OBJECTMOUNT_TEST_MIB=1024 makes it a gibibyte.
func TestRequests(t *testing.T) {
	w := needFUSE(t)
	size := int64(128)
	if testing.Short() {
		size = 16
	}
	if s := os.Getenv("OBJECTMOUNT_TEST_MIB"); s != "" {
		var err error
		if size, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	large := archivetest.NewLarge(1, size<<20)
	obj, err := w.client.Upload(w.Context(), objects.CreateRequest{Name: "a.tar.gz", ContentType: objects.ContentTgz},
		objects.Body{Size: large.Size(), Open: func() (io.ReadCloser, error) { return io.NopCloser(large.Reader()), nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Build(w.Context(), index.ReaderSource(large, large.Size()), index.BuildOptions{Object: index.ObjectID{ID: obj.ID, Size: large.Size()}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	published, _, err := agent.PublishIndex(w.Context(), w.client, obj, x, nil)
	if err != nil {
		t.Fatal(err)
	}

	var sent atomic.Int64
	count := func(rw http.ResponseWriter, r *http.Request) bool {
		time.Sleep(30 * time.Millisecond)
		if !isDownload(r) {
			return false
		}
		w.handler.ServeHTTP(&counting{rw, &sent}, r)
		return true
	}
	w.intercept.Store(&count)
	calls, contents := w.calls.Load(), w.contents.Load()
	w.write(w.entry(obj.ID, "a", lazyMode, `"prefetch": "none"`))
	d := w.daemon()
	d.settles(states{"a": "ready"})
	name, want := large.Small(large.Files() * 2 / 3)
	began := time.Now()
	got, err := w.cat("a/" + name)
	if err != nil || got != want {
		t.Errorf("%s: %q, %v", name, got, err)
	}
	took := time.Since(began)
	calls, contents = w.calls.Load()-calls, w.contents.Load()-contents
	t.Logf("object %d bytes, stream %d, index %d, published %d; %d calls of the API, %d requests, %d bytes; read in %v",
		large.Size(), x.StreamSize(), x.Size(), *published.SizeBytes, calls, contents, sent.Load(), took)
	if contents > 3 || sent.Load() > 3<<20 {
		t.Errorf("%d requests, %d bytes", contents, sent.Load())
	}
	if calls > 4 { // object, URL, list, URL of the index
		t.Errorf("%d calls of the API", calls)
	}
}

// counting counts the bytes that were written.
type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n))
	return n, err
}
