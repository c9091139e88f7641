package agent_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/objects"
)

// cat reads a file in a process of its own: this one serves the mounts.
func (w *world) cat(name string) (string, error) {
	var out strings.Builder
	cmd := exec.Command("cat", w.path(name))
	cmd.Stdout = &out
	err := cmd.Run()
	return out.String(), err
}

// publish puts a tree with a published index on the server.
func (w *world) publish(files int) (id string, content func(i int) []byte) {
	w.Helper()
	data, content := bigTree(files)
	id = w.upload("a.tgz", data)
	x, err := index.Build(w.Context(), sourceOf(data), index.BuildOptions{Object: index.ObjectID{ID: id, Size: int64(len(data))}})
	if err != nil {
		w.Fatal(err)
	}
	defer x.Close()
	obj, err := w.client.Get(w.Context(), id)
	if err == nil {
		_, _, err = agent.PublishIndex(w.Context(), w.client, obj, x, nil)
	}
	if err != nil {
		w.Fatal(err)
	}
	return id, content
}

func sourceOf(data []byte) index.Source {
	return index.ReaderSource(strings.NewReader(string(data)), int64(len(data)))
}

// forgetSpans makes the cache forget what it has but indexes and traces.
func (w *world) forgetSpans() {
	w.Helper()
	for _, name := range []string{"data", "journal", "state"} {
		files, err := filepath.Glob(filepath.Join(w.dir, "cache", "v1", "*", name))
		if err != nil || len(files) == 0 {
			w.Fatalf("no file %s in the cache: %v", name, err)
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				w.Fatal(err)
			}
		}
	}
}

// prefetched waits until a mount's background has come to a state.
func (d *daemon) prefetched(name, state string) *agent.LazyStatus {
	d.w.Helper()
	var l *agent.LazyStatus
	d.w.eventually("the background of "+name+" to be "+state, func() bool {
		l = d.w.item(d.status(), name).Lazy
		return l != nil && l.Prefetch != nil && l.Prefetch.State == state
	})
	return l
}

// TestPrefetchAll: when nobody asks for anything everything comes, and then no
// server is needed; a mount that is to prefetch nothing has nothing of its own
// accord. The spec can change it at any time.
func TestPrefetchAll(t *testing.T) {
	w := needFUSE(t)
	id, content := w.publish(12)
	other, _ := w.publish(6)
	all, none := `"prefetch": "all"`, `"prefetch": "none"`
	w.write(w.entry(id, "all", lazyMode, all), w.entry(other, "none", lazyMode, none))
	d := w.daemon()
	d.settles(states{"all": "ready", "none": "ready"})
	l := d.prefetched("all", "done")
	if l.Index != "published" || l.Present != l.Spans || l.Prefetch.Background != int64(l.Spans) || l.Prefetch.Policy != "all" || l.Prefetch.Bytes == 0 || l.Prefetch.Failed != 0 {
		t.Errorf("%+v %+v", l, l.Prefetch)
	}
	if _, err := w.cat("none/big/3"); err != nil {
		t.Fatal(err)
	}
	l = w.item(d.status(), "none").Lazy
	if p := l.Prefetch; p.State != "off" || p.Spans != 0 || p.Bytes != 0 || l.Present == 0 || l.Present > 3 {
		t.Errorf("%+v %+v", l, p)
	}
	// Another wish: the mount stays, and what it fetches changes.
	w.write(w.entry(id, "all", lazyMode, none), w.entry(other, "none", lazyMode, all))
	l = d.prefetched("none", "done")
	d.prefetched("all", "off")
	if l.Present != l.Spans || l.Reads == 0 {
		t.Errorf("%+v %+v", l, l.Prefetch)
	}
	down := func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	w.intercept.Store(&down)
	before := w.requests()
	for i := range 12 {
		if got, err := w.cat(fmt.Sprintf("all/big/%d", i)); err != nil || got != string(content(i)) {
			t.Errorf("file %d: %d bytes, %v", i, len(got), err)
		}
	}
	if n := w.requests() - before; n != 0 {
		t.Errorf("%d requests for what is in the cache", n)
	}
}

// TestPrefetchTrace: what was read is fetched when it is mounted again, on
// this machine and on another.
func TestPrefetchTrace(t *testing.T) {
	w := needFUSE(t)
	id, content := w.publish(16)
	w.write(w.entry(id, "a", lazyMode, `"publish_index": true`))
	read := func() {
		t.Helper()
		for _, i := range []int{11, 4, 12} {
			if got, err := w.cat(fmt.Sprintf("a/big/%d", i)); err != nil || got != string(content(i)) {
				t.Errorf("file %d: %d bytes, %v", i, len(got), err)
			}
		}
	}
	short := func(c *agent.Config) { c.TraceFor = time.Millisecond }
	long := func(c *agent.Config) { c.TraceFor = time.Hour }
	// A trace of all reads, written down when the mount goes.
	d := w.daemon(long)
	d.settles(states{"a": "ready"})
	read()
	d.stop()
	if traces, _ := filepath.Glob(filepath.Join(w.dir, "cache/v1/*/trace")); len(traces) != 1 {
		t.Fatalf("traces: %v", traces)
	}
	// Cold, but for index and trace.
	again := func(change ...func(*agent.Config)) {
		t.Helper()
		d := w.daemon(change...)
		defer d.stop()
		d.settles(states{"a": "ready"})
		l := d.prefetched("a", "idle")
		if l.Prefetch.Traced < 3 || l.Prefetch.Background != int64(l.Prefetch.Traced) || l.Present < 3 || l.Present >= l.Spans || l.Misses != 0 {
			t.Errorf("%+v %+v", l, l.Prefetch)
		}
		// What is read ahead of the readers may ask for more; they do not wait.
		down := func(rw http.ResponseWriter, r *http.Request) bool {
			if isDownload(r) {
				rw.WriteHeader(http.StatusServiceUnavailable)
			}
			return isDownload(r)
		}
		w.intercept.Store(&down)
		defer w.intercept.Store(nil)
		read()
		if l = w.item(d.status(), "a").Lazy; l.Misses != 0 || l.Hits == 0 {
			t.Errorf("%+v", l)
		}
		if change == nil {
			return
		}
		// The window is over with the first read: this trace is published.
		w.eventually("the trace to be published", func() bool {
			for o, err := range w.client.All(t.Context(), objects.ListQuery{Name: index.PublishedTraceName(id), State: objects.StateReadOnly}) {
				return err == nil && o.Name == index.PublishedTraceName(id)
			}
			return false
		})
	}
	w.forgetSpans()
	again(short)
	// Another machine takes index and trace from the server.
	for _, dir := range []string{"cache", "state"} {
		if err := os.RemoveAll(filepath.Join(w.dir, dir)); err != nil {
			t.Fatal(err)
		}
	}
	again()
}

// TestPrefetchGone: an object that is deleted is served as far as it is in the
// cache, and status says what is not; nothing is tried for ever.
func TestPrefetchGone(t *testing.T) {
	w := needFUSE(t)
	id, content := w.publish(40)
	w.write(w.entry(id, "a", lazyMode, `"prefetch": "none"`))
	d := w.daemon(func(c *agent.Config) { c.RetryBudget, c.URLValid = 100*time.Millisecond, time.Minute })
	d.settles(states{"a": "ready"})
	if got, err := w.cat("a/big/2"); err != nil || got != string(content(2)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := w.client.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.clock.Store(int64(time.Hour)) // what was signed has expired
	if _, err := w.cat("a/big/37"); err == nil {
		t.Error("what is not there can be read")
	}
	it := w.item(d.status(), "a")
	if l := it.Lazy; it.State != agent.StateReady || l.Gone == "" || l.LastError == "" || it.Hint == "" ||
		!strings.Contains(it.Note, fmt.Sprintf("%d of %d pieces are in the cache", l.Present, l.Spans)) {
		t.Errorf("%+v %+v", it, l)
	}
	if got, err := w.cat("a/big/2"); err != nil || got != string(content(2)) {
		t.Errorf("what is there: %d bytes, %v", len(got), err)
	}
	w.write(w.entry(id, "a", lazyMode, `"prefetch": "all"`))
	l := d.prefetched("a", "stopped")
	if l.Prefetch.Failed != 1 || l.Prefetch.Error == "" {
		t.Errorf("%+v", l.Prefetch)
	}
	if n := strings.Count(w.logs.String(), "nothing more is fetched in the background"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestPrefetchSpec: one word of three, and only where it means something.
func TestPrefetchSpec(t *testing.T) {
	w := newWorld(t)
	for entry, want := range map[string]string{
		`"prefetch": "some"`:                      `prefetch "some" is unknown`,
		`"prefetch": true`:                        "prefetch must be text",
		`"prefetch": "all", "mode": "extract"`:    "prefetch is for lazy mounts",
		`"prefetch": "auto", "prefech": "auto"`:   `unknown key "prefech"`,
		`"prefetch": "none", "mode": "lazy"`:      "",
		`"prefetch": null, "mode": "extract"`:     "",
		`"prefetch": "all", "read_only": true`:    "",
		`"prefetch": "none", "prefetch": "none"`:  "for the second time",
		`"prefetch": "ALL"`:                       "is unknown",
		`"prefetch": "none", "on_conflict": null`: "",
	} {
		w.write(w.entry("obj_1", "a", entry))
		_, err := agent.LoadSpec(w.spec)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", entry, err)
		}
		if err != nil && agent.ErrorHint(err) == "" {
			t.Errorf("%s: no hint", entry)
		}
	}
	if _, err := agent.ParsePrefetch("some"); err == nil {
		t.Error("a flag can be anything")
	}
}
