package systemd

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// manager is the receiving end of sd_notify: a real datagram socket.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatalf("no message came: %v", err)
	}
	return string(buf[:n])
}

func TestMessages(t *testing.T) {
	for _, kind := range []string{"path", "abstract"} {
		t.Run(kind, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "notify")
			if kind == "abstract" {
				name = fmt.Sprintf("@objectmount-test-%d", os.Getpid())
			}
			conn := manager(t, name)
			n := NewNotifier()
			if !n.Enabled() {
				t.Fatal("a notifier with NOTIFY_SOCKET must be enabled")
			}
			for _, c := range []struct {
				say  func() error
				want string
			}{
				{n.Ready, "READY=1"},
				{n.Stopping, "STOPPING=1"},
				{n.Alive, "WATCHDOG=1"},
				{func() error { return n.ExtendTimeout(90 * time.Second) }, "EXTEND_TIMEOUT_USEC=90000000"},
				{func() error { return n.Status("2 of 3 mounts ready") }, "STATUS=2 of 3 mounts ready"},
				{func() error { return n.Status("one\nREADY=1\x00two\xff") }, "STATUS=one READY=1\x00two?"},
			} {
				if err := c.say(); err != nil {
					t.Fatal(err)
				}
				if got := receive(t, conn); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func TestReloadingCarriesTheTime(t *testing.T) {
	conn := manager(t, filepath.Join(t.TempDir(), "notify"))
	if err := NewNotifier().Reloading(); err != nil {
		t.Fatal(err)
	}
	first, usec, _ := strings.Cut(receive(t, conn), "\nMONOTONIC_USEC=")
	if v, err := strconv.ParseInt(usec, 10, 64); first != "RELOADING=1" || err != nil || v <= 0 {
		t.Errorf("got %q and %q", first, usec)
	}
}

func TestLongStatusIsCutBetweenCharacters(t *testing.T) {
	conn := manager(t, filepath.Join(t.TempDir(), "notify"))
	for shift := range 4 {
		if err := NewNotifier().Status(strings.Repeat("x", shift) + strings.Repeat("é€", 1000)); err != nil {
			t.Fatal(err)
		}
		got := strings.TrimPrefix(receive(t, conn), "STATUS=")
		if len(got) > maxStatus || !utf8.ValidString(got) || !strings.HasSuffix(got, "...") {
			t.Errorf("%d bytes, valid UTF-8: %v, ends in %q", len(got), utf8.ValidString(got), got[len(got)-6:])
		}
	}
}

func TestSilentWithoutAManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000000")
	var none *Notifier
	for _, n := range []*Notifier{none, NewNotifier(), {}} {
		for _, err := range []error{n.Ready(), n.Reloading(), n.Stopping(), n.Alive(), n.Status("x"), n.ExtendTimeout(1)} {
			if err != nil {
				t.Errorf("a message without a manager: %v", err)
			}
		}
		if n.Enabled() || n.WatchdogInterval() != 0 {
			t.Error("there is no manager, so nobody watches")
		}
	}
}

func TestManagerGone(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	if err := NewNotifier().Ready(); err == nil {
		t.Error("a message that nobody got must be an error")
	}
}

func TestWatchdogInterval(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "notify"))
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"6000000", "", 6 * time.Second},
		{"6000000", strconv.Itoa(os.Getpid()), 6 * time.Second},
		{"6000000", "1", 0}, // meant for another process
		{"", "", 0},
		{"soon", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := NewNotifier().WatchdogInterval(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%q WATCHDOG_PID=%q: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}
