package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"objectmount/extract"
)

func testAgent(t *testing.T, change ...func(*Config)) *Agent {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{SpecPath: filepath.Join(dir, "mounts.json"), StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run")}
	for _, f := range change {
		f(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOrder holds the rules of who may begin against states of the world. A
// task is "path", or "-path" for one to be taken down, and then its state:
// todo (or nothing), up, run, later (to be tried again), over (failed in Once).
func TestOrder(t *testing.T) {
	for name, c := range map[string]struct{ tasks, want string }{
		"all at once":                {"/b, /a, /c", "/b /a /c"},
		"inner waits for outer":      {"/a/b, /a", "/a"},
		"inner after outer":          {"/a/b, /a up", "/a/b"},
		"even far inside":            {"/a/b/c/d, /a", "/a"},
		"a prefix is no outer":       {"/ab, /a run", "/ab"},
		"outer waits for inner work": {"/a, /a/b run", ""},
		"outer failed: inner looks":  {"/a later, /a/b", "/a/b"},
		"outer gave up":              {"/a over, /a/b", "/a/b"},
		"outer of outer failed":      {"/a later, /a/b, /a/b/c", "/a/b /a/b/c"},
		"outer due again":            {"/a, /a/b", "/a"},
		"later":                      {"/a later, /b", "/b"},
		"new before old":             {"/a, -/b", "/a"},
		"new runs before old":        {"/a run, -/b", ""},
		"old after new":              {"/a up, -/b", "-/b"},
		"old is not held up":         {"/a later, -/b", "-/b"},
		"old in the way, outer":      {"/a/b, -/a", "-/a"},
		"old in the way, inner":      {"/a, -/a/b", "-/a/b"},
		"all that is in the way":     {"/a, -/a/b, -/a/b/c, -/x", "-/a/b/c"},
		"beside what is in the way":  {"/a/x, -/a, -/a/y, /n", "/n -/a/y"},
		"olds, inner first":          {"-/a, -/a/b, -/c", "-/c -/a/b"},
		"old fails to go":            {"/a, -/a/b later, /c", "/c"},
		"old runs in the way":        {"/a, -/a/b run, -/z", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := testAgent(t)
			s := a.newScheduler(false)
			now := time.Now()
			var steps []step
			for _, text := range strings.Split(c.tasks, ", ") {
				path, state, _ := strings.Cut(text, " ")
				task := &task{path: strings.TrimPrefix(path, "-"), due: now, todo: true, pause: a.newPause()}
				if path[0] == '/' {
					task.mount = &Mount{}
				}
				task.item = a.newItem(task.path, task.mount, OriginSpec)
				switch state {
				case "up":
					task.up, task.todo = true, false
				case "run":
					task.stop = func(error) {}
					s.running[task] = true
				case "later":
					task.due = now.Add(time.Hour)
				case "over":
					task.todo = false
				}
				s.tasks[task.path] = task
				steps = append(steps, step{path: task.path})
			}
			s.sort(steps)
			var got []string
			for _, task := range s.startable(now, 100) {
				if task.mount == nil {
					task.path = "-" + task.path
				}
				got = append(got, task.path)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s: got %q, want %q", c.tasks, strings.Join(got, " "), c.want)
			}
		})
	}
}

// tries runs the daemon's loop in a world whose time is not ours, and says
// after which pauses a local file was tried to be mounted.
func tries(t *testing.T, content string, n int, during func(a *Agent, try int)) (pauses []time.Duration) {
	dir := t.TempDir()
	file := filepath.Join(dir, "object.tgz")
	if content != "" {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var last time.Time
		tried := 0
		var a *Agent
		a = testAgent(t, func(c *Config) {
			c.Progress = func(it ItemStatus) {
				if it.State != StateFailed || ctx.Err() != nil {
					return
				}
				if tried > 0 {
					pauses = append(pauses, time.Since(last))
				}
				last = time.Now()
				if tried++; tried > n {
					cancel()
				} else if during != nil {
					go during(a, tried)
				}
			}
		})
		d := &daemon{a: a, s: a.newScheduler(false)}
		m := Mount{ObjectPath: filepath.Join(dir, "out"), LocalFile: file}
		d.s.want([]step{{m.Path(), actionAdd, &m}})
		d.loop(ctx, nil)
		d.drain(ctx)
	})
	return pauses
}

func near(got, want time.Duration) bool {
	return got >= want*79/100 && got <= want*121/100
}

func TestPausesGrow(t *testing.T) {
	pauses := tries(t, "", 12, nil) // the file is not there
	for i, got := range pauses {
		want := min(time.Second<<i, 5*time.Minute)
		if !near(got, want) {
			t.Errorf("pause %d is %v, want about %v", i, got, want)
		}
	}
	if len(pauses) != 12 {
		t.Errorf("%d pauses", len(pauses))
	}
}

func TestPausesAfterCorruption(t *testing.T) {
	for i, got := range tries(t, "no gzip at all", 4, nil) {
		if !near(got, time.Hour) {
			t.Errorf("pause %d is %v, want about an hour", i, got)
		}
	}
}

func TestReloadEndsPauses(t *testing.T) {
	pauses := tries(t, "", 8, func(a *Agent, try int) {
		if try == 6 {
			time.Sleep(time.Second) // in the middle of the pause of half a minute
			a.Reload()
		}
	})
	if !near(pauses[4], 16*time.Second) || pauses[5] != time.Second || !near(pauses[6], time.Second) || !near(pauses[7], 2*time.Second) {
		t.Errorf("pauses are %v", pauses)
	}
}

func TestPanicIsContained(t *testing.T) {
	a := testAgent(t, func(c *Config) {
		c.Progress = func(it ItemStatus) {
			if it.State == StateFetching {
				panic("a fault")
			}
		}
	})
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("f"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Mount{ObjectPath: filepath.Join(t.TempDir(), "out"), LocalFile: file}
	_, err := a.Mount(t.Context(), m)
	if err == nil || !strings.Contains(err.Error(), "internal error: a fault") || ErrorHint(err) == "" {
		t.Errorf("got %v", err)
	}
	// Nothing is held: the lock of the path is free.
	a.cfg.Progress = nil
	if _, err := a.Mount(t.Context(), m); err != nil {
		t.Error(err)
	}
}

func TestMeter(t *testing.T) {
	var m meter
	now := time.Now()
	for i := range 100 { // 1000 per second, ten times a second
		m.add(int64(i)*100, now.Add(time.Duration(i)*100*time.Millisecond))
	}
	if m.speed < 999 || m.speed > 1001 {
		t.Errorf("speed %v", m.speed)
	}
	for i := range 100 { // standing still for ten seconds
		m.add(9900, now.Add(10*time.Second+time.Duration(i)*100*time.Millisecond))
	}
	if m.speed > 100 {
		t.Errorf("speed %v after standing still", m.speed)
	}
	if got := m.add(5, now.Add(time.Minute)); got != 0 { // began again
		t.Errorf("speed %v", got)
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	err := fmt.Errorf("%w: %s", extract.ErrUnsafe, strings.Repeat("x", 1<<20))
	if got := errorText(err); len(got) > maxError+3 {
		t.Errorf("%d bytes", len(got))
	}
}

// TestHints: every sentinel that a person may meet has advice.
func TestHints(t *testing.T) {
	for _, h := range hints {
		if got := ErrorHint(fmt.Errorf("mount /a: %w", h.err)); got != h.hint {
			t.Errorf("%v: hint %q, want %q", h.err, got, h.hint)
		}
	}
	if ErrorHint(nil) != "" || ErrorHint(fmt.Errorf("strange")) != "" {
		t.Error("a hint for nothing")
	}
}
