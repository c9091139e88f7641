package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMemory uploads and downloads an object much larger than what either
// side may hold: each process stays under 64 MiB of resident memory, so the
// size of an object does not matter.
func TestMemory(t *testing.T) {
	const objectSize, limitKiB = 1 << 30, 64 << 10
	c := &canary{t: t, dir: t.TempDir(), key: "ak_memory"}
	server := c.start("server", "serve", "--data-dir", c.path("data"), "--listen", "127.0.0.1:0")
	c.base = c.await("server", "export RUNLOOP_BASE_URL=")

	// A sparse file: what is measured is memory, not the disk.
	big := c.path("big.bin")
	f, err := os.Create(big)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(objectSize); err != nil {
		t.Fatal(err)
	}
	f.Close()

	up := c.command("objects", "upload", big)
	out, err := up.Output()
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	id := strings.TrimSpace(string(out))
	down := c.command("objects", "download", id, "-", "--fetch-memory", "16MiB")
	pipe, err := down.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := down.Start(); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, pipe)
	if err != nil || n != objectSize {
		t.Fatalf("downloaded %d bytes, %v", n, err)
	}
	if err := down.Wait(); err != nil {
		t.Fatal(err)
	}
	mount := c.command("mount", "--extract", "--sync", id, c.path("mounted.bin"), "--fetch-memory", "16MiB")
	if out, err := mount.CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	serverPeak := peakKiB(t, server.Process.Pid)
	for _, side := range []struct {
		what string
		peak int64
	}{
		{"server", serverPeak},
		{"upload", maxRSS(up)},
		{"download", maxRSS(down)},
		{"mount", maxRSS(mount)},
	} {
		t.Logf("%s: %d KiB at most", side.what, side.peak)
		if side.peak > limitKiB {
			t.Errorf("%s held %d KiB, more than %d", side.what, side.peak, limitKiB)
		}
	}
	c.stop(server)
}

// maxRSS is the peak of a process that has ended, in KiB.
func maxRSS(cmd *exec.Cmd) int64 {
	return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}

// peakKiB is the peak of a running process.
func peakKiB(t *testing.T, pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var n int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &n); err == nil {
			return n
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
