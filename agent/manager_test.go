package agent

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"objectmount/systemd"
)

// TestMoreTime: the service manager is asked for more time as long as bytes
// move and it still waits, and not otherwise.
func TestMoreTime(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	a := testAgent(t, func(c *Config) { c.Notifier = systemd.NewNotifier() })
	d := &daemon{a: a, s: a.newScheduler(false)}
	for _, c := range []struct {
		moved int64
		ready bool
		asks  bool
	}{{0, false, false}, {1, false, true}, {0, false, false}, {5, false, true}, {1, true, false}} {
		a.moved.Add(c.moved)
		d.ready = c.ready
		d.extend()
		b := make([]byte, 100)
		// What was sent to a local socket is there already.
		if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _ := conn.Read(b)
		if got := string(b[:n]); (got == "EXTEND_TIMEOUT_USEC=120000000") != c.asks || (n > 0) != c.asks {
			t.Errorf("%+v: said %q", c, got)
		}
	}
}
