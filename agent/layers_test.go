package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"objectmount/agent"
)

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
