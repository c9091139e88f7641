package mount

import (
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"objectmount/index"
)

// start runs a program in dir, which is killed at the end of the test.
func start(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd
}

func TestFirstPass(t *testing.T) {
	g := grow(smallTree())
	dir, fs := showGrowing(t, g, Options{})
	rowOf := func(name string) int {
		for i, r := range g.rows {
			if r.name == name {
				return i
			}
		}
		panic(name)
	}

	// Seen entries are there at once; stat of the root needs nothing.
	sh(t, dir, "stat . > /dev/null")
	g.change(func() { g.seen = rowOf("big") + 1 })
	if got := sh(t, dir, "cat hello; sha256sum < big"); got != "hello\n"+sum(g.body("big"))+"  -\n" {
		t.Error(got)
	}

	// Others are waited for.
	results := make(chan string, 8)
	waiters := []string{"cat d/inner", "find . | wc -l", "test -e nothing || echo missing", "ls d | wc -l"}
	for _, script := range waiters {
		go func() {
			out, err := try(dir, script)
			if err != nil {
				out += err.Error()
			}
			results <- script + ": " + out
		}()
	}
	eventually(t, "all wait", func() bool { return fs.Stats().Pending >= 3 })
	select {
	case got := <-results:
		t.Fatalf("did not wait: %s", got)
	default:
	}
	g.change(func() { g.seen = rowOf("inner") + 1 })
	if got := <-results; got != "cat d/inner: inner\n" {
		t.Errorf("first to be done: %q", got)
	}
	g.change(func() { g.seen, g.over = len(g.rows), true })
	got := map[string]bool{}
	for range len(waiters) - 1 {
		got[<-results] = true
	}
	for _, want := range []string{"find . | wc -l: 21\n", "test -e nothing || echo missing: missing\n", "ls d | wc -l: 3\n"} {
		if !got[want] {
			t.Errorf("no %q in %v", want, got)
		}
	}
	if st := fs.Stats(); st.Failed != 0 {
		t.Errorf("%+v", st)
	}
}

// What the kernel was told before the end may change by the end: the last entry
// of a name wins. Overlayfs has to be told to look again.
func TestFirstPassReplacesEntries(t *testing.T) {
	state := diskDir(t)
	for name, opt := range map[string]Options{"read-only": {}, "writable": {StateDir: state}} {
		t.Run(name, func(t *testing.T) {
			g := grow(newTree(entry{name: "f", body: "first\n"}, entry{name: "second", body: "the second\n", mode: 0o600}))
			dir, fs := showGrowing(t, g, opt)
			if fs.Info().Writable != (opt.StateDir != "") {
				t.Fatal(fs.Info())
			}
			g.change(func() { g.seen = 2 })
			if got := sh(t, dir, "cat f"); got != "first\n" {
				t.Fatal(got)
			}
			g.change(func() {
				g.rows[0].children[0].Row = 2 // "f" is the second from now on
				g.seen, g.over = 3, true
			})
			eventually(t, "the second entry is seen", func() bool {
				got, _ := try(dir, "cat f; stat -c %a f")
				return got == "the second\n600\n"
			})
			if opts := sh(t, dir, "findmnt -no OPTIONS ."); !strings.Contains(opts, "nosuid,nodev") {
				t.Error(opts)
			}
		})
	}
}

func TestFailedFirstPass(t *testing.T) {
	g := grow(smallTree())
	dir, st := showGrowing(t, g, Options{})
	g.change(func() { g.seen = 2 })
	sh(t, dir, "cat hello")
	done := make(chan string)
	go func() {
		out, _ := try(dir, "ls; cat d/inner; cat nothing; cat hello")
		done <- out
		out, _ = try(dir, "cat d/inner")
		done <- out
		out, _ = try(dir, "cat hello")
		done <- out
	}()
	eventually(t, "somebody waits", func() bool { return st.Stats().Pending > 0 })
	// An error that looks like a missing file, but is of the object.
	g.change(func() { g.err = &fs.PathError{Op: "get", Path: "obj_1", Err: fs.ErrNotExist} })
	for _, want := range []string{"Input/output error", "cat: d/inner: Input/output error\n", "hello\n"} {
		if got := <-done; !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := st.Stats(); got.Failed == 0 || got.LastError != "get obj_1: file does not exist" {
		t.Errorf("%+v", got)
	}
}

// A process that is killed while it waits leaves at once, by whatever signal, even
// after one that did nothing.
func TestKilledProcessesLeave(t *testing.T) {
	g := grow(smallTree())
	g.read = func(ctx context.Context, _ uint32, _ int64) error {
		<-ctx.Done()
		return ctx.Err()
	}
	dir, fs := showGrowing(t, g, Options{Deadline: time.Hour})
	g.change(func() { g.seen = 4 })
	for _, tt := range []struct {
		name string
		args []string
		sigs []syscall.Signal
	}{
		{"cat of an unseen name", []string{"cat", "d/inner"}, []syscall.Signal{syscall.SIGTERM}},
		{"find", []string{"find", "."}, []syscall.Signal{syscall.SIGUSR1}},
		{"ls, core dumped", []string{"ls", "."}, []syscall.Signal{syscall.SIGABRT}},
		{"cat of slow content", []string{"cat", "hello"}, []syscall.Signal{syscall.SIGKILL}},
		{"dd with O_DIRECT", []string{"dd", "if=big", "iflag=direct", "of=/dev/null"}, []syscall.Signal{syscall.SIGKILL}},
		{"python that handles SIGALRM", []string{"python3", "-IS", "-c", "import signal,os; signal.signal(signal.SIGALRM, lambda *a: None); os.stat('" + dir + "/d/deep')"},
			[]syscall.Signal{syscall.SIGALRM, syscall.SIGKILL}},
		{"python that is stopped first", []string{"python3", "-IS", "-c", "import os; os.stat('" + dir + "/d/deep/x')"},
			[]syscall.Signal{syscall.SIGTSTP, syscall.SIGCONT, syscall.SIGTERM}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := fs.Stats().Pending
			cwd := dir
			if tt.args[0] == "python3" {
				cwd = "/" // python3 may be a wrapper that looks around
			}
			cmd := start(t, cwd, tt.args...)
			eventually(t, "it waits", func() bool { return fs.Stats().Pending > before })
			for i, sig := range tt.sigs {
				if i > 0 {
					time.Sleep(20 * time.Millisecond) // or the kernel would take both together
				}
				cmd.Process.Signal(sig)
			}
			err := cmd.Wait()
			if ee, ok := err.(*exec.ExitError); !ok || !ee.Sys().(syscall.WaitStatus).Signaled() {
				t.Errorf("ended with %v", err)
			}
		})
	}
	if fs.Stats().Interrupted == 0 {
		t.Error("nothing was interrupted")
	}
}

// Signals that do not end a process do not disturb its reading.
func TestOtherSignalsDoNotDisturb(t *testing.T) {
	g := grow(smallTree())
	dir, fs := showGrowing(t, g, Options{Deadline: time.Hour})
	cmd := exec.Command("python3", "-IS", "-c", `
import ctypes, signal
signal.signal(signal.SIGUSR1, lambda *a: None)
libc = ctypes.CDLL(None, use_errno=True)
r = libc.open(b"`+dir+`/d/inner", 0)   # not Python's open, which would try again
print("opened" if r >= 0 else ctypes.get_errno())`)
	cmd.Dir = "/"
	var out strings.Builder
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits", func() bool { return fs.Stats().Pending > 0 })
	for range 5 {
		cmd.Process.Signal(syscall.SIGUSR1)
		time.Sleep(10 * time.Millisecond)
	}
	g.change(func() { g.seen, g.over = len(g.rows), true })
	if err := cmd.Wait(); err != nil || out.String() != "opened\n" {
		t.Errorf("%v %q", err, out.String())
	}
}

// At the deadline a reader gets EIO even when Content never returns; later reads
// succeed, and the late answer of the first harms nobody.
func TestDeadline(t *testing.T) {
	tree := smallTree()
	release := make(chan struct{})
	var mu sync.Mutex
	hang := true
	tree.read = func(context.Context, uint32, int64) error {
		mu.Lock()
		h := hang
		mu.Unlock()
		if h {
			<-release // without a look at the context
		}
		return nil
	}
	dir, fs := show(t, tree, Options{Deadline: 100 * time.Millisecond, MaxReads: 64})
	out, err := try(dir, "cat hello")
	if err == nil || out != "cat: hello: Input/output error\n" {
		t.Errorf("%v %q", err, out)
	}
	if st := fs.Stats(); st.Missed == 0 || st.Failed == 0 || !strings.Contains(st.LastError, "deadline") {
		t.Errorf("%+v", st)
	}
	mu.Lock()
	hang = false
	mu.Unlock()
	if out := sh(t, dir, "cat hello; sha256sum < big"); out != "hello\n"+sum(tree.body("big"))+"  -\n" {
		t.Error(out)
	}
	close(release)
}

func TestBadContentIsAnError(t *testing.T) {
	tree := smallTree()
	var mu sync.Mutex
	var fail func() error
	tree.read = func(context.Context, uint32, int64) error {
		mu.Lock()
		defer mu.Unlock()
		return fail()
	}
	dir, st := show(t, tree, Options{})
	for _, tt := range []struct {
		name string
		fail func() error
		want string
	}{
		{"an error", func() error { return errors.New("checksum of span 3") }, "checksum of span 3"},
		{"an error that means something else to a process", func() error { return fs.ErrNotExist }, "file does not exist"},
		{"an error of the network", func() error { return syscall.ECONNREFUSED }, "connection refused"},
		{"a panic", func() error { panic("oh") }, "panic"},
	} {
		mu.Lock()
		fail = tt.fail
		mu.Unlock()
		out, err := try(dir, "cat hello")
		if err == nil || out != "cat: hello: Input/output error\n" {
			t.Errorf("%s: %v %q", tt.name, err, out)
		}
		if got := st.Stats().LastError; got != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
	mu.Lock()
	fail = func() error { return nil }
	mu.Unlock()
	if got := sh(t, dir, "cat hello"); got != "hello\n" {
		t.Error(got)
	}

	// Fewer bytes than the attributes say.
	tree2 := newTree(entry{name: "short", body: "0123456789"})
	tree2.rows[1].attr.Size = 5000
	short := contentFunc(func(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
		return copy(p, "0123456789"), nil
	})
	dir2 := t.TempDir()
	fs2, err := Mount(t.Context(), dir2, tree2, short, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fs2.Unmount(true)
	if out, err := try(dir2, "cat short"); err == nil || out != "cat: short: Input/output error\n" {
		t.Errorf("%v %q", err, out)
	}
}

type contentFunc func(ctx context.Context, row uint32, p []byte, off int64) (int, error)

func (f contentFunc) ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
	return f(ctx, row, p, off)
}

// The deadline by the clock, without a kernel.
func TestAwait(t *testing.T) {
	server := func(tree index.Tree) *server {
		s := &server{tree: tree, deadline: time.Minute}
		s.pass, _ = tree.(progresser)
		s.alive, s.end = context.WithCancel(context.Background())
		return s
	}
	never := func(ctx context.Context) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	t.Run("ends at the deadline, not before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			_, err := await(server(newTree()), nil, 0, never)
			if d := time.Since(begin); !errors.Is(err, errDeadline) || d != time.Minute {
				t.Errorf("%v after %v", err, d)
			}
		})
	})
	t.Run("gives the result in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			v, err := await(server(newTree()), nil, 0, func(context.Context) (int, error) {
				time.Sleep(time.Minute - 1)
				return 7, nil
			})
			if v != 7 || err != nil {
				t.Error(v, err)
			}
		})
	})
	t.Run("waits for the first pass as long as it gets on, and a deadline longer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			g := grow(newTree())
			go func() {
				for range 20 {
					time.Sleep(50 * time.Second)
					g.change(func() { g.out++ })
				}
			}()
			begin := time.Now()
			_, err := await(server(g), nil, 0, never)
			if d := time.Since(begin); !errors.Is(err, errDeadline) || d < 1060*time.Second || d > 1075*time.Second {
				t.Errorf("%v after %v", err, d)
			}
		})
	})
	t.Run("ends with the mount", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := server(newTree())
			time.AfterFunc(time.Second, s.end)
			if _, err := await(s, nil, 0, never); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	})
}

func TestLeavingStatus(t *testing.T) {
	for _, tt := range []struct {
		name, status string
		want         bool
	}{
		{"nothing", "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n", false},
		{"SIGKILL, to the thread", "SigPnd:\t0000000000000100\n", true},
		{"SIGKILL, though blocked and caught by the looks of it", "ShdPnd:\t0000000000000100\nSigBlk:\t0000000000000100\nSigCgt:\t0000000000000100\n", true},
		{"SIGABRT without a handler", "ShdPnd:\t0000000000000020\n", true},
		{"SIGABRT with one", "ShdPnd:\t0000000000000020\nSigCgt:\t0000000000000020\n", false},
		{"SIGABRT, ignored", "ShdPnd:\t0000000000000020\nSigIgn:\t0000000000000020\n", false},
		{"SIGINT with a handler", "ShdPnd:\t0000000000000002\nSigCgt:\t0000000000000002\n", true},
		{"SIGINT, blocked", "ShdPnd:\t0000000000000002\nSigBlk:\t0000000000000002\n", false},
		{"SIGCHLD", "ShdPnd:\t0000000000010000\n", false},
		{"SIGTSTP", "ShdPnd:\t0000000000080000\n", false},
		{"SIGALRM without a handler", "SigPnd:\t0000000000002000\n", true},
	} {
		if got := leavingStatus("Name:\tcat\n" + tt.status); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
