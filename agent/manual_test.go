package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"objectmount/agent"
	"objectmount/extract"
	"objectmount/objects"
)

func (w *world) mount(m agent.Mount, name string) agent.ItemStatus {
	w.Helper()
	m.ObjectPath = w.path(name)
	if strings.HasSuffix(name, "/") {
		m.ObjectPath += "/"
	}
	it, err := w.agent().Mount(w.Context(), m)
	if err != nil {
		w.Fatal(err)
	}
	if it.State != agent.StateReady || it.Origin != agent.OriginManual {
		w.Errorf("item is %+v", it)
	}
	return it
}

func TestManualObject(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1"))
	w.mount(agent.Mount{ObjectID: id}, "a")
	w.edit("a/f", "edited")
	before := w.requests()
	w.mount(agent.Mount{ObjectID: id}, "a")
	if n := w.requests() - before; n != 0 || w.read("a/f") != "edited" {
		t.Errorf("%d requests for the same mount, file holds %q", n, w.read("a/f"))
	}
}

func TestManualURL(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1"))
	url := func(id string) objects.Secret {
		u, err := w.client.DownloadURL(t.Context(), id, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return u.URL
	}
	it := w.mount(agent.Mount{DownloadURL: url(id)}, "a")
	if !strings.HasPrefix(it.Source, w.url+"/") || leaks(fmt.Sprint(it)) {
		t.Errorf("item is %+v", it)
	}
	w.edit("a/f", "edited")
	time.Sleep(1100 * time.Millisecond) // signed for another second, so another URL
	w.mount(agent.Mount{DownloadURL: url(id)}, "a")
	if w.read("a/f") != "edited" {
		t.Error("another URL of the same object replaced an edited tree")
	}
	// A URL that is refused, of another object.
	_, err := w.agent().Mount(t.Context(), agent.Mount{ObjectPath: w.path("b"), DownloadURL: url(id) + "x"})
	if !errors.Is(err, objects.ErrExpired) || leaks(err.Error()) || agent.ErrorHint(err) == "" {
		t.Errorf("got %v", err)
	}
	w.gone("b")
}

func TestManualLocalFile(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "local.tgz")
	put := func(content string, at time.Time) {
		if err := os.WriteFile(file, tree("f", content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	put("1", time.Unix(1e9, 0))
	it := w.mount(agent.Mount{LocalFile: file}, "a")
	if it.Source != file || it.Bytes == 0 {
		t.Errorf("item is %+v", it)
	}
	put("2", time.Unix(1e9+1, 0)) // a newer file is another object
	w.mount(agent.Mount{LocalFile: file}, "a")
	if got := w.read("a/f"); got != "2" {
		t.Errorf("the file holds %q", got)
	}
	if n := w.requests(); n != 0 {
		t.Errorf("%d requests for a local file", n)
	}
	m := agent.Mount{LocalFile: file, ObjectPath: w.path("b"), SHA256: strings.Repeat("0", 64)}
	if _, err := w.agent().Mount(t.Context(), m); !errors.Is(err, objects.ErrChecksum) {
		t.Errorf("a wrong SHA-256 gives %v", err)
	}
	for name, want := range map[string]error{"none": fs.ErrNotExist, ".": nil} {
		m := agent.Mount{LocalFile: filepath.Join(w.dir, name), ObjectPath: w.path("b")}
		if _, err := w.agent().Mount(t.Context(), m); err == nil || (want != nil && !errors.Is(err, want)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.gone("b")
}

func TestManualRefused(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.txt", []byte("a"))
	w.edit("taken", "mine")
	w.write(w.entry(id, "spec"))
	w.once(states{"spec": "ready"})
	other := w.upload("b.txt", []byte("b"))
	for _, c := range []struct {
		m    agent.Mount
		want error
		text string
	}{
		{agent.Mount{ObjectID: id, ObjectPath: "rel"}, nil, "object_path \"rel\" is not absolute"},
		{agent.Mount{ObjectPath: w.path("x")}, nil, "object_id is missing"},
		{agent.Mount{ObjectID: id, ObjectPath: w.path("x"), Mode: "lazy", OnConflict: "merge"}, nil, "cannot be merged"},
		{agent.Mount{ObjectID: id, ObjectPath: w.path("taken")}, extract.ErrConflict, "exists and is a file"},
		{agent.Mount{ObjectID: "obj_none", ObjectPath: w.path("x")}, objects.ErrNotFound, ""},
		{agent.Mount{ObjectID: other, ObjectPath: w.path("spec")}, agent.ErrOwned, "made by the spec " + w.spec},
	} {
		it, err := w.agent().Mount(t.Context(), c.m)
		if err == nil || (c.want != nil && !errors.Is(err, c.want)) || !strings.Contains(err.Error(), c.text) || agent.ErrorHint(err) == "" {
			t.Errorf("%v: %v (hint %q)", c.m, err, agent.ErrorHint(err))
		}
		if it.State != agent.StateFailed || it.Error == "" {
			t.Errorf("item is %+v", it)
		}
	}
	w.gone("x")

	cfg := w.config()
	cfg.Client = nil
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Mount(t.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path("x")}); !errors.Is(err, agent.ErrNoKey) || !errors.Is(err, objects.ErrCredentials) {
		t.Errorf("without a key: %v", err)
	}
}

// TestProgress: what is told of a mount on its way adds up.
func TestProgress(t *testing.T) {
	w := newWorld(t)
	data := randomBytes(4 << 20)
	id := w.upload("a.bin", data)
	var mu sync.Mutex
	var told []agent.ItemStatus
	cfg := w.config()
	cfg.Progress = func(it agent.ItemStatus) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, it)
	}
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Mount(t.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path("a")}); err != nil {
		t.Fatal(err)
	}
	var went []agent.State
	var bytes int64
	for _, it := range told {
		if len(went) == 0 || went[len(went)-1] != it.State {
			went = append(went, it.State)
		}
		if it.Bytes < bytes || it.Bytes > int64(len(data)) || it.Percent > 100 || it.Percent < 0 || it.RatePerSecond < 0 {
			t.Errorf("after %d bytes: %+v", bytes, it)
		}
		bytes = it.Bytes
	}
	if !slices.Equal(went, []agent.State{agent.StateFetching, agent.StateExtracting, agent.StateReady}) || bytes != int64(len(data)) {
		t.Errorf("went %v to %d bytes", went, bytes)
	}
}

func TestUnmount(t *testing.T) {
	w := newWorld(t)
	tgz, txt := w.upload("a.tgz", tree("f", "1", "d/g", "2")), w.upload("a.txt", []byte("a"))
	unmount := func(name string, how agent.UnmountMode) error {
		return w.agent().Unmount(t.Context(), w.path(name), how)
	}
	for name, c := range map[string]struct {
		id, path string
		edit     func()
		how      agent.UnmountMode
		kept     bool // the error says so
		there    bool // afterwards
	}{
		"untouched tree":        {tgz, "p", nil, agent.UnmountUnmodified, false, false},
		"untouched file":        {txt, "p", nil, agent.UnmountUnmodified, false, false},
		"file in a directory":   {txt, "dir/", nil, agent.UnmountUnmodified, false, false},
		"edited file":           {txt, "p", func() { w.edit("p", "2") }, agent.UnmountUnmodified, true, true},
		"edited in the tree":    {tgz, "p", func() { w.edit("p/d/g", "3") }, agent.UnmountUnmodified, true, true},
		"added to the tree":     {tgz, "p", func() { w.edit("p/d/new", "") }, agent.UnmountUnmodified, true, true},
		"removed from the tree": {tgz, "p", func() { os.Remove(w.path("p/f")) }, agent.UnmountUnmodified, true, true},
		"mode changed":          {tgz, "p", func() { os.Chmod(w.path("p/f"), 0o600) }, agent.UnmountUnmodified, true, true},
		"edited, delete":        {tgz, "p", func() { w.edit("p/f", "2") }, agent.UnmountDelete, false, false},
		"edited, keep":          {tgz, "p", func() { w.edit("p/f", "2") }, agent.UnmountKeep, false, true},
		"untouched, keep":       {tgz, "p", nil, agent.UnmountKeep, false, true},
		"gone already":          {tgz, "p", func() { os.RemoveAll(w.path("p")) }, agent.UnmountUnmodified, false, false},
		"another thing there": {tgz, "p", func() { os.RemoveAll(w.path("p")); w.edit("p", "mine") },
			agent.UnmountDelete, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w.mount(agent.Mount{ObjectID: c.id}, c.path)
			if c.edit != nil {
				c.edit()
			}
			err := unmount(strings.TrimSuffix(c.path, "/"), c.how)
			var kept *agent.KeptError
			if c.kept != errors.As(err, &kept) || (err != nil) != c.kept {
				t.Errorf("got %v", err)
			}
			if c.kept {
				if hint := agent.ErrorHint(err); !strings.Contains(hint, "--keep") || !strings.Contains(hint, "--delete") {
					t.Errorf("hint %q", hint)
				}
				if err := unmount(c.path, agent.UnmountKeep); err != nil {
					t.Error(err)
				}
			}
			there := w.exists(c.path)
			if c.path == "dir/" {
				there = w.exists("dir/a.txt")
			}
			if there != c.there {
				t.Errorf("there afterwards: %v", there)
			}
			if err := unmount(c.path, c.how); !errors.Is(err, agent.ErrNotMounted) {
				t.Errorf("the second time: %v", err)
			}
			os.RemoveAll(w.path("p"))
		})
	}
}

func TestUnmountMerged(t *testing.T) {
	w := newWorld(t)
	if err := os.Mkdir(w.path("p"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.edit("p/mine", "mine")
	w.mount(agent.Mount{ObjectID: w.upload("a.tgz", tree("f", "1")), OnConflict: "merge"}, "p")
	if got := w.read("p/f") + w.read("p/mine"); got != "1mine" {
		t.Fatalf("files hold %q", got)
	}
	var kept *agent.KeptError
	for _, how := range []agent.UnmountMode{agent.UnmountUnmodified, agent.UnmountDelete} {
		if err := w.agent().Unmount(t.Context(), w.path("p"), how); !errors.As(err, &kept) || !strings.Contains(err.Error(), "merged") {
			t.Errorf("got %v", err)
		}
	}
	if err := w.agent().Unmount(t.Context(), w.path("p"), agent.UnmountKeep); err != nil || w.read("p/mine") != "mine" {
		t.Errorf("got %v", err)
	}
}

// TestUnmountNested: an outer mount stays as long as there is an inner one,
// and Paths gives the order in which they can go.
func TestUnmountNested(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1", "d/g", "2"))
	for _, name := range []string{"a", "a/d/in", "a/d/in/d/deep", "b"} {
		w.mount(agent.Mount{ObjectID: id}, name)
	}
	var kept *agent.KeptError
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountDelete); !errors.As(err, &kept) {
		t.Errorf("got %v", err)
	}
	paths, err := w.agent().Paths()
	if err != nil || !slices.Equal(paths, []string{w.path("b"), w.path("a/d/in/d/deep"), w.path("a/d/in"), w.path("a")}) {
		t.Errorf("%v %v", paths, err)
	}
	for _, p := range paths {
		if err := w.agent().Unmount(t.Context(), p, agent.UnmountUnmodified); err != nil {
			t.Error(err)
		}
	}
	w.gone("a", "b")
}

// TestOwner: by default that of the parent, as the user of a home expects.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	w := newWorld(t)
	home := w.path("home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, 1234, 4321); err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077) // as the unit has it
	defer syscall.Umask(old)
	id := w.upload("a.tgz", tree("f", "1"))
	w.mount(agent.Mount{ObjectID: id}, "home/x/y/data")
	w.mount(agent.Mount{ObjectID: id, Owner: "root"}, "home/root")
	w.mount(agent.Mount{ObjectID: id, Owner: "77:88"}, "home/numbers")
	w.mount(agent.Mount{ObjectID: id, Owner: "nobody"}, "home/nobody")
	for name, want := range map[string]string{
		"home/x": "1234:4321 drwxr-xr-x", "home/x/y": "1234:4321 drwxr-xr-x", "home/x/y/data": "1234:4321 drwxr-xr-x", "home/x/y/data/f": "1234:4321 -rw-r--r--",
		"home/root/f": "0:0 -rw-r--r--", "home/numbers/f": "77:88 -rw-r--r--", "home/nobody/f": "65534:65534 -rw-r--r--",
	} {
		fi, err := os.Stat(w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		st := fi.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%d:%d %v", st.Uid, st.Gid, fi.Mode()); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// TestUnmountedByHand: the daemon does not call ready what somebody took down.
func TestUnmountedByHand(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry(w.upload("a.txt", []byte("a")), "a"))
	d := w.daemon()
	d.settles(states{"a": "ready"})
	if err := w.agent().Unmount(t.Context(), w.path("a"), agent.UnmountUnmodified); err != nil {
		t.Fatal(err)
	}
	st := d.settles(states{"a": "pending"})
	if st.Ready || !strings.Contains(w.item(st, "a").Phase, "unmounted by hand") {
		t.Errorf("status is %+v", st)
	}
	d.Reload()
	d.settles(states{"a": "ready"})
}
