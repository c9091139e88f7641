package mount

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func mkdirs(t *testing.T, names ...string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir = t.TempDir()
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// mountsBelow counts what is mounted at or below dir.
func mountsBelow(t *testing.T, dir string) int {
	t.Helper()
	all, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A server that was killed leaves a dead mount, which the next one detaches:
// with and without a layer.
func TestDeadMountsAreReplaced(t *testing.T) {
	for _, tt := range []struct {
		name   string
		layer  bool
		mounts int
	}{{"read-only", false, 1}, {"writable", true, 2}} {
		t.Run(tt.name, func(t *testing.T) {
			dir := mkdirs(t, "mnt")
			mnt := filepath.Join(dir, "mnt")
			job := serveJob{Dir: mnt}
			if tt.layer {
				diskDir(t)
				job.StateDir = filepath.Join(dir, "state")
			}
			t.Cleanup(func() { detachAll(dir) })
			for range 3 {
				c := serveElsewhere(t, job)
				if c.info.Writable != tt.layer {
					t.Fatal("not writable")
				}
				if got := sh(t, mnt, "cat hello"); got != "hello\n" {
					t.Error(got)
				}
				if n, err := Clean(t.Context(), mnt); n != 0 || !errors.Is(err, ErrMounted) {
					t.Errorf("a living mount: %d, %v", n, err)
				}
				tree := smallTree()
				if _, err := Mount(t.Context(), mnt, tree, tree, Options{}); !errors.Is(err, ErrMounted) {
					t.Errorf("mounted over a living mount: %v", err)
				}
				if got := stateOf(t, mnt); got != Alive {
					t.Errorf("before: %v", got)
				}
				c.kill()
				if got := stateOf(t, mnt); got != Dead {
					t.Errorf("after: %v", got)
				}
				if got := mountsBelow(t, dir); got != tt.mounts {
					t.Errorf("%d mounts, not %d", got, tt.mounts)
				}
			}
			if n, err := Clean(t.Context(), mnt); n != 1 || err != nil {
				t.Errorf("a dead mount: %d, %v", n, err)
			}
			if n, err := Clean(t.Context(), mnt); n != 0 || err != nil {
				t.Errorf("no mount: %d, %v", n, err)
			}
			if got := mountsBelow(t, dir); got != 0 {
				t.Errorf("%d mounts are left", got)
			}
		})
	}
}

func stateOf(t *testing.T, dir string) State {
	t.Helper()
	all, err := List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var found State
	for _, m := range all {
		if strings.HasPrefix(m.Dir, filepath.Dir(dir)) {
			if m.Dir != dir || found != "" {
				t.Errorf("listed: %+v", m)
			}
			found = m.State
		}
	}
	return found
}

// A stopped server is not waited for.
func TestHungMount(t *testing.T) {
	mnt := filepath.Join(mkdirs(t, "mnt"), "mnt")
	c := serveElsewhere(t, serveJob{Dir: mnt})
	c.cmd.Process.Signal(syscall.SIGSTOP)
	eventually(t, "it is stopped", func() bool { return stateOf(t, mnt) == Hung })
	if _, err := Clean(t.Context(), mnt); !errors.Is(err, ErrMounted) || !strings.Contains(err.Error(), "does not answer") {
		t.Error(err)
	}
	c.cmd.Process.Signal(syscall.SIGCONT)
	eventually(t, "it answers", func() bool { return stateOf(t, mnt) == Alive })
	c.stop(t)
}

// What is not ours is left alone.
func TestForeignMount(t *testing.T) {
	mnt := filepath.Join(mkdirs(t, "mnt"), "mnt")
	if err := unix.Mount("other", mnt, "tmpfs", 0, "size=1M"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { detachAll(mnt) })
	if n, err := Clean(t.Context(), mnt); n != 0 || err != nil {
		t.Error(n, err)
	}
	if err := Unmount(mnt, true); err == nil {
		t.Error("unmounted")
	}
	if mountsBelow(t, mnt) != 1 {
		t.Error("it is gone")
	}
}

func TestBusy(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	state := diskDir(t)
	for name, opt := range map[string]Options{"read-only": {}, "writable": {StateDir: state}} {
		for _, tt := range []struct{ name, script, how, path string }{
			{"a working directory", "cd d; echo ready; read", "working directory", "/d"},
			{"an open file", "exec 9< hello; cd /; echo ready; read", "open file", "/hello"},
			{"an unlinked open file", "exec 9< hello; rm hello 2> /dev/null || true; cd /; echo ready; read", "open file", "/hello"},
			{"a mapped file", `cd /; exec /usr/bin/env python3 -IS -c '
import mmap, sys
f = open(sys.argv[1] + "/big", "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
f.close()
import os
for n in os.listdir("/proc/self/fd"):
    try:
        if "/big" in os.readlink("/proc/self/fd/" + n): os.close(int(n))
    except OSError: pass
print("ready", flush=True)
sys.stdin.readline()' "$DIR"`, "mapped file", "/big"},
		} {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				dir, fs := show(t, smallTree(), opt)
				cmd := exec.Command("bash", "-c", tt.script)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "DIR="+dir)
				in, _ := cmd.StdinPipe()
				out, _ := cmd.StdoutPipe()
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
					t.Fatal(line)
				}
				err := fs.Unmount(false)
				var busy *BusyError
				if !errors.As(err, &busy) || !errors.Is(err, syscall.EBUSY) || len(busy.Holders) != 1 {
					t.Fatalf("%v", err)
				}
				h := busy.Holders[0]
				if h.PID != cmd.Process.Pid || h.How != tt.how || strings.TrimSuffix(h.Path, " (deleted)") != dir+tt.path {
					t.Errorf("%+v", h)
				}
				if !strings.Contains(err.Error(), h.Command) || !strings.Contains(err.Error(), tt.how) {
					t.Error(err)
				}
				in.Close()
				cmd.Wait()
				if err := fs.Unmount(false); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestBusyWithAMount(t *testing.T) {
	dir, fs := show(t, smallTree(), Options{})
	if err := unix.Mount("none", dir+"/d", "tmpfs", 0, "size=1M"); err != nil {
		t.Fatal(err)
	}
	err := fs.Unmount(false)
	if err == nil || !strings.Contains(err.Error(), "mounted at "+dir+"/d") {
		t.Error(err)
	}
	if err := unix.Unmount(dir+"/d", 0); err != nil {
		t.Fatal(err)
	}
}

// A lazily unmounted tree is gone at once, and served on for who uses it.
func TestLazyUnmount(t *testing.T) {
	state := diskDir(t)
	for name, opt := range map[string]Options{"read-only": {}, "writable": {StateDir: state}} {
		t.Run(name, func(t *testing.T) {
			tree := smallTree()
			dir, fs := show(t, tree, opt)
			cmd := exec.Command("bash", "-c", "exec 9< big; cd d; echo ready; read; cat inner; sha256sum <&9")
			cmd.Dir = dir
			in, _ := cmd.StdinPipe()
			stdout, _ := cmd.StdoutPipe()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			out := bufio.NewReader(stdout)
			if line, _ := out.ReadString('\n'); line != "ready\n" {
				t.Fatal(line)
			}
			if err := fs.Unmount(true); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Error("it is still there")
			}
			select {
			case <-fs.Done():
				t.Error("done, although it is used")
			default:
			}
			in.Write([]byte("\n"))
			a, _ := out.ReadString('\n')
			b, _ := out.ReadString('\n')
			if a != "inner\n" || b != sum(tree.body("big"))+"  -\n" {
				t.Errorf("%q %q", a, b)
			}
			cmd.Wait()
			fs.Wait()
		})
	}
}

// Other processes' mounts are unmounted by their path.
func TestUnmountElsewhere(t *testing.T) {
	dir := mkdirs(t, "mnt")
	mnt := filepath.Join(dir, "mnt")
	diskDir(t)
	for _, state := range []string{"", filepath.Join(dir, "state")} {
		c := serveElsewhere(t, serveJob{Dir: mnt, StateDir: state})
		if err := Unmount(mnt, false); err != nil {
			t.Error(err)
		}
		if n := mountsBelow(t, dir); n != 0 {
			t.Errorf("%d mounts left", n)
		}
		c.stop(t)
	}
	if err := Unmount(mnt, false); err == nil || !strings.Contains(err.Error(), "no mount of ours") {
		t.Error(err)
	}
}

// Started and stopped 20 times under readers, with kills in between, nothing is
// left behind, nothing is stacked, and no reader ever sees wrong bytes.
func TestRestartUnderReaders(t *testing.T) {
	dir := mkdirs(t, "mnt")
	mnt := filepath.Join(dir, "mnt")
	diskDir(t)
	state := filepath.Join(dir, "state")
	t.Cleanup(func() { detachAll(dir) })
	var readers []*exec.Cmd
	for range 3 {
		r := exec.Command("/proc/self/exe")
		r.Env = append(os.Environ(), readVar+"=loop "+mnt)
		r.Stderr = os.Stderr
		r.Dir = "/"
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Process.Kill(); r.Wait() })
		readers = append(readers, r)
	}
	for i := range 20 {
		job := serveJob{Dir: mnt}
		want := 1
		if i%2 == 1 {
			job.StateDir, want = state, 2
		}
		c := serveElsewhere(t, job)
		sh(t, "/", "sha256sum < "+mnt+"/big; ls "+mnt+"/d > /dev/null")
		if n := mountsBelow(t, dir); n != want {
			t.Fatalf("round %d: %d mounts, not %d", i, n, want)
		}
		if i%4 == 3 {
			c.kill()
			continue
		}
		c.stop(t) // lazily, if a reader is in the way
		if n := mountsBelow(t, dir); n != 0 {
			t.Fatalf("round %d: %d mounts are left", i, n)
		}
	}
	for _, r := range readers {
		if r.ProcessState != nil {
			t.Errorf("a reader ended: %v", r.ProcessState)
		}
		r.Process.Signal(syscall.SIGTERM)
		err := r.Wait()
		if ee := new(exec.ExitError); !errors.As(err, &ee) || !ee.Sys().(syscall.WaitStatus).Signaled() {
			t.Errorf("a reader ended by itself: %v", err)
		}
	}
	Clean(t.Context(), mnt)
	if n := mountsBelow(t, dir); n != 0 {
		t.Errorf("%d mounts are left", n)
	}
}

// An aborted mount (umount -f) ends at once, whoever waits, and leaves nothing.
func TestAborted(t *testing.T) {
	state := diskDir(t)
	for name, opt := range map[string]Options{"read-only": {}, "writable": {StateDir: state}} {
		t.Run(name, func(t *testing.T) {
			g := grow(smallTree())
			opt.Deadline = time.Hour
			dir, fs := showGrowing(t, g, opt)
			start(t, dir, "cat", "d/inner")
			eventually(t, "it waits", func() bool { return fs.Stats().Pending > 0 })
			if err := unix.Unmount(fs.Info().Lower, unix.MNT_FORCE); opt.StateDir == "" && err != unix.EBUSY {
				t.Error(err)
			}
			fs.Wait()
			if err := fs.Unmount(false); err != nil {
				t.Error(err)
			}
			if n := mountsBelow(t, filepath.Dir(dir)); n != 0 {
				t.Errorf("%d mounts left", n)
			}
		})
	}
}
