package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"objectmount/mount"
)

// TestMain makes the test binary be objectmount itself, so that scripts run
// the real program in real processes.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"objectmount": main, "memory-archive": memoryArchive, "sample-trees": sampleTrees, "read-million": readMillion})
}

// TestScripts runs testdata/script/*.txtar, which read like the manual. Each
// script has a server of its own when it says `server`, and its own state.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// Nothing of the machine's own settings, and nothing outside $WORK.
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TMPDIR", filepath.Join(env.WorkDir, ".tmp"))
			env.Setenv("RUNLOOP_API_KEY", "ak_test_"+markKey)
			env.Setenv("OBJECTMOUNT_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("OBJECTMOUNT_RUN_DIR", filepath.Join(env.WorkDir, "run"))
			env.Setenv("OBJECTMOUNT_CACHE_DIR", filepath.Join(env.WorkDir, "cache"))
			env.Defer(func() {
				if left := cleanMounts(env.WorkDir); len(left) > 0 {
					env.T().Fatal("mounts left behind: ", left)
				}
			})
			// Whatever the script is about, what it leaves behind holds no secret.
			env.Defer(func() {
				if leak := findLeak(env.WorkDir); leak != "" {
					env.T().Fatal(leak)
				}
			})
			return os.MkdirAll(filepath.Join(env.WorkDir, ".tmp"), 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":     cmdServer,
			"daemon":     cmdDaemon,
			"end":        cmdEnd,
			"sametree":   cmdSameTree,
			"setout":     cmdSetOut,
			"eventually": cmdEventually,
			"exitcode":   cmdExitCode,
			"endserver":  cmdEndServer,
			"mounts":     cmdMounts,
		},
		Condition: func(cond string) (bool, error) {
			if cond != "fuse" { // root, and mounts work
				return false, fmt.Errorf("unknown condition %s", cond)
			}
			return os.Geteuid() == 0 && mount.Check() == nil, nil
		},
	})
}

// background starts `objectmount args...` as a process of its own whose output
// goes to $WORK/NAME.log, and ends it when the script is over.
func background(ts *testscript.TestScript, name string, args ...string) (log string) {
	exe, err := exec.LookPath("objectmount")
	ts.Check(err)
	log = ts.MkAbs(name + ".log")
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	defer f.Close()
	c := exec.Command(exe, args...)
	c.Dir = ts.MkAbs(".")
	c.Stdout, c.Stderr = f, f
	for _, key := range []string{"PATH", "HOME", "TMPDIR", "RUNLOOP_API_KEY", "RUNLOOP_BASE_URL", "OBJECTMOUNT_STATE_DIR", "OBJECTMOUNT_RUN_DIR", "OBJECTMOUNT_CACHE_DIR"} {
		c.Env = append(c.Env, key+"="+ts.Getenv(key))
	}
	ts.Check(c.Start())
	ts.Check(os.WriteFile(ts.MkAbs(name+".pid"), []byte(fmt.Sprint(c.Process.Pid)), 0o644))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Wait() // how it ended is the script's business
	}()
	ts.Defer(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = c.Process.Kill()
			<-done
			ts.Logf("%s did not stop within 10 s of SIGTERM", name)
		}
	})
	return log
}

// server [FLAGS...] starts `objectmount serve` on the port it had before in
// this script, or a free one, waits until it is up and sets RUNLOOP_BASE_URL.
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	listen := "127.0.0.1:0"
	if old := ts.Getenv("RUNLOOP_BASE_URL"); old != "" {
		_, listen, _ = strings.Cut(old, "://")
	}
	_ = os.Remove(ts.MkAbs("server.log")) // of an earlier server: its line is not this one's
	log := background(ts, "server", append([]string{"serve", "--data-dir", "server-data", "--listen", listen}, args...)...)
	url := waitLine(ts, log, "export RUNLOOP_BASE_URL=")
	ts.Setenv("RUNLOOP_BASE_URL", url)
}

// daemon [FLAGS...] starts `objectmount agent` and waits for its socket.
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	background(ts, "agent", append([]string{"agent"}, args...)...)
	sock := filepath.Join(ts.Getenv("OBJECTMOUNT_RUN_DIR"), "agent.sock")
	poll(ts, 10*time.Second, sock+" to be there", func() bool {
		_, err := os.Stat(sock)
		return err == nil
	})
}

// end NAME [SIGNAL] ends a background process (TERM by default, or KILL).
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0] + ".pid"))
	ts.Check(err)
	var pid int
	_, err = fmt.Sscan(string(b), &pid)
	ts.Check(err)
	sig := syscall.SIGTERM
	if len(args) > 1 {
		sig = unix.SignalNum("SIG" + args[1])
	}
	ts.Check(syscall.Kill(pid, sig))
	if sig == syscall.SIGHUP {
		return
	}
	poll(ts, 15*time.Second, args[0]+" to end", func() bool { return syscall.Kill(pid, 0) != nil })
}

// waitLine waits for a line with the prefix in a log and returns the rest.
func waitLine(ts *testscript.TestScript, log, prefix string) (rest string) {
	poll(ts, 20*time.Second, prefix+" in "+filepath.Base(log), func() bool {
		f, err := os.Open(log)
		if err != nil {
			return false
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if r, ok := strings.CutPrefix(strings.TrimSpace(sc.Text()), prefix); ok {
				rest = r // the last one: the log may hold an earlier run
			}
		}
		return rest != ""
	})
	return rest
}

func poll(ts *testscript.TestScript, limit time.Duration, what string, ok func() bool) {
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("waited %s for %s", limit, what)
		}
	}
}

// eventually SECONDS FILE waits until FILE is there (with !: is gone).
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	limit, err := time.ParseDuration(args[0] + "s")
	ts.Check(err)
	poll(ts, limit, args[1], func() bool {
		_, err := os.Lstat(ts.MkAbs(args[1]))
		return (err == nil) != neg
	})
}

// setout NAME sets $NAME to the last command's standard output, trimmed.
func cmdSetOut(ts *testscript.TestScript, neg bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// exitcode N COMMAND... runs a command that must end with that code.
func cmdExitCode(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		ee, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = ee.ExitCode()
	}
	if got := fmt.Sprint(code); got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

// sametree WANT GOT compares two trees: names, modes, sizes, content, mtimes
// to the nanosecond, link targets, and which names are one file.
func cmdSameTree(ts *testscript.TestScript, neg bool, args []string) {
	want, err := listTree(ts.MkAbs(args[0]))
	ts.Check(err)
	got, err := listTree(ts.MkAbs(args[1]))
	ts.Check(err)
	if len(want) == 0 {
		ts.Fatalf("%s is empty: nothing was compared", args[0])
	}
	if diff := cmp.Diff(want, got); (diff != "") != neg {
		ts.Fatalf("trees differ (-%s +%s):\n%s", args[0], args[1], diff)
	}
}

// listTree describes every entry below root, the root's own times and mode
// left out: those belong to the mount, not to the archive.
func listTree(root string) ([]string, error) {
	first := map[uint64]string{} // inode → first name, to tell hard links
	var list []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %v mtime=%d.%09d", rel, info.Mode(), st.Mtim.Sec, st.Mtim.Nsec)
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q", b)
			if st.Nlink > 1 {
				if _, seen := first[st.Ino]; !seen {
					first[st.Ino] = rel
				}
				line += " same as " + first[st.Ino]
			}
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + to
		}
		list = append(list, line)
		return nil
	})
	return list, err
}

// markKey is in every key of the scripts, so that a key that leaks is found.
const markKey = "canary0key"

// findLeak looks for the key's mark and for queries of signed URLs in all logs
// and state files below a script's directory.
func findLeak(work string) (leak string) {
	for _, place := range []string{"server.log", "agent.log", "state", "run", "cache"} {
		_ = filepath.WalkDir(filepath.Join(work, place), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return nil // not every script has every place
			}
			if st, err := e.Info(); err != nil || st.Size() > 16<<20 {
				return nil // shared memory of the cache: sparse, and nothing but numbers
			}
			b, err := os.ReadFile(path)
			if err != nil {
				leak = err.Error()
			}
			for _, mark := range []string{markKey, "Signature=", "Expires="} {
				if strings.Contains(string(b), mark) {
					leak = fmt.Sprintf("%s holds %q", path, mark)
				}
			}
			return nil
		})
	}
	return leak
}
