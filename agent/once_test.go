package agent_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/agent"
	at "objectmount/internal/archivetest"
)

type states = map[string]agent.State

// tree is an archive with one file per pair.
func tree(pairs ...string) []byte {
	var parts [][]byte
	for i := 0; i < len(pairs); i += 2 {
		parts = append(parts, at.File(pairs[i], pairs[i+1]))
	}
	return at.Gzip(at.Tar(parts...))
}

func TestOnceEveryFormat(t *testing.T) {
	w := newWorld(t)
	tar := at.Tar(at.Dir("d/"), at.Entry{Name: "d/run", Mode: 0o755, Body: "#!"}.Bytes(), at.Symlink("d/link", "run"),
		at.HardLink("d/hard", "d/run"), at.File("./top", "top"))
	w.write(
		w.entry(w.upload("a.tar", tar), "tar"),
		w.entry(w.upload("a.tgz", at.Gzip(tar)), "tgz"),
		w.entry(w.upload("noext", at.Gzip(tar)), "deep/er/noext"),
		w.entry(w.upload("hello.txt.gz", at.Gzip([]byte("hello"))), "hello.txt"),
		w.entry(w.upload("plain.txt", []byte("plain")), "plain.txt"),
		w.entry(w.upload("empty.txt", nil), "empty.txt"),
		w.entry(w.upload("into.txt.gz", at.Gzip([]byte("into"))), "dir/"),
		`{"type": "code_mount", "repo_name": "left to others"}`,
	)
	st := w.once(states{"tar": "ready", "tgz": "ready", "deep/er/noext": "ready", "hello.txt": "ready", "plain.txt": "ready", "empty.txt": "ready", "dir": "ready"})
	if !st.Ready || st.SpecError != nil {
		t.Errorf("status is %+v", st)
	}
	for _, dir := range []string{"tar", "tgz", "deep/er/noext"} {
		if got := w.read(dir+"/d/hard") + w.read(dir+"/d/link") + w.read(dir+"/top"); got != "#!#!top" {
			t.Errorf("%s has %q", dir, got)
		}
		if fi, err := os.Stat(w.path(dir + "/d/run")); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%s/d/run: %v %v", dir, fi.Mode(), err)
		}
	}
	if got := w.read("hello.txt") + w.read("plain.txt") + w.read("empty.txt") + w.read("dir/into.txt"); got != "helloplaininto" {
		t.Errorf("files hold %q", got)
	}
	it := w.item(st, "tgz")
	if it.Bytes != it.TotalBytes || it.Bytes == 0 || it.Percent != 100 || it.Entries != 5 || it.Written == 0 || it.Origin != agent.OriginSpec ||
		it.Source != fmt.Sprintf("%s:3:1", w.spec) || it.Error != "" || it.NextTry != nil || !it.Required || it.Since.IsZero() {
		t.Errorf("item is %+v", it)
	}
	if !strings.Contains(w.logs.String(), `mount of type \"code_mount\" left to others`) {
		t.Error("the mount of another type is not mentioned")
	}
}

// TestReboot: the second run asks nobody for anything, and what was edited stays.
func TestReboot(t *testing.T) {
	w := newWorld(t)
	w.write(
		w.entry(w.upload("a.tgz", tree("f", "1", "g", "2")), "a"),
		w.entry(w.upload("b.txt", []byte("b")), "b"),
		w.entry(w.upload("c.txt", []byte("c")), "in/"),
	)
	all := states{"a": "ready", "b": "ready", "in": "ready"}
	w.once(all)
	w.edit("a/f", "edited")
	w.edit("a/new", "new")
	w.edit("b", "edited")
	before := w.requests()
	st := w.once(all)
	if n := w.requests() - before; n != 0 {
		t.Errorf("the second run sent %d requests", n)
	}
	if got := w.read("a/f") + w.read("a/new") + w.read("b") + w.read("in/c.txt"); got != "editedneweditedc" {
		t.Errorf("after the second run the files hold %q", got)
	}
	if it := w.item(st, "a"); it.Bytes == 0 || it.Percent != 100 || it.Entries != 2 {
		t.Errorf("item is %+v", it)
	}
}

// TestTreeGone: a receipt does not stand in for files.
func TestTreeGone(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry(w.upload("a.tgz", tree("f", "1")), "a"), w.entry(w.upload("b.tgz", tree("f", "1")), "b"), w.entry(w.upload("c.tgz", tree("f", "1")), "c"))
	w.once(states{"a": "ready", "b": "ready", "c": "ready"})
	// a is gone, b was emptied, and somebody put another file where c was.
	for _, name := range []string{"a", "b/f", "c"} {
		if err := os.RemoveAll(w.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	w.edit("c", "mine")
	st := w.once(states{"a": "ready", "b": "ready", "c": "failed"})
	if got := w.read("a/f") + w.read("b/f") + w.read("c"); got != "11mine" {
		t.Errorf("the files hold %q", got)
	}
	if it := w.item(st, "c"); !strings.Contains(it.Error, "path is in the way") || it.Hint == "" {
		t.Errorf("item is %+v", it)
	}
}

// TestOneFails: each in its own way, and none disturbs the good ones.
func TestOneFails(t *testing.T) {
	w := newWorld(t)
	good := tree("f", "good")
	bad := tree("f", strings.Repeat("bad", 1000))
	bad[len(bad)-6] ^= 1 // the CRC
	up, err := w.client.Create(t.Context(), createRequest("half.bin"))
	if err != nil {
		t.Fatal(err)
	}
	deleted := w.upload("deleted", []byte("x"))
	if _, err := w.client.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	goodID := w.upload("good.tgz", good)
	w.edit("taken", "mine")
	w.write(
		w.entry(goodID, "good1"),
		w.entry("obj_doesnotexist", "missing"),
		w.entry(w.upload("bad.tgz", bad), "deep/corrupt"),
		w.entry(w.upload("cut.tgz", good[:len(good)-9]), "cut"),
		w.entry(up.ID, "unfinished"),
		w.entry(deleted, "deleted"),
		w.entry(w.upload("up.tgz", at.Gzip(at.Tar(at.File("../../evil", "x")))), "climber"),
		w.entry(goodID, "taken"),
		w.entry(goodID, "checked", fmt.Sprintf(`"sha256": "%x"`, sha256.Sum256([]byte("other")))),
		w.entry(goodID, "nobody", `"owner": "no-such-user"`),
		w.entry("obj_x", "refused", fmt.Sprintf(`"download_url": "%s/v1/content/obj_x?Signature=wrong"`, w.url)),
		w.entry(goodID, "good2", fmt.Sprintf(`"sha256": "%x"`, sha256.Sum256(good))),
	)
	st := w.once(states{"good1": "ready", "good2": "ready", "missing": "failed", "deep/corrupt": "failed", "cut": "failed", "unfinished": "failed",
		"deleted": "failed", "climber": "failed", "taken": "failed", "checked": "failed", "nobody": "failed", "refused": "failed"})
	if st.Ready {
		t.Error("ready, with required mounts that failed")
	}
	for name, want := range map[string]string{
		"missing": "object not found", "deep/corrupt": "archive is corrupt", "cut": "archive is corrupt", "unfinished": "not uploaded completely",
		"deleted": "object is deleted", "climber": "archive is unsafe", "taken": "path is in the way", "checked": "SHA-256 is not the expected one",
		"nobody": "unknown user no-such-user", "refused": "refused",
	} {
		it := w.item(st, name)
		if !strings.Contains(it.Error, want) && !(name == "missing" && strings.Contains(it.Error, "404")) || it.Hint == "" {
			t.Errorf("%s: error %q, hint %q; want %q", name, it.Error, it.Hint, want)
		}
		if name != "taken" {
			w.gone(name)
		}
		if leaks(it.Error + it.Hint + it.Source) {
			t.Errorf("secret in %+v", it)
		}
	}
	w.gone("deep") // not even the parent
	if got := w.read("good1/f") + w.read("good2/f") + w.read("taken"); got != "goodgoodmine" {
		t.Errorf("files hold %q", got)
	}
}

// TestExpiredURL: the server's clock jumps past the URL's end while the body
// is under way, and cuts the connection.
func TestExpiredURL(t *testing.T) {
	w := newWorld(t)
	data := make([]byte, 3<<20)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	id := w.upload("big.bin", data)
	w.write(w.entry(id, "big"))
	var downloads atomic.Int64 // requests run beside each other
	f := func(rw http.ResponseWriter, r *http.Request) bool {
		if !isDownload(r) {
			return false
		}
		if downloads.Add(1) == 2 { // the stream, after the first request for the size
			w.clock.Add(int64(2 * time.Hour))
			panic(http.ErrAbortHandler)
		}
		return false
	}
	w.intercept.Store(&f)
	w.once(states{"big": "ready"})
	if w.read("big") != string(data) {
		t.Error("the file is not the object")
	}
	if downloads.Load() < 3 || w.calls.Load() < 5 { // create, complete, get, two URLs
		t.Errorf("%d downloads, %d calls: the URL was not renewed", downloads.Load(), w.calls.Load())
	}
}

// TestNested: a mount inside of another waits for it, is no edit of it, and
// is made again when the outer one is replaced.
func TestNested(t *testing.T) {
	w := newWorld(t)
	outer1, outer2 := w.upload("o.tgz", tree("f", "outer1", "sub/x", "x")), w.upload("o.tgz", tree("f", "outer2"))
	inner := w.entry(w.upload("i.tgz", tree("f", "inner")), "out/sub/in")
	all := states{"out": "ready", "out/sub/in": "ready"}
	w.write(inner, w.entry(outer1, "out"))
	w.once(all)
	if got := w.read("out/f") + w.read("out/sub/in/f"); got != "outer1inner" {
		t.Fatalf("files hold %q", got)
	}
	w.write(inner, w.entry(outer2, "out"))
	w.once(all)
	if got := w.read("out/f") + w.read("out/sub/in/f"); got != "outer2inner" {
		t.Errorf("after the change the files hold %q", got)
	}
	w.gone("out/sub/x")

	// An edit in the inner one keeps the outer one from being replaced.
	w.edit("out/sub/in/f", "edited")
	w.write(inner, w.entry(outer1, "out"))
	st := w.once(states{"out": "failed", "out/sub/in": "ready"}) // the inner one is there, whatever becomes of the outer
	if !strings.Contains(w.item(st, "out").Error, "were edited") {
		t.Errorf("items are %+v", st.Items)
	}
	if got := w.read("out/f") + w.read("out/sub/in/f"); got != "outer2edited" {
		t.Errorf("files hold %q", got)
	}
}

// TestOuterFails: what lies inside cannot be made, and says so.
func TestOuterFails(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry("obj_missing", "out"), w.entry(w.upload("i", []byte("i")), "out/in"))
	st := w.once(states{"out": "failed", "out/in": "failed"})
	if it := w.item(st, "out/in"); !strings.HasSuffix(it.Error, "is not there: "+w.path("out")) || it.Hint == "" {
		t.Errorf("item is %+v", it)
	}
	w.gone("out")
}

// TestChange: another object at the same path takes the place of the old one
// if nothing in it was edited.
func TestChange(t *testing.T) {
	tgz := func(s string) (string, []byte) { return "a.tgz", tree("f", s) }
	file := func(s string) (string, []byte) { return "a.txt", []byte(s) }
	large := func(s string) (string, []byte) { return "a.bin", []byte(s + strings.Repeat("\x00", 1<<20)) }
	for name, c := range map[string]struct {
		from, to func(string) (string, []byte)
		slash    string
		old, new string // where the content is
		more     string
	}{
		"tree to tree":              {tgz, tgz, "", "p/f", "p/f", ""},
		"file to file":              {file, file, "", "p", "p", ""},
		"file to tree":              {file, tgz, "", "p", "p/f", ""},
		"tree to file":              {tgz, file, "", "p/f", "p", ""},
		"tree to large file":        {tgz, large, "", "p/f", "p", ""},
		"file in dir to another":    {file, func(s string) (string, []byte) { return "b.txt", []byte(s) }, "/", "p/a.txt", "p/b.txt", ""},
		"file in dir to its like":   {file, file, "/", "p/a.txt", "p/a.txt", ""},
		"file in dir to tree":       {file, tgz, "/", "p/a.txt", "p/f", ""},
		"tree to tree with replace": {tgz, tgz, "", "p/f", "p/f", `"on_conflict": "replace"`},
	} {
		for _, edited := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, edited %v", name, edited), func(t *testing.T) {
				w := newWorld(t)
				more := []string{}
				if c.more != "" {
					more = append(more, c.more)
				}
				w.write(w.entry(w.upload(c.from("old")), "p"+c.slash, more...))
				w.once(states{"p": "ready"})
				want, state := "new", agent.StateReady
				if edited {
					w.edit(c.old, "edited")
					if c.more == "" {
						want, state = "edited", agent.StateFailed
					}
				}
				w.write(w.entry(w.upload(c.to("new")), "p"+c.slash, more...))
				st := w.once(states{"p": state})
				where := c.new
				if state == agent.StateFailed {
					where = c.old
					if it := w.item(st, "p"); !strings.Contains(it.Error, "were edited") || !strings.Contains(it.Hint, "replace") {
						t.Errorf("item is %+v", it)
					}
				} else if c.old != c.new && c.old != "p" {
					w.gone(c.old)
				}
				if got := strings.TrimRight(w.read(where), "\x00"); got != want {
					t.Errorf("%s holds %q, want %q", where, got, want)
				}
				// And the receipt is right about it.
				before := w.requests()
				w.once(states{"p": state})
				if n := w.requests() - before; n != 0 && state == agent.StateReady {
					t.Errorf("%d requests the next time", n)
				}
			})
		}
	}
}

// TestChangeMerged: with on_conflict "merge", what is ours is replaced as long
// as it is ours alone, and merged with once it is not.
func TestChangeMerged(t *testing.T) {
	w := newWorld(t)
	merge := `"on_conflict": "merge"`
	w.write(w.entry(w.upload("1.tgz", tree("a", "1", "b", "1")), "p", merge))
	w.once(states{"p": "ready"})
	w.write(w.entry(w.upload("2.tgz", tree("a", "2")), "p", merge))
	w.once(states{"p": "ready"})
	w.gone("p/b")
	w.edit("p/mine", "mine")
	for _, v := range []string{"3", "4"} {
		w.write(w.entry(w.upload("3.tgz", tree("a", v, "c"+v, v)), "p", merge))
		w.once(states{"p": "ready"})
		if got := w.read("p/a") + w.read("p/mine") + w.read("p/c3"); got != v+"mine3" {
			t.Errorf("files hold %q", got)
		}
	}
}

// TestEditDuringChange: an edit made while the new object is on its way counts.
func TestEditDuringChange(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry(w.upload("a.tgz", tree("f", "old")), "p"))
	w.once(states{"p": "ready"})
	w.write(w.entry(w.upload("b.tgz", tree("f", "new")), "p"))
	edit := sync.OnceValue(func() error { return os.WriteFile(w.path("p/f"), []byte("edited meanwhile"), 0o644) })
	f := func(rw http.ResponseWriter, r *http.Request) bool { // requests run beside each other
		if isDownload(r) {
			if err := edit(); err != nil {
				t.Error(err)
			}
		}
		return false
	}
	w.intercept.Store(&f)
	w.once(states{"p": "failed"})
	if got := w.read("p/f"); got != "edited meanwhile" {
		t.Errorf("the file holds %q", got)
	}
}

// TestKeepAcrossSpecs: what does not concern the files changes nothing.
func TestKeepAcrossSpecs(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1"))
	w.write(w.entry(id, "p"))
	w.once(states{"p": "ready"})
	w.edit("p/f", "edited")
	w.write(w.entry(id, "x/../p", `"required": false`, `"on_conflict": "merge"`, `"mode": "extract"`))
	before := w.requests()
	st := w.once(states{"p": "ready"})
	if n := w.requests() - before; n != 0 || w.read("p/f") != "edited" || w.item(st, "p").Required {
		t.Errorf("%d requests, file %q, %+v", n, w.read("p/f"), w.item(st, "p"))
	}
}

func TestOnceAddsOnly(t *testing.T) {
	w := newWorld(t)
	a, b := w.entry(w.upload("a", []byte("a")), "a"), w.entry(w.upload("b", []byte("b")), "b")
	w.write(a, b)
	w.once(states{"a": "ready", "b": "ready"})
	w.write(b)
	w.once(states{"a": "ready", "b": "ready"}) // a is still told of: it is there
	if w.read("a") != "a" {
		t.Error("Once took a mount down")
	}
	w.writeText("{")
	if _, err := w.agent().Once(t.Context()); err == nil || !strings.HasPrefix(err.Error(), w.spec+":1:2: ") {
		t.Errorf("a wrong spec gives %v", err)
	}
	os.Remove(w.spec)
	if _, err := w.agent().Once(t.Context()); err == nil || !strings.Contains(err.Error(), "there is no spec") {
		t.Errorf("a missing spec gives %v", err)
	}
}

// TestParallel: several agents at once do the work once, and all succeed.
func TestParallel(t *testing.T) {
	w := newWorld(t)
	var entries []string
	all := states{}
	for i := range 12 {
		name := fmt.Sprintf("m%d", i)
		entries = append(entries, w.entry(w.upload("a.tgz", tree("f", name)), name))
		all[name] = "ready"
	}
	w.write(entries...)
	before := w.contents.Load()
	errs := make(chan error, 3)
	for range cap(errs) {
		a := w.agent()
		go func() {
			st, err := a.Once(t.Context())
			if err == nil && !st.Ready {
				err = fmt.Errorf("not ready: %+v", st)
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := w.contents.Load() - before; n > 2*12 {
		t.Errorf("%d downloads of 12 objects", n)
	}
	w.once(all)
}

// TestFourAtATime: by default four objects are fetched at once, and no more.
func TestFourAtATime(t *testing.T) {
	w := newWorld(t)
	var entries []string
	all := states{}
	for i := range 8 {
		name := fmt.Sprintf("m%d", i)
		entries = append(entries, w.entry(w.upload("a.txt", []byte(name)), name))
		all[name] = "ready"
	}
	w.write(entries...)
	var now, most atomic.Int32
	var once sync.Once
	four := make(chan struct{})
	f := func(_ http.ResponseWriter, r *http.Request) bool {
		if !isDownload(r) {
			return false
		}
		n := now.Add(1)
		defer now.Add(-1)
		if n > most.Load() {
			most.Store(n)
		}
		if n == 4 {
			once.Do(func() { close(four) })
		}
		select {
		case <-four:
		case <-r.Context().Done():
		}
		return false
	}
	w.intercept.Store(&f)
	w.once(all)
	if got := most.Load(); got != 4 {
		t.Errorf("%d at once", got)
	}
}

// TestOwnDirectories: a mount must not swallow the agent's own state.
func TestOwnDirectories(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", "1"))
	w.writeText(fmt.Sprintf(`[{"type": "object_mount", "object_id": %q, "object_path": %q, "on_conflict": "replace"},
 {"type": "object_mount", "object_id": %q, "object_path": %q}]`, id, w.dir, id, filepath.Join(w.dir, "state/mounts/x")))
	st, err := w.agent().Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range st.Items {
		if it.State != agent.StateFailed {
			t.Errorf("item is %+v", it)
		}
	}
}
