package store

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv, set to a data directory, makes the test binary a server on a free
// port: its address is the one line on its standard output.
const (
	childEnv = "OBJECTMOUNT_STORE_TEST_DATA"
	// tmpfsEnv has the child mount a tmpfs of so many bytes over its data
	// directory first, in a mount namespace of its own.
	tmpfsEnv = "OBJECTMOUNT_STORE_TEST_TMPFS"
)

func childMain() int {
	if err := childServe(os.Getenv(childEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childServe(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if size := os.Getenv(tmpfsEnv); size != "" {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=700,size="+size); err != nil {
			return err
		}
	}
	s, err := Open(ctx, Options{DataDir: dir, Keys: testKeys})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if err := s.Serve(ctx, l, nil); err != nil {
		return err
	}
	return s.Close()
}

// child is a server in a process of its own.
type child struct {
	*server
	cmd *exec.Cmd
}

// startChild starts a server process on dir. It is killed when the test ends.
func startChild(t *testing.T, dir string, prepare ...func(*exec.Cmd)) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	for _, p := range prepare {
		p(cmd)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server process did not start: %v", err)
	}
	c.server = newServer(t, "http://"+strings.TrimSpace(line), nil)
	t.Cleanup(c.closeClients)
	return c
}

// kill ends the process without any chance to tidy up.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // killed, as was asked
	}
}

// peakRSS is the most memory the process ever had resident, in bytes.
func (c *child) peakRSS() int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				c.t.Fatal(err)
			}
			return kb << 10
		}
	}
	c.t.Fatal("no VmHWM in /proc status")
	return 0
}
