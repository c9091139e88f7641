package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/agent"
	"objectmount/internal/archivetest"
	"objectmount/mount"
)

// lazyBox is a place for real lazy mounts. Each command, server and user of
// them is a process of its own, and nothing of them is left.
type lazyBox struct {
	*canary
	want string // an extracted tree, if the test has one
}

func newLazyBox(t *testing.T) *lazyBox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := mount.Check(); err != nil {
		needed(t, err.Error())
	}
	b := &lazyBox{canary: &canary{t: t, dir: t.TempDir(), key: "ak_lazybox"}}
	t.Cleanup(b.clean)
	return b
}

// needed skips a test for which this machine lacks something, which CI must
// not.
func needed(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: CI must have it", what)
	}
	t.Skip(what)
}

// need skips where one of the programs is missing.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			needed(t, err.Error())
		}
	}
}

// clean takes everything down, and fails the test if that does not work in
// order.
func (b *lazyBox) clean() {
	if out, err := b.command("unmount", "--all", "--lazy", "--delete").CombinedOutput(); err != nil {
		b.t.Errorf("unmount: %v\n%s", err, out)
	}
	for _, dir := range cleanMounts(b.dir) {
		b.t.Errorf("mount left behind: %s", dir)
	}
	if !within(20*time.Second, func() bool { return len(servers(b.dir)) == 0 }) {
		for _, pid := range servers(b.dir) {
			b.t.Errorf("server %d left behind", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

func within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// mountLazily mounts a source and gives the path.
func (b *lazyBox) mountLazily(t *testing.T, source, name string, flags ...string) string {
	t.Helper()
	path := b.path(name)
	out, err := b.command(append([]string{"mount", "--lazy", "--xattrs", "--no-progress", source, path}, flags...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	return path
}

// extract makes the tree that a lazy one must equal.
func (b *lazyBox) extract(source string) {
	b.t.Helper()
	b.want = b.path("want")
	if out, err := b.command("mount", "--extract", "--xattrs", source, b.want).CombinedOutput(); err != nil {
		b.t.Fatalf("extract: %v\n%s", err, out)
	}
}

func (b *lazyBox) unmount(t *testing.T, path string) {
	t.Helper()
	if out, err := b.command("unmount", path).CombinedOutput(); err != nil {
		t.Fatalf("unmount: %v\n%s", err, out)
	}
	if !within(20*time.Second, func() bool { return len(servers(path)) == 0 }) {
		t.Fatalf("the server of %s goes on", path)
	}
}

// serve starts a server of objects and uploads a file.
func (b *lazyBox) serve(file string) (id string) {
	b.t.Helper()
	b.start("server", "serve", "--data-dir", b.path("data"), "--listen", "127.0.0.1:0")
	b.base = b.await("server", "export RUNLOOP_BASE_URL=")
	out, err := b.command("objects", "upload", file).Output()
	if err != nil {
		b.t.Fatalf("upload: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// lazyStatus is what the agent says of a lazy mount that it serves.
func (b *lazyBox) lazyStatus(path string) *agent.LazyStatus {
	b.t.Helper()
	out, err := b.command("status", "--json", path).Output()
	var st agent.Status
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil || len(st.Items) != 1 || st.Items[0].Lazy == nil {
		b.t.Fatalf("status: %v\n%s", err, out)
	}
	return st.Items[0].Lazy
}

// shell runs a script in a directory and gives what it says.
func shell(t *testing.T, dir, script string) string {
	t.Helper()
	out, err := try(t, 0, dir, script)
	if err != nil {
		t.Fatalf("%s: %v\n%.3000s", script, err, out)
	}
	return out
}

// try runs a script in a process group of its own, of which nothing survives
// the limit (0: three minutes).
func try(t *testing.T, limit time.Duration, dir, script string) (string, error) {
	if limit == 0 {
		limit = 3 * time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eu -o pipefail\n"+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not over after %v", limit)
	}
	return out.String(), err
}

// listing is what must be equal of two trees besides their content: type,
// mode, owner, size, time to the nanosecond, links, and extended attributes.
// Sizes and links of directories are the file system's own affair, as is the
// time of the root. A mount without attributes at all says that it knows none
// (ENOTSUP), for the kernel not to ask again.
const listing = `find . -mindepth 1 \( -type d -printf '%p d %m %U:%G %T@\n' \) -o -printf '%p %y %m %U:%G %s %T@ %n %l\n' | sort
	getfattr -R -P -d -m - . 2>/dev/null | grep -v '^$' || true`

// equal holds the mount against the extracted tree.
func (b *lazyBox) equal(t *testing.T, path string) {
	t.Helper()
	if out, err := try(t, 0, "/", "diff -r --no-dereference "+b.want+" "+path); err != nil {
		t.Fatalf("%v\n%.2000s", err, out)
	}
	want, got := shell(t, b.want, listing), shell(t, path, listing)
	if want != got {
		if err := os.WriteFile(b.path("want.list"), []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.path("got.list"), []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := try(t, time.Minute, b.dir, "diff want.list got.list")
		t.Fatalf("the listings differ:\n%.2000s", out)
	}
}

// sample reads from a mount in many processes at random offsets.
func (b *lazyBox) sample(t *testing.T, path string, processes, times int) {
	t.Helper()
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for i := range processes {
		cmd, out := exec.Command("sample-trees", fmt.Sprint(i), b.want, path, fmt.Sprint(times)), new(bytes.Buffer)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // most have ended before
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, outs[i])
		}
	}
}

// sampleTrees is a program: sample-trees SEED WANT GOT TIMES.
func sampleTrees() {
	var seed uint64
	var times int
	_, err := fmt.Sscan(os.Args[1]+" "+os.Args[4], &seed, &times)
	if err == nil {
		err = archivetest.Sample(seed, os.Args[2], os.Args[3], times)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pack makes a .tar.gz of a directory as people do, with extended attributes
// and nanoseconds.
func (b *lazyBox) pack(dir, name string) string {
	b.t.Helper()
	file := b.path(name)
	shell(b.t, dir, "tar -c --sort=name --format=pax --xattrs . | gzip -1 > "+file)
	return file
}

// blocks is how much disk a directory takes.
func blocks(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Lstat(path, &st) == nil {
			bytes += st.Blocks * 512
		}
		return nil
	})
	return bytes
}
