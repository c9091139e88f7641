package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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

// TestAskServer: whoever asks for the status hears of mounts that other
// processes serve, and of those whose server has died.
func TestAskServer(t *testing.T) {
	w := needFUSE(t)
	file := filepath.Join(w.dir, "a.tgz")
	data, content := bigTree(3)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := w.config()
	cfg.Serve, cfg.Prefetch = true, agent.PrefetchAll
	server, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.Mount(t.Context(), agent.Mount{LocalFile: file, ObjectPath: w.path("a"), Mode: "lazy"}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.cat("a/big/1"); err != nil || got != string(content(1)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	var it agent.ItemStatus
	w.eventually("all to be cached", func() bool {
		it = w.item(w.agent().Status(), "a")
		return it.Lazy != nil && it.Lazy.Served && it.Lazy.Complete && it.Lazy.Prefetch.State == "done"
	})
	if l := it.Lazy; l.ServerPID != os.Getpid() || l.Present != l.Spans || l.Reads == 0 || it.Entries != 7 || it.Note != "" || l.Prefetch.Policy != "all" {
		t.Errorf("%+v %+v", it, l)
	}
	sockets := func() (names []string) {
		names, _ = filepath.Glob(filepath.Join(w.dir, "run/served/*"))
		return names
	}
	if st, err := os.Stat(filepath.Join(w.dir, "run/served")); err != nil || st.Mode().Perm() != 0o700 || len(sockets()) != 1 {
		t.Errorf("%v %v %v", st, err, sockets())
	}
	// A socket that does not answer as it should is said so, and waited for
	// not longer than is bearable.
	name := sockets()[0]
	if err := os.Rename(name, name+"~"); err != nil {
		t.Fatal(err)
	}
	fake := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, `{"items": []}`) })}
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- fake.Serve(l) }()
	if it = w.item(w.agent().Status(), "a"); it.Lazy.Served || !strings.Contains(it.Note, "does not say") {
		t.Errorf("%+v", it)
	}
	_ = fake.Close()
	<-served
	_ = os.Remove(name)
	if it = w.item(w.agent().Status(), "a"); it.Lazy.Served || it.Note != "" || it.State != agent.StateReady {
		t.Errorf("%+v", it)
	}
	if err := os.Rename(name+"~", name); err != nil {
		t.Fatal(err)
	}
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.eventually("the socket to be gone", func() bool { return len(sockets()) == 0 })
}

// TestStrayLayers: layers that nobody will mount again are removed, unless
// somebody's work is in them, or anything speaks for them.
func TestStrayLayers(t *testing.T) {
	w := needFUSE(t)
	file := filepath.Join(w.dir, "a.tgz")
	if err := os.WriteFile(file, tree("f", "1"), 0o600); err != nil {
		t.Fatal(err)
	}
	layers := func() []string {
		names, _ := filepath.Glob(filepath.Join(w.dir, "state/layers/*"))
		return names
	}
	cfg := w.config()
	cfg.Serve = true
	cycle := func(name string, edit bool) {
		t.Helper()
		a, err := agent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Mount(t.Context(), agent.Mount{LocalFile: file, ObjectPath: w.path(name), Mode: "lazy"}); err != nil {
			t.Fatal(err)
		}
		if edit {
			w.edit(name+"/new", "mine")
		}
		// Detached as if it were in use, it leaves its layer.
		if err := a.Unmount(t.Context(), w.path(name), agent.UnmountUnmodified|agent.UnmountLazily); err != nil {
			t.Fatal(err)
		}
		if err := a.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.eventually("the layer to be free", func() bool {
			for _, l := range layers() {
				f, err := os.Open(l)
				if err != nil {
					return false
				}
				err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
				f.Close()
				if err != nil {
					return false
				}
			}
			return true
		})
	}
	cycle("unedited", false)
	stray := layers()
	if len(stray) != 1 {
		t.Fatalf("layers: %v", stray)
	}
	sweep := func() {
		t.Helper()
		w.write()
		w.once(states{})
	}
	// Somebody holds its lock, as a server does that still has a user.
	f, err := os.Open(stray[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	sweep()
	if len(layers()) != 1 {
		t.Error("a layer in use is gone")
	}
	f.Close()
	// Something is mounted in it.
	if err := syscall.Mount("none", filepath.Join(stray[0], "lower"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	sweep()
	if len(layers()) != 1 {
		t.Error("a layer with a mount in it is gone")
	}
	if err := syscall.Unmount(filepath.Join(stray[0], "lower"), 0); err != nil {
		t.Fatal(err)
	}
	// A receipt that nobody understands may speak of it.
	bad := filepath.Join(w.dir, "state/mounts", strings.Repeat("0", 32)+".json")
	if err := os.WriteFile(bad, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	sweep()
	if len(layers()) != 1 {
		t.Error("a layer is gone that a receipt may speak of")
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	// An attribute of the root is an edit.
	upper := filepath.Join(stray[0], "upper")
	if err := syscall.Setxattr(upper, "user.mine", []byte("1"), 0); err == nil {
		sweep()
		if len(layers()) != 1 {
			t.Error("a layer with an attribute is gone")
		}
		if err := syscall.Removexattr(upper, "user.mine"); err != nil {
			t.Fatal(err)
		}
	}
	// What is not a layer is none of our business.
	mine := filepath.Join(w.dir, "state/layers", strings.Repeat("a", 32))
	if err := os.MkdirAll(filepath.Join(mine, "upper"), 0o700); err != nil {
		t.Fatal(err)
	}
	sweep()
	if _, err := os.Stat(stray[0]); !errors.Is(err, fs.ErrNotExist) || len(layers()) != 1 {
		t.Errorf("layers: %v", layers())
	}
	if err := os.RemoveAll(mine); err != nil {
		t.Fatal(err)
	}

	cycle("edited", true)
	sweep()
	kept := w.agent().Status().Kept
	if len(kept) != 1 || kept[0].Path != w.path("edited") || kept[0].Object != file || len(layers()) != 1 || kept[0].Changes != layers()[0] {
		t.Errorf("kept: %+v, layers: %v", kept, layers())
	}
	// Mounted again it is there, and nobody's leftover.
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Mount(t.Context(), agent.Mount{LocalFile: file, ObjectPath: w.path("edited"), Mode: "lazy"}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.cat("edited/new"); got != "mine" || len(w.agent().Status().Kept) != 0 {
		t.Errorf("%q %v %+v", got, err, w.agent().Status().Kept)
	}
	if err := a.Unmount(t.Context(), w.path("edited"), agent.UnmountDelete); err != nil {
		t.Fatal(err)
	}
	if err := a.Serve(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := layers(); len(n) != 0 {
		t.Errorf("layers: %v", n)
	}
}
