package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/agent"
)

// onTmpfs mounts a tmpfs at a path among the mounts, with a file in it.
func (w *world) onTmpfs(name string) {
	w.Helper()
	if os.Geteuid() != 0 {
		w.Skip("needs root")
	}
	if err := os.MkdirAll(w.path(name), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := unix.Mount("tmpfs", w.path(name), "tmpfs", 0, ""); err != nil {
		w.Skipf("tmpfs: %v", err)
	}
	w.Cleanup(func() {
		for unix.Unmount(w.path(name), unix.MNT_DETACH) == nil {
		}
	})
	w.edit(name+"/old", "old")
}

// TestBound: the whole life of a mount that can only be bound to its path.
func TestBound(t *testing.T) {
	w := newWorld(t)
	w.onTmpfs("p")
	replace := `"on_conflict": "replace"`
	one, two := w.upload("1.tgz", tree("f", "1")), w.upload("2.tgz", tree("f", "2"))
	w.write(w.entry(one, "p"))
	w.once(states{"p": "failed"})
	w.write(w.entry(one, "p", replace))
	if it := w.item(w.once(states{"p": "ready"}), "p"); !it.Bound || w.read("p/f") != "1" {
		t.Errorf("%q, item is %+v", w.read("p/f"), it)
	}
	w.edit("p/mine", "mine")

	// A reboot: it is bound again, with its edits, and nothing is fetched.
	reboot := func() {
		t.Helper()
		if err := unix.Unmount(w.path("p"), 0); err != nil {
			t.Fatal(err)
		}
		if w.read("p/old") != "old" || w.exists("p/f") {
			t.Error("it was not a bind mount")
		}
		w.newBoot(true)
	}
	reboot()
	before := w.requests()
	d := w.daemon()
	it := w.item(d.settles(states{"p": "ready"}), "p")
	if n := w.requests() - before; n != 0 || !it.Bound || w.read("p/f")+w.read("p/mine") != "1mine" {
		t.Errorf("%d requests, item is %+v", n, it)
	}

	// Another object takes its place; it is one mount, and one tree.
	w.write(w.entry(two, "p", replace))
	w.eventually("the other object", func() bool { return w.read("p/f") == "2" })
	d.settles(states{"p": "ready"})
	trees := func(want int) {
		t.Helper()
		if kept, _ := filepath.Glob(w.path(".p.*")); len(kept) != want {
			t.Errorf("%d trees are kept: %q", len(kept), kept)
		}
	}
	trees(1)

	// It leaves the spec with edits: they are kept where they can be found.
	w.edit("p/mine", "mine")
	w.writeText("[]")
	w.eventually("the kept files", func() bool { return w.exists("p.kept/mine") })
	d.settles(states{})
	if got := w.read("p.kept/f") + w.read("p/old"); got != "2old" {
		t.Errorf("files hold %q", got)
	}
	trees(0)

	// And without edits it goes.
	w.write(w.entry(two, "p", replace))
	d.settles(states{"p": "ready"})
	d.stop()
	reboot()
	if err := w.agent().Unmount(t.Context(), w.path("p"), agent.UnmountUnmodified); err != nil {
		t.Error(err)
	}
	if w.read("p/old") != "old" {
		t.Error("what was below is not there")
	}
	trees(0)
}

// TestBoundEmptied: as with any mount, one that was emptied is made again.
func TestBoundEmptied(t *testing.T) {
	w := newWorld(t)
	w.onTmpfs("p")
	w.write(w.entry(w.upload("1.tgz", tree("f", "1")), "p", `"on_conflict": "replace"`))
	w.once(states{"p": "ready"})
	if err := os.Remove(w.path("p/f")); err != nil {
		t.Fatal(err)
	}
	w.once(states{"p": "ready"})
	if w.read("p/f") != "1" {
		t.Error("it was not made again")
	}
	if err := w.agent().Unmount(t.Context(), w.path("p"), agent.UnmountDelete); err != nil {
		t.Error(err)
	}
	if kept, _ := filepath.Glob(w.path(".p.*")); len(kept) != 0 || w.read("p/old") != "old" {
		t.Errorf("left %q", kept)
	}
}

// TestBoundKilled: killed right after it was bound, and before that was
// written down.
func TestBoundKilled(t *testing.T) {
	w := newWorld(t)
	w.onTmpfs("p")
	replace := `"on_conflict": "replace"`
	for i, v := range []string{"1", "2"} { // on the path, and in the place of the first
		w.write(w.entry(w.upload("a.tgz", tree("f", v)), "p", replace))
		if err := w.start(childJob{DieAt: w.path("p")}).Wait(); !killed(err) {
			t.Fatalf("the agent ended with %v, and was to be killed\n%s", err, w.logs)
		}
		if w.read("p/f") != v {
			t.Fatalf("%d: holds %q", i, w.read("p/f"))
		}
		before := w.requests()
		w.once(states{"p": "ready"})
		if n := w.requests() - before; n != 0 {
			t.Errorf("%d: %d requests for what is there", i, n)
		}
		if kept, _ := filepath.Glob(w.path(".p.*")); len(kept) != 1 {
			t.Errorf("%d: %q", i, kept)
		}
	}
	if err := w.agent().Unmount(t.Context(), w.path("p"), agent.UnmountUnmodified); err != nil {
		t.Error(err)
	}
	if w.read("p/old") != "old" {
		t.Error("what was below is not there")
	}
}
