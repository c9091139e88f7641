package systemd

import (
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// maxStatus bounds a status line in bytes: systemctl shows one line, and a
// datagram that is too long is not sent at all.
const maxStatus = 512

// Notifier tells the service manager how the service is doing. It is safe for
// concurrent use, and a nil *Notifier is silent, as is one that was made
// without a NOTIFY_SOCKET. The errors are those of the socket: worth a line in
// the log, never worth stopping for.
type Notifier struct {
	socket bool          // NOTIFY_SOCKET is set
	every  time.Duration // watchdog interval; 0: the manager does not watch
}

// NewNotifier makes the Notifier of this process from NOTIFY_SOCKET,
// WATCHDOG_USEC and WATCHDOG_PID. A WATCHDOG_USEC that cannot be read counts
// as none: the manager that wrote it will say so itself.
func NewNotifier() *Notifier {
	n := &Notifier{socket: os.Getenv("NOTIFY_SOCKET") != ""}
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && n.socket {
		n.every = every
	}
	return n
}

// Enabled says whether a service manager listens.
func (n *Notifier) Enabled() bool { return n != nil && n.socket }

// WatchdogInterval is how long the manager waits for Alive before it kills
// the service; 0 when it does not watch. Say Alive twice in that time.
func (n *Notifier) WatchdogInterval() time.Duration {
	if n == nil {
		return 0
	}
	return n.every
}

// Ready says that start-up, or a reload, is finished.
func (n *Notifier) Ready() error { return n.send(daemon.SdNotifyReady) }

// Reloading says that a reload has begun; Ready ends it. Say it only after
// the first Ready, whose meaning the second one would have.
func (n *Notifier) Reloading() error {
	// Type=notify-reload (systemd 253 and later) wants the time of the reload,
	// to tell it from an earlier one. Others ignore it.
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, ts.Nano()/1000))
}

// Stopping says that the service is on its way out.
func (n *Notifier) Stopping() error { return n.send(daemon.SdNotifyStopping) }

// Alive is the sign of life that the watchdog waits for. Say it from the loop
// whose hanging is to be noticed, not from a goroutine of its own.
func (n *Notifier) Alive() error { return n.send(daemon.SdNotifyWatchdog) }

// Status is the one line that systemctl status shows. Line breaks become
// spaces: a second line would be another message.
func (n *Notifier) Status(line string) error {
	line = strings.ToValidUTF8(strings.Join(strings.Fields(line), " "), "?")
	if len(line) > maxStatus {
		line = line[:maxStatus-3]
		for !utf8.ValidString(line) {
			line = line[:len(line)-1] // the cut went through a character
		}
		line += "..."
	}
	return n.send("STATUS=" + line)
}

// ExtendTimeout asks the manager to wait at least d from now for what is
// going on: start, reload or stop. After the unit's own timeout is over it
// must be repeated within each d.
func (n *Notifier) ExtendTimeout(d time.Duration) error {
	return n.send(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
}

func (n *Notifier) send(state string) error {
	if !n.Enabled() {
		return nil
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
