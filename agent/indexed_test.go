package agent_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/internal/archivetest"
	"objectmount/objects"
)

// largeEnough is from how many MiB on an object's index is asked for.
const largeEnough = 33

// checkBig looks at some files of a bigTree.
func (w *world) checkBig(name string, files int, content func(i int) []byte) {
	w.Helper()
	for _, i := range []int{0, files / 2, files - 1} {
		got, err := os.ReadFile(w.path(fmt.Sprintf("%s/big/%d", name, i)))
		if err != nil || !bytes.Equal(got, content(i)) {
			w.Errorf("%s: file %d has %d bytes, %v", name, i, len(got), err)
		}
	}
}

// indexes are the indexes in the cache.
func (w *world) indexes() []string {
	list, err := filepath.Glob(filepath.Join(w.dir, "cache", "v1", "*", "index"))
	if err != nil {
		w.Fatal(err)
	}
	return list
}

const byIndex = "extracted by an index"

// TestExtractByIndex extracts a large object by its published index, which
// costs two calls of the API and a download, and once more by the one in the
// cache, which costs nothing.
func TestExtractByIndex(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("one processor has no use for an index")
	}
	w := newWorld(t)
	id, content := w.publish(largeEnough)
	calls := func(name string) int64 {
		before := w.calls.Load()
		w.mount(agent.Mount{ObjectID: id, Mode: "extract"}, name)
		w.checkBig(name, largeEnough, content)
		return w.calls.Load() - before
	}
	if n := calls("a"); n != 4 { // object, URL, list, URL of the index
		t.Errorf("%d calls of the API", n)
	}
	if n := calls("b"); n != 2 {
		t.Errorf("%d calls of the API with the index in the cache", n)
	}
	if n := strings.Count(w.logs.String(), byIndex); n != 2 {
		t.Errorf("%d of 2 were extracted by an index\n%s", n, w.logs.String())
	}
	if n := len(w.indexes()); n != 1 {
		t.Errorf("%d indexes in the cache", n)
	}
	// The object's SHA-256 is checked with an index as without.
	_, err := w.agent().Mount(w.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path("c"), Mode: "extract", SHA256: strings.Repeat("0", 64)})
	if !errors.Is(err, objects.ErrChecksum) {
		t.Errorf("a wrong SHA-256: %v", err)
	}
}

// TestExtractSmall: nobody asks for the index of a small object.
func TestExtractSmall(t *testing.T) {
	w := newWorld(t)
	id, content := w.publish(5)
	before := w.calls.Load()
	w.mount(agent.Mount{ObjectID: id, Mode: "extract"}, "a")
	w.checkBig("a", 5, content)
	if n := w.calls.Load() - before; n != 2 {
		t.Errorf("%d calls of the API", n)
	}
}

// TestExtractByWrongIndex: an index that claims to be of the object and is of
// another, or that cannot be had, is done without.
func TestExtractByWrongIndex(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("one processor has no use for an index")
	}
	if testing.Short() {
		t.Skip("several times 33 MiB")
	}
	w := newWorld(t)
	data, content := bigTree(largeEnough)
	// The same with another byte: as nothing of it can be compressed, the index
	// differs in checksums only.
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	stream[len(stream)/2]++
	other := archivetest.Gzip(stream)
	if len(other) != len(data) {
		t.Fatalf("%d bytes, not %d", len(other), len(data))
	}
	id := w.upload("a.tgz", data)
	obj, err := w.client.Get(w.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Build(w.Context(), sourceOf(other), index.BuildOptions{Object: index.ObjectID{ID: id, Size: int64(len(data))}})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if _, _, err := agent.PublishIndex(w.Context(), w.client, obj, x, nil); err != nil {
		t.Fatal(err)
	}
	w.mount(agent.Mount{ObjectID: id, Mode: "extract"}, "a")
	w.checkBig("a", largeEnough, content)
	if log := w.logs.String(); !strings.Contains(log, "without the index") {
		t.Errorf("not extracted again:\n%s", log)
	}
	if left := w.indexes(); len(left) > 0 {
		t.Errorf("the wrong index is still in the cache: %v", left)
	}

	refuse := func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.RawQuery, "objectmount-index") {
			return false
		}
		http.Error(rw, `{"message": "no"}`, http.StatusForbidden)
		return true
	}
	w.intercept.Store(&refuse)
	w.mount(agent.Mount{ObjectID: id, Mode: "extract"}, "b")
	w.checkBig("b", largeEnough, content)
	w.intercept.Store(nil)
	if log := w.logs.String(); !strings.Contains(log, "index is of no use") {
		t.Errorf("the list was not asked for:\n%s", log)
	}
}
