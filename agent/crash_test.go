package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/agent"
	at "objectmount/internal/archivetest"
	"objectmount/objects"
)

// The tests below kill an agent in a process of its own: the test binary with
// this variable, which says what to run.
const childEnv = "OBJECTMOUNT_TEST_AGENT"

type childJob struct {
	Spec, State, Run, URL string
	Daemon                bool   // Run instead of Once
	DieAt                 string // die by SIGKILL right after something appeared or changed at this path
}

func child() int {
	var job childJob
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &job); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	client, err := objects.New(objects.Options{BaseURL: job.URL, Key: "ak_" + canary})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg := agent.Config{SpecPath: job.Spec, StateDir: job.State, RunDir: job.Run, CacheDir: filepath.Join(job.State, "..", "cache"), Client: client}
	if job.DieAt != "" {
		before := describe(job.DieAt)
		cfg.Progress = func(agent.ItemStatus) {
			// The extraction's last word comes when all is published, and
			// before the agent has written that down.
			if describe(job.DieAt) != before {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	}
	a, err := agent.New(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if job.Daemon {
		err = a.Run(ctx)
	} else {
		_, err = a.Once(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// describe tells one thing at a path from another.
func describe(path string) string {
	fi, err := os.Lstat(path)
	if err != nil {
		return "nothing"
	}
	return fmt.Sprint(fi.Sys().(*syscall.Stat_t).Ino)
}

// start runs an agent in a process of its own.
func (w *world) start(job childJob) *exec.Cmd {
	w.Helper()
	job.Spec, job.URL = w.spec, w.url
	job.State, job.Run = filepath.Join(w.dir, "state"), filepath.Join(w.dir, "run")
	text, err := json.Marshal(job)
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = w.logs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	return cmd
}

func killed(err error) bool {
	ee, ok := err.(*exec.ExitError)
	return ok && ee.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

func createRequest(name string) objects.CreateRequest {
	return objects.CreateRequest{Name: name, ContentType: objects.DetectContentType(name)}
}

// TestKilledAtRandom kills the agent again and again while it extracts, and
// then lets one finish. At no time is there part of a tree at the path.
func TestKilledAtRandom(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 5
	}
	w := newWorld(t)
	// versions[i] is a tree in which every file says i.
	const files = 400
	var ids []string
	for v := range 2 {
		var parts [][]byte
		for i := range files {
			parts = append(parts, at.File(fmt.Sprintf("d%d/f%d", i%7, i), fmt.Sprint(v)))
		}
		ids = append(ids, w.upload("v.tgz", at.Gzip(at.Tar(parts...))))
	}
	whole := func() string { // which version is there, or "nothing"
		w.Helper()
		seen := map[string]int{}
		err := filepath.WalkDir(w.path("p"), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			seen[string(b)]++
			return err
		})
		if os.IsNotExist(err) {
			return "nothing"
		}
		if err != nil || len(seen) != 1 {
			t.Fatalf("a mixture: %v, %v", seen, err)
		}
		for v, n := range seen {
			if n != files {
				t.Fatalf("%d of %d files of version %s", n, files, v)
			}
			return v
		}
		return ""
	}
	// How long does it take when nothing happens?
	w.write(w.entry(ids[0], "p"))
	start := time.Now()
	if err := w.start(childJob{}).Wait(); err != nil {
		t.Fatal(err, w.logs)
	}
	takes := time.Since(start)
	if got := whole(); got != "0" {
		t.Fatalf("version %s", got)
	}
	kills := map[string]int{}
	for round := range rounds {
		if round%5 == 4 { // from nothing, too
			if err := os.RemoveAll(w.path("p")); err != nil {
				t.Fatal(err)
			}
		}
		want := fmt.Sprint(1 - round%2)
		w.write(w.entry(ids[1-round%2], "p"))
		cmd := w.start(childJob{})
		time.Sleep(time.Duration(rand.Int64N(int64(takes) * 5 / 4)))
		cmd.Process.Kill()
		err := cmd.Wait()
		there := whole()
		kills[fmt.Sprintf("killed %v, wanted version there %v", killed(err), there == want)]++
		if round%3 == 2 { // else the next one finds what this one left
			w.once(states{"p": "ready"})
			if got := whole(); got != want {
				t.Fatalf("after the restart there is version %s, want %s", got, want)
			}
		}
	}
	t.Logf("one run takes %v; %v", takes, kills)
	w.write(w.entry(ids[0], "p"))
	w.once(states{"p": "ready"})
	if got := whole(); got != "0" {
		t.Fatalf("in the end there is version %s", got)
	}
	// Nothing counts as edited: it can be taken down.
	if err := w.agent().Unmount(t.Context(), w.path("p"), agent.UnmountUnmodified); err != nil {
		t.Error(err)
	}
	w.gone("p")
}

// TestKilledAfterPublishing: in the moment between the rename and the receipt.
func TestKilledAfterPublishing(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, c := range map[string]struct {
		object string
		data   []byte
		path   string // in the spec
		file   string // one that must be there, relative to the path
		old    bool   // a tree is there before
	}{
		"tree":               {"a.tgz", tree("f", string(big)), "p", "f", false},
		"tree over tree":     {"a.tgz", tree("f", string(big)), "p", "f", true},
		"small tree":         {"a.tgz", tree("f", "f"), "p", "f", false},
		"small over tree":    {"a.tgz", tree("f", "f"), "p", "f", true},
		"file":               {"a.bin", big, "p", "", false},
		"small file":         {"a.txt", []byte("a"), "p", "", false},
		"empty file":         {"a.txt", nil, "p", "", false},
		"file into dir":      {"a.bin", big, "p/", "a.bin", false},
		"small into dir":     {"a.txt", []byte("a"), "p/", "a.txt", false},
		"small gz into dir":  {"a.txt.gz", at.Gzip([]byte("a")), "p/", "a.txt", false},
		"big gz into dir":    {"a.bin.gz", at.Gzip(randomBytes(1 << 20)), "p/", "a.bin", false},
		"file over tree":     {"a.bin", big, "p", "", true},
		"small over old":     {"a.txt", []byte("a"), "p", "", true},
		"in a new directory": {"a.txt", []byte("a"), "x/y/p", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			key := strings.TrimSuffix(c.path, "/")
			if c.old {
				w.write(w.entry(w.upload("old.tgz", tree("old", "old")), c.path))
				w.once(states{key: "ready"})
			}
			w.write(w.entry(w.upload(c.object, c.data), c.path))
			dieAt := w.path(filepath.Join(key, c.file))
			if c.old && !strings.HasSuffix(c.object, "tgz") {
				dieAt = w.path(filepath.Join(key, c.object)) // where it is before it takes the tree's place
			}
			if err := w.start(childJob{DieAt: dieAt}).Wait(); !killed(err) {
				t.Fatalf("the agent ended with %v, and was to be killed\n%s", err, w.logs)
			}
			before := w.requests()
			st := w.once(states{key: "ready"})
			if n := w.requests() - before; n != 0 {
				t.Errorf("%d requests for what was there already", n)
			}
			if it := w.item(st, key); it.Percent != 100 || it.ObjectID == "" {
				t.Errorf("item is %+v", it)
			}
			if fi, err := os.Lstat(w.path(filepath.Join(key, c.file))); err != nil || !fi.Mode().IsRegular() {
				t.Errorf("%v %v", fi, err)
			}
			w.gone(key + "/old")
			// It is known as ours and unedited.
			if err := w.agent().Unmount(t.Context(), w.path(key), agent.UnmountUnmodified); err != nil {
				t.Error(err)
			}
			w.gone(filepath.Join(key, c.file))
		})
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// TestKilledAndForgotten: what died half-way is cleared away although nobody
// asks for it any more.
func TestKilledAndForgotten(t *testing.T) {
	w := newWorld(t)
	hang := func(rw http.ResponseWriter, r *http.Request) bool {
		if isDownload(r) {
			// Whatever the ranges are that it is asked in: no byte beyond the
			// first half.
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.handler.ServeHTTP(&stalling{rw, r, max(4<<20-from, 0)}, r)
		}
		return isDownload(r)
	}
	id := w.upload("a.bin", randomBytes(8<<20))
	w.intercept.Store(&hang)
	stages := func() int {
		a, _ := filepath.Glob(w.path(".p.stage-*"))
		b, _ := filepath.Glob(w.path("deep/.q.stage-*"))
		return len(a) + len(b)
	}
	for _, next := range []string{"once", "daemon"} {
		w.write(w.entry(id, "p"), w.entry(id, "deep/q"))
		cmd := w.start(childJob{})
		w.eventually("both stages", func() bool { return stages() == 2 })
		cmd.Process.Kill()
		if err := cmd.Wait(); !killed(err) || stages() != 2 {
			t.Fatalf("%v, %d stages", err, stages())
		}
		w.writeText("[]")
		if next == "once" {
			w.once(states{})
		} else {
			w.daemon().settles(states{})
		}
		if n := stages(); n != 0 {
			t.Errorf("%s: %d stages are left", next, n)
		}
	}
}

// TestDaemonKilled: the socket and the locks of a dead daemon are in nobody's way.
func TestDaemonKilled(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry(w.upload("a.txt", []byte("a")), "a"))
	cmd := w.start(childJob{Daemon: true})
	w.eventually("the mount", func() bool { return w.exists("a") })
	w.eventually("the receipt", func() bool {
		st, err := agent.QueryStatus(t.Context(), filepath.Join(w.dir, "run"))
		return err == nil && st.Ready
	})
	cmd.Process.Kill()
	if err := cmd.Wait(); !killed(err) {
		t.Fatal(err)
	}
	if _, err := agent.QueryStatus(t.Context(), filepath.Join(w.dir, "run")); err == nil {
		t.Error("a dead agent answers")
	}
	before := w.requests()
	w.daemon().settles(states{"a": "ready"})
	if n := w.requests() - before; n != 0 {
		t.Errorf("%d requests after the restart", n)
	}
}
