package agent_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"objectmount/agent"
	"objectmount/systemd"
)

// within runs a change and wants its effect in less than the two seconds that
// are promised for an edited spec, with the real default debounce. Time in
// which this machine did not run the test at all does not count.
func (d *daemon) within(what string, change func(), ok func() bool) {
	d.w.Helper()
	const tick = 5 * time.Millisecond
	var stalled time.Duration
	start := time.Now()
	change()
	for last := time.Now(); !ok(); {
		time.Sleep(tick)
		now := time.Now()
		if late := now.Sub(last) - tick; late > 10*tick {
			stalled += late
		}
		if last = now; now.Sub(start) > 20*time.Second {
			d.w.Fatalf("waited in vain for %s\n%s", what, d.w.logs)
		}
	}
	if took := time.Since(start) - stalled; took > 2*time.Second {
		d.w.Errorf("%s took %v", what, took)
	}
}

func realDebounce(c *agent.Config) { c.Debounce = 0 }

func TestDaemonFollowsSpec(t *testing.T) {
	w := newWorld(t)
	a1 := w.entry(w.upload("a.tgz", tree("f", "a1")), "a")
	a2 := w.entry(w.upload("a.tgz", tree("f", "a2")), "a")
	b := w.entry(w.upload("b.tgz", tree("f", "b")), "b")
	c := w.entry(w.upload("c.txt", []byte("c")), "c")
	w.write(a1, c)
	d := w.daemon(realDebounce)
	d.settles(states{"a": "ready", "c": "ready"})
	w.edit("c", "edited")

	d.within("a mount to come", func() { w.write(a1, b, c) }, func() bool { return w.exists("b/f") })
	d.within("an object to change", func() { w.write(a2, b, c) }, func() bool { return w.read("a/f") == "a2" })
	d.settles(states{"a": "ready", "b": "ready", "c": "ready"})
	// The unedited b goes; the edited c stays and is forgotten.
	d.within("mounts to go", func() { w.write(a2) }, func() bool { return !w.exists("b") })
	st := d.settles(states{"a": "ready"})
	if !st.Ready || st.SpecError != nil || st.PID != os.Getpid() || st.Version != "test" || st.Started.IsZero() {
		t.Errorf("status is %+v", st)
	}
	if w.read("c") != "edited" {
		t.Error("an edited file is gone")
	}
	if !strings.Contains(w.logs.String(), `"why":"files in it were edited since it was mounted"`) {
		t.Error("the log does not say that c was kept")
	}
	d.within("everything to go", func() { w.writeText("[]") }, func() bool { return !w.exists("a") })
	if st := d.settles(states{}); !st.Ready {
		t.Errorf("status is %+v", st)
	}
}

func TestDaemonKeepsOldSpec(t *testing.T) {
	w := newWorld(t)
	a := w.entry(w.upload("a.txt", []byte("a")), "a")
	w.write(a)
	d := w.daemon(realDebounce)
	d.settles(states{"a": "ready"})

	d.within("the wrong spec to be reported", func() { w.writeText("{\"mounts\": [\n  {\"type\": \"object_mount\", \"object_idd\": 1}]}") },
		func() bool { return d.status().SpecError != nil })
	st := d.status()
	if e := st.SpecError; e.File != w.spec || e.Line != 2 || e.Column != 28 || !strings.Contains(e.Msg, "unknown key") || e.Hint != `did you mean "object_id"?` {
		t.Errorf("spec error is %+v", e)
	}
	w.states(st, states{"a": "ready"})
	if log := w.logs.String(); !strings.Contains(log, `"line":2,"column":28,"error":"unknown key \"object_idd\"`) {
		t.Errorf("the log has no line and column:\n%s", log)
	}

	// A spec that vanishes takes nothing with it.
	d.within("the missing spec to be reported", func() { os.Remove(w.spec) },
		func() bool { e := d.status().SpecError; return e != nil && e.Msg == "there is no spec" })
	w.states(d.status(), states{"a": "ready"})

	d.within("the right spec to be taken", func() { w.write(a) }, func() bool { return d.status().SpecError == nil })
	w.states(d.status(), states{"a": "ready"})
	if w.read("a") != "a" {
		t.Error("the mount was touched")
	}
}

// TestDaemonBeforeSpec: it can be started before there is a spec, or even the
// directory of one.
func TestDaemonBeforeSpec(t *testing.T) {
	w := newWorld(t)
	entry := w.entry(w.upload("a.txt", []byte("a")), "a")
	if err := os.Remove(filepath.Dir(w.spec)); err != nil {
		t.Fatal(err)
	}
	d := w.daemon(realDebounce)
	if st := d.status(); st.SpecError == nil || !st.Ready {
		t.Errorf("status is %+v", st)
	}
	d.within("the first mount", func() {
		if err := os.MkdirAll(filepath.Dir(w.spec), 0o755); err != nil {
			t.Fatal(err)
		}
		w.write(entry)
	}, func() bool { return w.exists("a") })
	d.settles(states{"a": "ready"})
}

func TestDaemonDropIns(t *testing.T) {
	w := newWorld(t)
	dropIn := filepath.Join(filepath.Dir(w.spec), "mounts.d", "10-b.json")
	w.write(w.entry(w.upload("a.txt", []byte("a")), "a"))
	b := w.entry(w.upload("b.txt", []byte("b")), "b")
	d := w.daemon(realDebounce)
	d.settles(states{"a": "ready"})
	d.within("a drop-in", func() {
		if err := os.MkdirAll(filepath.Dir(dropIn), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dropIn, []byte("["+b+"]"), 0o644); err != nil {
			t.Fatal(err)
		}
	}, func() bool { return w.exists("b") })
	d.settles(states{"a": "ready", "b": "ready"})
	d.within("a drop-in to go", func() { os.Remove(dropIn) }, func() bool { return !w.exists("b") })
	d.settles(states{"a": "ready"})
}

// TestDaemonSymlinkedSpec: as a ConfigMap is mounted, where the file is a link
// into a directory that is exchanged as a whole.
func TestDaemonSymlinkedSpec(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Dir(w.spec)
	put := func(version, text string) {
		if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "mounts.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		os.Symlink(version, filepath.Join(dir, "..new"))
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	put("v1", "["+w.entry(w.upload("a.txt", []byte("a")), "a")+"]")
	if err := os.Symlink("..data/mounts.json", w.spec); err != nil {
		t.Fatal(err)
	}
	d := w.daemon(realDebounce)
	d.settles(states{"a": "ready"})
	next := "[" + w.entry(w.upload("b.txt", []byte("b")), "b") + "]"
	d.within("the other version", func() { put("v2", next) }, func() bool { return w.exists("b") && !w.exists("a") })
	// And the file behind the link is edited in place.
	d.within("an edit behind the link", func() {
		if err := os.WriteFile(filepath.Join(dir, "v2", "mounts.json"), []byte("[]"), 0o644); err != nil {
			t.Fatal(err)
		}
	}, func() bool { return !w.exists("b") })
}

// TestDaemonMovedDirectory: the spec's whole directory is exchanged.
func TestDaemonMovedDirectory(t *testing.T) {
	w := newWorld(t)
	dir := filepath.Dir(w.spec)
	w.write(w.entry(w.upload("a.txt", []byte("a")), "a"))
	b := w.entry(w.upload("b.txt", []byte("b")), "b")
	d := w.daemon(realDebounce)
	d.settles(states{"a": "ready"})
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	d.w.eventually("the missing spec to be reported", func() bool { return d.status().SpecError != nil })
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.within("the new directory", func() { w.write(b) }, func() bool { return w.exists("b") })
	d.settles(states{"b": "ready"})
}

// TestDaemonRetries: what fails is tried again, and beside it everything goes
// its way.
func TestDaemonRetries(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.txt", []byte("a"))
	down := func(rw http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, id) {
			http.Error(rw, `{"message": "out of order"}`, http.StatusBadRequest)
			return true
		}
		return false
	}
	w.intercept.Store(&down)
	w.write(w.entry(id, "a"), w.entry(w.upload("b.txt", []byte("b")), "b"), w.entry("obj_optional", "c", `"required": false`))
	d := w.daemon()
	st := d.settles(states{"a": "failed", "b": "ready", "c": "failed"})
	it := w.item(st, "a")
	if st.Ready || !strings.Contains(it.Error, "out of order") || it.NextTry == nil {
		t.Errorf("status is %+v", st)
	}
	w.intercept.Store(nil)
	if st := d.settles(states{"a": "ready", "b": "ready", "c": "failed"}); !st.Ready {
		t.Error("a mount that is not required holds up readiness")
	}
}

// TestDaemonReload: a failure that would be tried again in hours is tried at
// once on SIGHUP and when the spec changes.
func TestDaemonReload(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.txt", []byte("a"))
	w.edit("a", "in the way")
	w.write(w.entry(id, "a"))
	d := w.daemon(func(c *agent.Config) { c.RetryMax = time.Hour })
	d.settles(states{"a": "failed"})
	if it := w.item(d.status(), "a"); it.NextTry == nil || time.Until(*it.NextTry) < 40*time.Minute {
		t.Errorf("next try at %v", it.NextTry)
	}
	os.Remove(w.path("a"))
	d.Reload()
	d.settles(states{"a": "ready"})

	os.Remove(w.path("a"))
	w.edit("b", "in the way")
	b := w.entry(id, "b")
	w.write(b)
	d.settles(states{"b": "failed"})
	os.Remove(w.path("b"))
	w.writeText("[\n\n" + b + "]") // the same mount in another spec
	d.settles(states{"b": "ready"})
}

// TestDaemonStops: work under way is given up, and leaves nothing behind.
func TestDaemonStops(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.tgz", tree("f", strings.Repeat("x", 1<<20)+fmt.Sprint(time.Now())))
	hanging := make(chan struct{}, 10)
	release := make(chan struct{})
	hang := func(rw http.ResponseWriter, r *http.Request) bool {
		if isDownload(r) {
			select {
			case hanging <- struct{}{}:
			default: // there are as many requests as the reader likes
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	}
	w.intercept.Store(&hang)
	defer close(release)
	w.write(w.entry(id, "deep/a"), w.entry(id, "b"))
	d := w.daemon()
	<-hanging
	start := time.Now()
	d.stop()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	w.gone("deep", "b")
	if _, err := agent.QueryStatus(t.Context(), filepath.Join(w.dir, "run")); !errors.Is(err, agent.ErrNotRunning) {
		t.Errorf("after the stop: %v", err)
	}
	if entries, _ := os.ReadDir(filepath.Join(w.dir, "state", "mounts")); len(entries) != 0 {
		t.Errorf("receipts left behind: %v", entries)
	}
}

// TestDaemonChangesMind: a mount that leaves the spec, or gets another object,
// while it is fetched.
func TestDaemonChangesMind(t *testing.T) {
	w := newWorld(t)
	slow := w.upload("slow.tgz", tree("f", "slow"))
	quick := w.upload("quick.tgz", tree("f", "quick"))
	hanging := make(chan struct{}, 10)
	hang := func(rw http.ResponseWriter, r *http.Request) bool {
		if isDownload(r) && strings.Contains(r.URL.Path, slow) {
			select {
			case hanging <- struct{}{}:
			default: // there are as many requests as the reader likes
			}
			<-r.Context().Done()
			return true
		}
		return false
	}
	w.intercept.Store(&hang)
	w.write(w.entry(slow, "a"), w.entry(slow, "b"))
	d := w.daemon()
	<-hanging
	<-hanging
	w.write(w.entry(quick, "a"))
	d.settles(states{"a": "ready"})
	if w.read("a/f") != "quick" {
		t.Errorf("a/f holds %q", w.read("a/f"))
	}
	w.gone("b")
}

// TestDaemonNestedGo: inner and outer mounts leave together, unedited, and the
// old nest makes room for a new one that overlaps with it.
func TestDaemonNestedGo(t *testing.T) {
	w := newWorld(t)
	id := w.upload("o.tgz", tree("f", "o", "sub/g", "g"))
	old := []string{w.entry(id, "x/out"), w.entry(id, "x/out/sub/in"), w.entry(id, "x/out/sub/in/sub/deep"), w.entry(id, "x/other")}
	w.write(old...)
	d := w.daemon()
	all := states{"x/out": "ready", "x/out/sub/in": "ready", "x/out/sub/in/sub/deep": "ready", "x/other": "ready"}
	d.settles(all)
	w.write(w.entry(id, "x"))
	d.settles(states{"x": "ready"})
	if got := w.read("x/f") + w.read("x/sub/g"); got != "og" {
		t.Errorf("files hold %q", got)
	}
	w.gone("x/out", "x/other")
	w.write(old...)
	d.settles(all)
	w.writeText("[]")
	d.settles(states{})
	w.gone("x/out", "x/other", "x/f")
}

// TestDaemonLeavesManualMounts: those of the mount command are not its own.
func TestDaemonLeavesManualMounts(t *testing.T) {
	w := newWorld(t)
	id := w.upload("a.txt", []byte("a"))
	if _, err := w.agent().Mount(t.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path("manual")}); err != nil {
		t.Fatal(err)
	}
	w.write(w.entry(id, "spec"))
	d := w.daemon()
	st := d.settles(states{"manual": "ready", "spec": "ready"})
	if w.item(st, "manual").Origin != agent.OriginManual || w.item(st, "spec").Origin != agent.OriginSpec {
		t.Errorf("items are %+v", st.Items)
	}
	w.writeText("[]")
	d.settles(states{"manual": "ready"})
	// The spec may ask for what is there already; then it is the spec's.
	w.write(w.entry(id, "manual"))
	d.w.eventually("the spec to take the mount over", func() bool { return w.item(d.status(), "manual").Origin == agent.OriginSpec })
	d.settles(states{"manual": "ready"})
	// Another object is refused: someone may be at work there.
	if _, err := w.agent().Mount(t.Context(), agent.Mount{ObjectID: id, ObjectPath: w.path("other")}); err != nil {
		t.Fatal(err)
	}
	w.write(w.entry(w.upload("b.txt", []byte("b")), "other"))
	st = d.settles(states{"other": "failed"})
	if it := w.item(st, "other"); !strings.Contains(it.Error, "path is in the way: it has another mount, of obj_") {
		t.Errorf("item is %+v", it)
	}
	if w.read("other") != "a" {
		t.Error("the manual mount was replaced")
	}
}

// TestServiceManager: what is said over a real notification socket.
func TestServiceManager(t *testing.T) {
	w := newWorld(t)
	name := filepath.Join(w.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "200000")
	said := new(buffer)
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			said.Write(append(b[:n:n], '\n'))
		}
	}()
	says := func(what string) {
		w.Helper()
		w.eventually(what, func() bool { return strings.Contains(said.String(), what) })
	}

	id := w.upload("a.txt", []byte("a"))
	w.write(w.entry(id, "a"), w.entry("obj_missing", "b"))
	d := w.daemon(func(c *agent.Config) { c.Notifier = systemd.NewNotifier() })
	says("STATUS=1 of 2 mounts ready, 1 failed\n")
	says("WATCHDOG=1\n")
	if strings.Contains(said.String(), "READY=1") {
		t.Error("ready, with a required mount that failed")
	}
	w.write(w.entry(id, "a"), w.entry("obj_missing", "b", `"required": false`))
	says("READY=1\n")
	w.writeText("{")
	says("; spec not applied: " + w.spec + ":1:2: ")
	before := len(said.String())
	d.Reload()
	w.eventually("the reload to be told", func() bool {
		now := said.String()[before:]
		return strings.Contains(now, "RELOADING=1\nMONOTONIC_USEC=") && strings.Contains(now, "READY=1\n")
	})
	d.stop()
	says("STOPPING=1\n")
	conn.Close()
	<-heard
	if leaks(said.String()) {
		t.Error("secret told to the service manager")
	}
}

// TestSecondAgent: one agent for a directory.
func TestSecondAgent(t *testing.T) {
	w := newWorld(t)
	w.writeText("[]")
	d := w.daemon()
	for _, other := range []string{"state", "run"} {
		cfg := w.config()
		if other == "state" {
			cfg.StateDir = filepath.Join(w.dir, "other-state")
		} else {
			cfg.RunDir = filepath.Join(w.dir, "other-run")
		}
		a, err := agent.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Run(t.Context()); !errors.Is(err, agent.ErrRunning) || agent.ErrorHint(err) == "" {
			t.Errorf("a second agent with another %s directory: %v", other, err)
		}
	}
	d.status() // the first one has not noticed
	d.stop()
	w.daemon().stop()
}

func TestDaemonReadyFirst(t *testing.T) {
	// New comes up before old goes down.
	w := newWorld(t)
	w.write(w.entry(w.upload("old.txt", []byte("old")), "old"))
	d := w.daemon()
	d.settles(states{"old": "ready"})
	w.write(w.entry(w.upload("new.txt", []byte("new")), "new"))
	w.eventually("new", func() bool {
		old := w.exists("old")
		return w.exists("new") || !old
	})
	if !w.exists("new") {
		t.Error("old went down before new was up")
	}
	d.settles(states{"new": "ready"})
}
