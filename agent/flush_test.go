package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/agent"
	"objectmount/objects"
)

// needDisk skips a test where there is nothing to flush.
func needDisk(w *world) {
	w.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(w.dir, &st); err != nil {
		w.Fatal(err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		w.Skip("the temporary directory is in memory: set TMPDIR to a disk")
	}
}

// byHand makes a mount by hand, and leaves the flush to others.
func (w *world) byHand(id, name string) agent.ItemStatus {
	w.Helper()
	it, err := w.agent().Mount(w.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path(name)})
	if err != nil {
		w.Fatal(err)
	}
	return it
}

// newBoot makes all receipts those of another run of the kernel. What was not
// synced may be gone after that: keepFresh says whether it is not.
func (w *world) newBoot(keepFresh bool) {
	w.Helper()
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		w.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "state", "mounts", "*"))
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err == nil && strings.HasSuffix(name, ".fresh") && !keepFresh {
			err = os.Truncate(name, 0) // as file systems leave it that allocate late
		} else if err == nil {
			err = os.WriteFile(name, []byte(strings.ReplaceAll(string(text), strings.TrimSpace(string(b)), "another")), 0o600)
		}
		if err != nil {
			w.Fatal(err)
		}
	}
}

// unflushed lists the mounts that a status says are not on disk.
func (w *world) unflushed() (names []string) {
	for _, it := range w.agent().Status().Items {
		if it.Unflushed {
			rel, _ := filepath.Rel(w.mnt, it.Path)
			names = append(names, rel)
		}
	}
	return names
}

// TestReadyBeforeFlush: a mount is ready, and is not yet told to be on disk.
// In the same run of the kernel whoever comes next believes it and flushes.
func TestReadyBeforeFlush(t *testing.T) {
	for name, next := range map[string]func(w *world){
		"flush":  func(w *world) { w.agent().Flush(t.Context()) },
		"once":   func(w *world) { w.once(states{"p": "ready", "f": "ready"}) },
		"daemon": func(w *world) { w.daemon().stop() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			needDisk(w)
			tgz, txt := w.upload("a.tgz", tree("f", "1", "g", "2")), w.upload("a.txt", []byte("text"))
			if it := w.byHand(tgz, "p"); !it.Unflushed || it.State != agent.StateReady {
				t.Errorf("item is %+v", it)
			}
			w.byHand(txt, "f")
			if got := w.unflushed(); len(got) != 2 {
				t.Errorf("not on disk: %q", got)
			}
			w.write(w.entry(tgz, "p"), w.entry(txt, "f"))
			w.edit("p/f", "edited")
			before := w.requests()
			next(w)
			if n := w.requests() - before; n != 0 {
				t.Errorf("%d requests for what is there", n)
			}
			if got := w.unflushed(); len(got) != 0 {
				t.Errorf("still not on disk: %q", got)
			}
			if got := w.read("p/f") + w.read("f"); got != "editedtext" {
				t.Errorf("files hold %q", got)
			}
			// From now on another boot changes nothing.
			w.newBoot(true)
			before = w.requests()
			w.once(states{"p": "ready", "f": "ready"})
			if n := w.requests() - before; n != 0 || w.read("p/f") != "edited" {
				t.Errorf("%d requests, file holds %q", n, w.read("p/f"))
			}
		})
	}
}

// TestPowerCutBeforeFlush: what was not on disk is made again. Nothing that
// somebody edited is deleted.
func TestPowerCutBeforeFlush(t *testing.T) {
	for name, c := range map[string]struct {
		edit      func(w *world) // since it was ready
		keepFresh bool
		aside     bool
	}{
		"untouched":                   {nil, true, false},
		"untouched, no second record": {nil, false, false},
		"edited":                      {func(w *world) { w.edit("p/d/f", "mine") }, true, true},
		"edited, no second record":    {func(w *world) { w.edit("p/d/f", "mine") }, false, true},
		"added":                       {func(w *world) { w.edit("p/new", "mine") }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			needDisk(w)
			// What the power cut made of it, without a trace in its times.
			id := w.upload("a.tgz", tree("d/f", "whole", "g", "whole"))
			w.byHand(id, "p")
			if c.edit != nil {
				c.edit(w)
			}
			w.newBoot(c.keepFresh)
			w.write(w.entry(id, "p"))
			before := w.contents.Load()
			w.once(states{"p": "ready"})
			if w.contents.Load() == before {
				t.Error("it was not fetched again")
			}
			if got := w.read("p/d/f") + w.read("p/g"); got != "wholewhole" {
				t.Errorf("files hold %q", got)
			}
			aside, _ := filepath.Glob(w.path("p.distrusted-*"))
			if (len(aside) == 1) != c.aside || len(aside) > 1 {
				t.Fatalf("moved aside: %q", aside)
			}
			if c.aside {
				a, _ := os.ReadFile(aside[0] + "/d/f")
				b, _ := os.ReadFile(aside[0] + "/new")
				if got := string(a) + string(b); got != "mine" && got != "wholemine" {
					t.Errorf("what was moved aside holds %q", got)
				}
			}
			if got := w.unflushed(); len(got) != 0 {
				t.Errorf("not on disk: %q", got)
			}
		})
	}
}

// TestPowerCutForgotten: it is taken away although nobody asks for it any
// more, and an empty directory that it filled is there again as it was.
func TestPowerCutForgotten(t *testing.T) {
	w := newWorld(t)
	needDisk(w)
	if err := os.Mkdir(w.path("p"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.path("p"), 0o2751); err != nil {
		t.Fatal(err)
	}
	like, _ := os.Stat(w.path("p"))
	id := w.upload("a.tgz", tree("f", "1"))
	w.byHand(id, "p")
	w.byHand(id, "p/in") // inside of it, and no edit
	w.newBoot(true)
	w.writeText("[]")
	w.once(states{})
	if left, _ := os.ReadDir(w.mnt); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	now, err := os.Stat(w.path("p"))
	if err != nil || now.Mode() != like.Mode() {
		t.Errorf("%v %v, was %v", now.Mode(), err, like.Mode())
	}
	if inside, _ := os.ReadDir(w.path("p")); len(inside) != 0 {
		t.Errorf("left: %v", inside)
	}
}

// TestReplaceUnflushed: what is not on disk yet can be replaced and taken down
// like all else, and what replaces it is on disk when it is ready.
func TestReplaceUnflushed(t *testing.T) {
	w := newWorld(t)
	needDisk(w)
	w.byHand(w.upload("a.tgz", tree("f", "1")), "p")
	if it := w.byHand(w.upload("b.tgz", tree("f", "2")), "p"); it.Unflushed || w.read("p/f") != "2" {
		t.Errorf("%q, item is %+v", w.read("p/f"), it)
	}
	w.byHand(w.upload("c.tgz", tree("f", "3")), "q")
	if err := w.agent().Unmount(t.Context(), w.path("q"), agent.UnmountUnmodified); err != nil {
		t.Error(err)
	}
	w.gone("q")
	if err := w.agent().Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(w.dir, "state", "mounts", "*.fresh")); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}

// otherName makes the client know its server by another name.
func (w *world) otherName() {
	w.Helper()
	w.client.Close()
	var err error
	w.client, err = objects.New(objects.Options{BaseURL: strings.Replace(w.url, "127.0.0.1", "localhost", 1), Key: "ak_" + canary})
	if err != nil {
		w.Fatal(err)
	}
}

// TestAnotherStore: an id of another server is another object.
func TestAnotherStore(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1"))
	w.write(w.entry(id, "p"))
	w.once(states{"p": "ready"})
	before := w.contents.Load()

	// Without a key nobody knows better, and what is there is enough.
	cfg := w.config()
	cfg.Client = nil
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	st, err := a.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.states(st, states{"p": "ready"})
	w.once(states{"p": "ready"})
	if n := w.contents.Load() - before; n != 0 {
		t.Errorf("%d downloads of what is there", n)
	}

	// The same server under another name is another one, as far as is known.
	w.otherName()
	w.once(states{"p": "ready"})
	if w.contents.Load() == before {
		t.Error("an id of another server was taken for the same object")
	}
}
