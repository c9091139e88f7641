package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/agent"
)

func TestSocket(t *testing.T) {
	w := newWorld(t)
	w.write(w.entry(w.upload("a.txt", []byte("a")), "a"))
	d := w.daemon()
	d.settles(states{"a": "ready"})
	sock := filepath.Join(w.dir, "run", "agent.sock")
	fi, err := os.Lstat(sock)
	if err != nil || fi.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v %v", fi.Mode(), err)
	}
	// Anything that speaks HTTP can ask, and finds the documented keys.
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return net.Dial("unix", sock) }}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	resp, err := c.Get("http://x/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	var st struct {
		Ready bool
		Items []map[string]any
	}
	if err := json.Unmarshal(body, &st); err != nil || !st.Ready || len(st.Items) != 1 {
		t.Fatalf("%v in %s", err, body)
	}
	for _, key := range []string{"path", "object_id", "source", "origin", "state", "bytes", "total_bytes", "entries", "percent", "rate_per_second", "since", "required"} {
		if _, ok := st.Items[0][key]; !ok {
			t.Errorf("no key %s in %s", key, body)
		}
	}
	for method, path := range map[string]string{"POST": "/v1/status", "GET": "/"} {
		req, _ := http.NewRequest(method, "http://x"+path, nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("%s %s: %s", method, path, resp.Status)
		}
	}
	d.stop()
	if _, err := os.Lstat(sock); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestSocketPeer: another user is not heard, even where the socket's mode
// would let him.
func TestSocketPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	w := newWorld(t)
	w.writeText("[]")
	w.daemon()
	sock := filepath.Join(w.dir, "run", "agent.sock")
	if err := os.Chmod(sock, 0o666); err != nil {
		t.Fatal(err)
	}
	ask := func(uid int) (answer string) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			// Of this thread alone, so not by package syscall. The effective
			// uid is what the kernel tells the other end.
			if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				t.Error(errno)
				return
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: sock}); err != nil {
				answer = err.Error()
				return
			}
			io.WriteString(fdWriter(fd), "GET /v1/status HTTP/1.0\r\n\r\n")
			b := make([]byte, 4096)
			n, _ := unix.Read(fd, b)
			answer = string(b[:max(n, 0)])
		}()
		<-done
		return answer
	}
	if got := ask(0); !strings.HasPrefix(got, "HTTP/1.0 200") {
		t.Errorf("root is answered %q", got)
	}
	// The directories above are closed to others, which is not what is tested.
	for dir := filepath.Dir(sock); strings.HasPrefix(dir, os.TempDir()) && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(65534); got != "" {
		t.Errorf("nobody is answered %q", got)
	}
}

type fdWriter int

func (fd fdWriter) Write(p []byte) (int, error) { return unix.Write(int(fd), p) }

// TestSocketPathLong: longer than the kernel takes for a socket.
func TestSocketPathLong(t *testing.T) {
	w := newWorld(t)
	w.writeText("[]")
	w.dir = filepath.Join(w.dir, strings.Repeat("long", 40))
	d := w.daemon()
	if !d.status().Ready {
		t.Error("not ready")
	}
}

func TestNotRunning(t *testing.T) {
	w := newWorld(t)
	run := filepath.Join(w.dir, "run")
	ask := func() {
		t.Helper()
		if _, err := agent.QueryStatus(t.Context(), run); !errors.Is(err, agent.ErrNotRunning) || agent.ErrorHint(err) == "" {
			t.Errorf("got %v", err)
		}
	}
	ask() // no directory
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	ask() // no socket
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(run, "agent.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ask() // a socket nobody listens at
	w.writeText("[]")
	w.daemon().status() // which the next agent replaces
}
