package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountTable gives the types of the file systems at or below a directory, by
// their place.
func mountTable(t *testing.T, dir string) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) > 4 && len(g) > 0 && strings.HasPrefix(f[4], dir+"/") {
			at := strings.TrimPrefix(f[4], dir+"/")
			if base, ok := strings.CutPrefix(at, "state/layers/"); ok {
				at = "layers/" + filepath.Base(base)
			}
			table[at] = append(table[at], g[0])
		}
	}
	return table
}

// TestDaemonRestarts stops and kills the daemon, and starts it again, 20 times
// under readers. They may fail while it is down, and never see wrong bytes;
// each time all is back, once: no dead mount, and none above another.
func TestDaemonRestarts(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	b := newLazyBox(t)
	src := b.path("src")
	random := rand.NewChaCha8([32]byte{7})
	for i := range 12 {
		data := make([]byte, 100<<10*(i%4)+i)
		_, _ = random.Read(data)
		writeFile(t, filepath.Join(src, fmt.Sprint("d", i%3), fmt.Sprint("f", i)), string(data))
	}
	archive := b.pack(src, "a.tgz")
	b.extract(archive)
	id := b.serve(archive)
	entry := `{"type": "object_mount", "object_id": %q, "object_path": %q, "mode": "lazy", "read_only": %v}`
	box := b.path("box")
	writeFile(t, b.path("spec.json"), fmt.Sprintf("["+entry+","+entry+"]", id, box+"/rw", false, id, box+"/ro", true))

	// cmp ends with 1 where bytes differ, and with 2 where it cannot read.
	var readers []*exec.Cmd
	for i := range 4 {
		tree := []string{"rw", "ro"}[i%2]
		r := exec.Command("bash", "-c", `n=0; while [ ! -e "$3" ]; do for f in d0/f3 d1/f7 d2/f11; do
			cmp -s "$1/$f" "$2/$f"; case $? in 0) n=$((n + 1));; 1) exit 1;; esac; done; done; [ $n -gt 0 ]`,
			"bash", b.want, filepath.Join(box, tree), b.path("stop"))
		r.Dir = "/"
		if err := r.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Process.Kill() })
		readers = append(readers, r)
	}
	up := map[string][]string{"box/rw": {"overlay"}, "box/ro": {"fuse.objectmount"}, "layers/lower": {"fuse.objectmount"}}
	for i := range rounds {
		agent := b.start("agent", "agent", "--spec", b.path("spec.json"))
		if !within(30*time.Second, func() bool { return b.command("status", "--wait", "20s").Run() == nil }) {
			log, _ := os.ReadFile(b.path("logs", "agent"))
			t.Fatalf("round %d: not ready\n%s", i, log)
		}
		if table := mountTable(t, b.dir); fmt.Sprint(table) != fmt.Sprint(up) {
			t.Fatalf("round %d: mounts are %v, want %v", i, table, up)
		}
		for _, tree := range []string{"rw", "ro"} {
			shell(t, "/", fmt.Sprintf("diff -r -x log %s %s/%s", b.want, box, tree))
		}
		shell(t, box, "echo round >> rw/log")
		if i%2 == 1 {
			_ = agent.Process.Signal(syscall.SIGKILL)
			_ = agent.Wait()
			if n := len(mountTable(t, b.dir)); n != len(up) {
				t.Errorf("round %d: %d mounts of a daemon that was killed", i, n)
			}
			continue
		}
		_ = agent.Process.Signal(syscall.SIGTERM)
		if err := agent.Wait(); err != nil && agent.ProcessState.ExitCode() != 128+int(syscall.SIGTERM) {
			t.Errorf("round %d: the daemon ended with %v", i, err)
		}
		if table := mountTable(t, b.dir); len(table) != 0 {
			t.Fatalf("round %d: the daemon left %v", i, table)
		}
	}
	writeFile(t, b.path("stop"), "")
	for _, r := range readers {
		if err := r.Wait(); err != nil {
			t.Errorf("a reader saw wrong bytes, or never any: %v", err)
		}
	}

	// What was written is all there, and the next start takes the dead away,
	// wanted or not.
	writeFile(t, b.path("spec.json"), fmt.Sprintf("["+entry+"]", id, box+"/rw", false))
	agent := b.start("agent", "agent", "--spec", b.path("spec.json"))
	if !within(30*time.Second, func() bool { return b.command("status", "--wait", "20s", box+"/rw").Run() == nil }) {
		t.Fatal("not ready in the end")
	}
	if got := shell(t, box, "grep -c round rw/log"); got != fmt.Sprintln(rounds) {
		t.Errorf("%s rounds were written down", got)
	}
	delete(up, "box/ro")
	if !within(20*time.Second, func() bool { return fmt.Sprint(mountTable(t, b.dir)) == fmt.Sprint(up) }) {
		t.Errorf("mounts are %v, want %v", mountTable(t, b.dir), up)
	}
	b.stop(agent)
	if table := mountTable(t, b.dir); len(table) != 0 {
		t.Errorf("in the end there is %v", table)
	}
}
