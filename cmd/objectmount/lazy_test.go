package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"objectmount/mount"
)

// servers are the processes that serve lazy mounts below a directory.
func servers(dir string) (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		b, err := os.ReadFile(p + "/cmdline")
		args := bytes.Split(b, []byte{0})
		if err != nil || len(args) < 3 || string(args[1]) != "serve-lazily" || !strings.HasPrefix(string(args[2]), dir) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// endserver [KILL|TERM] ends every server of lazy mounts of this script and
// waits for their end; without a signal it only waits.
func cmdEndServer(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.Getenv("WORK")
	if len(args) > 0 {
		sig := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM}[args[0]]
		pids := servers(dir)
		if len(pids) == 0 {
			ts.Fatalf("no server is running")
		}
		for _, pid := range pids {
			ts.Check(syscall.Kill(pid, sig))
		}
	}
	poll(ts, 10*time.Second, "the servers to end", func() bool { return len(servers(dir)) == 0 })
}

// mounts N says that N mounts of ours are below this script's directory.
func cmdMounts(ts *testscript.TestScript, neg bool, args []string) {
	if n := len(mountsBelow(ts.Getenv("WORK"))); strconv.Itoa(n) != args[0] {
		ts.Fatalf("%d mounts, want %s: %+v", n, args[0], mountsBelow(ts.Getenv("WORK")))
	}
}

func mountsBelow(dir string) (list []mount.Mounted) {
	all, _ := mount.List(context.Background())
	for _, m := range all {
		if strings.HasPrefix(m.Dir, dir) {
			list = append(list, m)
		}
	}
	return list
}

// cleanMounts takes away what a script left, and says what that was.
func cleanMounts(dir string) (left []string) {
	for _, m := range mountsBelow(dir) {
		left = append(left, m.Dir)
		_ = mount.Unmount(m.Dir, true)
	}
	return left
}
