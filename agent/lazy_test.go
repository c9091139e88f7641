package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
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
	"objectmount/internal/archivetest"
	"objectmount/mount"
)

// needFUSE skips where nothing can be mounted, and takes down what a failed
// test left.
func needFUSE(t *testing.T) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	w := newWorld(t)
	t.Cleanup(func() {
		for _, m := range w.mounts() {
			t.Errorf("mount left behind: %+v", m)
			if err := mount.Unmount(m.Dir, true); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

// mounts are those of ours below the test's directory.
func (w *world) mounts() (list []mount.Mounted) {
	all, err := mount.List(w.Context())
	if err != nil && w.Context().Err() == nil {
		w.Error(err)
	}
	for _, m := range all {
		if strings.HasPrefix(m.Dir, w.dir) {
			list = append(list, m)
		}
	}
	return list
}

// bigTree is an archive of several spans: big/N have each a mebibyte.
func bigTree(n int) (data []byte, content func(i int) []byte) {
	files := make([][]byte, n)
	parts := [][]byte{archivetest.File("first", "1"), archivetest.Dir("big/")}
	for i := range files {
		files[i] = randomBytes(1 << 20)
		parts = append(parts, archivetest.File(fmt.Sprintf("big/%d", i), string(files[i])))
	}
	parts = append(parts, archivetest.Symlink("link", "big/0"), archivetest.HardLink("hard", "first"))
	return archivetest.Gzip(archivetest.Tar(parts...)), func(i int) []byte { return files[i] }
}

const lazyMode = `"mode": "lazy"`

// TestLazy: a mount of the spec is live, says how it does, can be written to,
// and comes back with its changes.
func TestLazy(t *testing.T) {
	w := needFUSE(t)
	data, content := bigTree(4)
	w.write(w.entry(w.upload("a.tgz", data), "a", lazyMode))
	d := w.daemon()
	it := w.item(d.settles(states{"a": "ready"}), "a")
	if it.Lazy == nil || !it.Lazy.Writable || it.Lazy.Index != "first pass" || it.Note != "" {
		t.Errorf("item is %+v (%+v)", it, it.Lazy)
	}
	for i := range 4 {
		if w.read(fmt.Sprintf("a/big/%d", i)) != string(content(i)) {
			t.Errorf("file %d is not what was packed", i)
		}
	}
	w.eventually("the index to be complete", func() bool {
		it = w.item(d.status(), "a")
		return it.Lazy.Complete
	})
	if it.Entries != 8 || it.Lazy.Present != it.Lazy.Spans || it.Lazy.Fetched < int64(len(data)) || it.Lazy.Reads == 0 || it.Phase != "" {
		t.Errorf("item is %+v (%+v)", it, it.Lazy)
	}
	w.edit("a/first", "edited")
	w.edit("a/new", "new")
	d.stop()
	if left := w.mounts(); len(left) != 0 {
		t.Fatalf("the daemon left %+v", left)
	}
	if w.exists("a/first") {
		t.Error("the tree is there without its mount")
	}

	// The server of the objects is gone: index and spans are here.
	down := func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	w.intercept.Store(&down)
	before := w.requests()
	d = w.daemon()
	it = w.item(d.settles(states{"a": "ready"}), "a")
	if n := w.requests() - before; n != 0 || it.Lazy.Index != "cache" {
		t.Errorf("%d requests, and the index is from %s", n, it.Lazy.Index)
	}
	if got := w.read("a/first") + w.read("a/new") + w.read("a/hard"); got != "editednew1" {
		t.Errorf("files hold %q", got)
	}
	if w.read("a/big/3") != string(content(3)) {
		t.Error("a cached file is not what was packed")
	}
	w.intercept.Store(nil)

	// Out of the spec: detached, and nothing is left at the path.
	w.write()
	d.settles(states{})
	w.gone("a")
}

// TestLazyPublished: what one machine has indexed, another mounts without
// reading it.
func TestLazyPublished(t *testing.T) {
	w := needFUSE(t)
	data, content := bigTree(8)
	id := w.upload("a.tgz", data)
	w.write(w.entry(id, "a", lazyMode, `"publish_index": true`))
	d := w.daemon()
	d.settles(states{"a": "ready"})
	w.eventually("the index to be published", func() bool {
		_, err := agent.FindIndex(t.Context(), w.client, index.ObjectID{ID: id, Size: int64(len(data))})
		return err == nil
	})
	d.stop()

	d = w.daemon(func(c *agent.Config) { c.StateDir, c.CacheDir = w.dir+"/state2", w.dir+"/cache2" })
	it := w.item(d.settles(states{"a": "ready"}), "a")
	if it.Lazy.Index != "published" || !it.Lazy.Complete || it.Lazy.Fetched >= int64(len(data)) {
		t.Errorf("item is %+v", it.Lazy)
	}
	if w.read("a/big/7") != string(content(7)) {
		t.Error("the file is not what was packed")
	}
	d.stop()
}

// TestLazyAuto: what is large is lazy, and what cannot be is extracted, and
// said so.
func TestLazyAuto(t *testing.T) {
	w := needFUSE(t)
	data, _ := bigTree(2)
	large, small, plain := w.upload("l.tgz", data), w.upload("s.tgz", tree("f", "1")), w.upload("p.bin", randomBytes(1<<20))
	w.write(
		w.entry(large, "large"), w.entry(small, "small"), w.entry(large, "extract", `"mode": "extract"`),
		w.entry(plain, "plain"), w.entry(plain, "lazyplain", lazyMode), w.entry(plain, "dir/", `"read_only": true`),
		w.entry(large, "merge", `"on_conflict": "merge"`),
		w.entry(large, "outer"), w.entry(small, "outer/in"),
		w.entry(small, "ro", `"read_only": true`),
	)
	d := w.daemon(func(c *agent.Config) { c.LazyAbove = 100 << 10 })
	st := d.settles(states{"large": "ready", "small": "ready", "extract": "ready", "plain": "ready", "lazyplain": "ready",
		"dir": "ready", "merge": "ready", "outer": "ready", "outer/in": "ready", "ro": "ready"})
	for name, want := range map[string]struct {
		lazy bool
		note string
	}{
		"large": {true, ""}, "small": {false, ""}, "extract": {false, ""},
		"plain":     {false, "extracted: a single file that is mounted lazily cannot be written to"},
		"lazyplain": {true, "not writable: the object is a single file, and overlayfs lies over directories"},
		"dir":       {true, ""},
		"merge":     {false, "extracted: on_conflict is merge"},
		"outer":     {false, "extracted: the mount " + w.path("outer/in") + " lies inside of it"},
		"outer/in":  {false, ""}, "ro": {true, ""},
	} {
		if it := w.item(st, name); (it.Lazy != nil) != want.lazy || it.Note != want.note {
			t.Errorf("%s: lazy %+v, note %q", name, it.Lazy, it.Note)
		}
	}
	if got := w.item(st, "dir").RealPath; got != w.path("dir/p.bin") || w.read("dir/p.bin") != w.read("plain") || w.read("lazyplain") != w.read("plain") {
		t.Errorf("the file is at %s", got)
	}
	if err := os.WriteFile(w.path("ro/f"), nil, 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("writing to a read-only mount: %v", err)
	}
	// Another mode is another mount.
	w.write(w.entry(large, "large", `"mode": "extract"`), w.entry(small, "small", lazyMode))
	w.eventually("the modes to change", func() bool {
		st := d.status()
		l, s := w.item(st, "large"), w.item(st, "small")
		return l.Lazy == nil && l.State == "ready" && s.Lazy != nil && s.State == "ready"
	})
	if w.read("large/first")+w.read("small/f") != "11" {
		t.Error("the files are not what they were")
	}
	d.stop()
	if !w.exists("large/first") || w.exists("small/f") {
		t.Error("what is extracted stays, what is lazy goes")
	}
}

// TestLazyBusy: what is in use is not taken away, and who uses it is told.
func TestLazyBusy(t *testing.T) {
	w := needFUSE(t)
	w.write(w.entry(w.upload("a.tgz", tree("f", "1")), "a", lazyMode))
	d := w.daemon()
	d.settles(states{"a": "ready"})
	f, err := os.Open(w.path("a/f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var busy *mount.BusyError
	err = w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified)
	if !errors.As(err, &busy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) || !strings.Contains(agent.ErrorHint(err), "--lazy") {
		t.Fatalf("got %v, hint %q", err, agent.ErrorHint(err))
	}
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified|agent.UnmountLazily); err != nil {
		t.Fatal(err)
	}
	w.gone("a")
	if b, err := fs.ReadFile(os.DirFS("/proc/self/fd"), fmt.Sprint(f.Fd())); err != nil || string(b) != "1" {
		t.Errorf("who has it open reads %q, %v", b, err)
	}
	f.Close()
	// The daemon leaves it alone until it reads the spec again.
	st := d.settles(states{"a": "pending"})
	if it := w.item(st, "a"); !strings.Contains(it.Phase, "unmounted by hand") {
		t.Errorf("item is %+v", it)
	}
	d.Reload()
	d.settles(states{"a": "ready"})
	// A mount that goes by itself is made again.
	if err := syscall.Unmount(w.path("a"), 0); err != nil {
		t.Fatal(err)
	}
	for _, m := range w.mounts() {
		if err := syscall.Unmount(m.Dir, 0); err != nil && m.Dir != w.path("a") {
			t.Fatal(err)
		}
	}
	w.eventually("the mount to be there again", func() bool { return w.exists("a/f") })
}

// TestLazyKilled: a daemon that is killed leaves dead mounts, which the next
// one takes away and makes anew, never one above the other.
func TestLazyKilled(t *testing.T) {
	w := needFUSE(t)
	id := w.upload("a.tgz", tree("f", "1"))
	w.write(w.entry(id, "a", lazyMode), w.entry(id, "ro", lazyMode, `"read_only": true`))
	for round := range 3 {
		cmd := w.start(childJob{Daemon: true})
		w.eventually("the mounts", func() bool { return w.exists("a/f") && w.exists("ro/f") })
		w.edit("a/n", fmt.Sprint(round))
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if err := syscall.Statfs(w.path("ro"), new(syscall.Statfs_t)); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("the mount of a dead daemon gives %v", err)
		}
	}
	d := w.daemon()
	d.settles(states{"a": "ready", "ro": "ready"})
	if n := len(w.mounts()); n != 2 || w.read("a/n") != "2" {
		t.Errorf("%d mounts: %+v", n, w.mounts())
	}
	d.stop()
	cmd := w.start(childJob{Daemon: true})
	w.eventually("the mounts", func() bool { return w.exists("a/f") && w.exists("ro/f") })
	_ = cmd.Process.Signal(syscall.SIGKILL)
	_ = cmd.Wait()
	// Not wanted any more: the dead one goes, too.
	w.write()
	d = w.daemon()
	d.settles(states{})
	w.gone("a", "ro")
}

// TestLazyCorrupt: an archive that proves damaged late is no mount that can be
// believed, and the reason is told.
func TestLazyCorrupt(t *testing.T) {
	w := needFUSE(t)
	data, _ := bigTree(4)
	data[len(data)-5] ^= 1 // the length or checksum at its end
	w.write(w.entry(w.upload("a.tgz", data), "a", lazyMode))
	d := w.daemon()
	st := d.settles(states{"a": "failed"})
	if it := w.item(st, "a"); !strings.Contains(it.Error, "corrupt") || it.Hint == "" {
		t.Errorf("item is %+v", it)
	}
	if _, err := os.ReadFile(w.path("a/big/3")); err == nil {
		t.Error("bytes that were not verified can be read")
	}
}

// TestLazyOnce: a command that does not stay extracts.
func TestLazyOnce(t *testing.T) {
	w := needFUSE(t)
	w.write(w.entry(w.upload("a.tgz", tree("f", "1")), "a", lazyMode))
	st := w.once(states{"a": "ready"})
	if it := w.item(st, "a"); it.Lazy != nil || it.Note != "extracted: nobody stays to serve it" || w.read("a/f") != "1" {
		t.Errorf("item is %+v", it)
	}
	// The daemon keeps what is there.
	d := w.daemon()
	if it := w.item(d.settles(states{"a": "ready"}), "a"); it.Lazy != nil {
		t.Errorf("item is %+v", it)
	}
}

// TestLazyManual: Mount serves when it is told to, and says so when it is not.
func TestLazyManual(t *testing.T) {
	w := needFUSE(t)
	file := filepath.Join(w.dir, "a.tgz")
	if err := os.WriteFile(file, tree("f", "1"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := agent.Mount{LocalFile: file, ObjectPath: w.path("a"), Mode: "lazy"}
	if _, err := w.agent().Mount(t.Context(), m); !errors.Is(err, agent.ErrNeedsServer) {
		t.Fatalf("got %v", err)
	}
	w.gone("a")
	cfg := w.config()
	cfg.Serve = true
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	it, err := a.Mount(t.Context(), m)
	if err != nil || it.Lazy == nil || w.read("a/f") != "1" {
		t.Fatalf("%+v %v", it, err)
	}
	served := make(chan error, 1)
	go func() { served <- a.Serve(t.Context()) }()
	// It is there: nobody has to serve it for this.
	if it, err := w.agent().Mount(t.Context(), m); err != nil || it.Lazy == nil {
		t.Errorf("%+v %v", it, err)
	}
	w.edit("a/f", "edited")
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it is served although it is gone")
	}
	w.gone("a")
	// The same object at the same path has its changes; deleted ones are gone.
	for _, want := range []string{"edited", "1"} {
		a, err := agent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Mount(t.Context(), m); err != nil || w.read("a/f") != want {
			t.Errorf("the file holds %q, want %q (%v)", w.read("a/f"), want, err)
		}
		if err := a.Unmount(t.Context(), w.path("a"), agent.UnmountDelete); err != nil {
			t.Fatal(err)
		}
		if err := a.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLazyNetwork: a first pass whose network goes away is no mount for good:
// it is made anew, and what was written meanwhile is in it.
func TestLazyNetwork(t *testing.T) {
	w := needFUSE(t)
	data, content := bigTree(8)
	id := w.upload("a.tgz", data)
	half := func(rw http.ResponseWriter, r *http.Request) bool {
		if !isDownload(r) {
			return false
		}
		// The first bytes, so that the tree is live, and then nothing more.
		if !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		w.handler.ServeHTTP(&cutting{rw, len(data) / 4}, r)
		return true
	}
	w.intercept.Store(&half)
	w.write(w.entry(id, "a", lazyMode))
	d := w.daemon(func(c *agent.Config) { c.RetryBudget = 300 * time.Millisecond })
	w.eventually("the first pass to fail", func() bool {
		it := w.item(d.status(), "a")
		return it.State == agent.StateFailed && it.Error != "" && it.Hint != ""
	})
	w.intercept.Store(nil)
	it := w.item(d.settles(states{"a": "ready"}), "a")
	w.eventually("the index to be complete", func() bool {
		it = w.item(d.status(), "a")
		return it.Lazy != nil && it.Lazy.Complete
	})
	if w.read("a/big/7") != string(content(7)) || !it.Lazy.Writable {
		t.Errorf("item is %+v (%+v)", it, it.Lazy)
	}
}

// cutting passes on so many bytes of a body, and then cuts the connection.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(p)
}

// TestLazyRestarts: a daemon that is stopped and started under readers leaves
// neither dead nor stacked mounts.
func TestLazyRestarts(t *testing.T) {
	w := needFUSE(t)
	data, content := bigTree(2)
	w.write(w.entry(w.upload("a.tgz", data), "a", lazyMode))
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	good := filepath.Join(w.dir, "good")
	if err := os.WriteFile(good, content(1), 0o600); err != nil {
		t.Fatal(err)
	}
	// Processes of their own: this one serves the mount. cmp ends with 1 where
	// bytes differ, and with 2 where it cannot read.
	var readers []*exec.Cmd
	for range 2 {
		c := exec.Command("sh", "-c", `while [ ! -e "$3" ]; do cmp -s "$1" "$2"; [ $? != 1 ] || exit 1; done`,
			"sh", good, w.path("a/big/1"), filepath.Join(w.dir, "stop"))
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		readers = append(readers, c)
	}
	for range rounds {
		d := w.daemon()
		d.settles(states{"a": "ready"})
		if n := len(w.mounts()); n != 1 {
			t.Errorf("%d mounts: %+v", n, w.mounts())
		}
		d.stop()
		if left := w.mounts(); len(left) != 0 {
			t.Errorf("the daemon left %+v", left)
		}
	}
	if err := os.WriteFile(filepath.Join(w.dir, "stop"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range readers {
		if err := c.Wait(); err != nil {
			t.Errorf("wrong bytes: %v", err)
		}
	}
}
