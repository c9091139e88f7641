package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

var (
	errDeadline    = errors.New("no answer before the deadline")
	errInterrupted = errors.New("the process that asked is leaving")
)

// await runs f, which may take as long as the network likes, and gives its
// result, or errDeadline or errInterrupted as soon as either is due. Then f's
// context has ended, and f is left to itself: it must not touch what belongs to
// the request.
//
// cancel is closed by an INTERRUPT, and when the kernel has let go of the mount.
func await[T any](s *server, cancel <-chan struct{}, tid uint32, f func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ctx, stop := context.WithCancel(s.alive)
	defer stop()
	done := make(chan result, 1)
	s.stats.pending.Add(1)
	defer s.stats.pending.Add(-1)
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		// A panic in here would end the process instead of the request.
		r := result{err: errors.New("panic")}
		defer func() {
			if p := recover(); p != nil {
				s.panicked(p)
			}
			done <- r
		}()
		r.v, r.err = f(ctx)
	}()

	var none T
	clock := s.newClock()
	defer clock.timer.Stop()
	var again <-chan time.Time
	for {
		select {
		case r := <-done:
			return r.v, r.err
		case <-clock.timer.C:
			if clock.expired() {
				s.stats.missed.Add(1)
				return none, fmt.Errorf("%w (%v)", errDeadline, s.deadline)
			}
		case <-cancel:
			// The kernel sends one INTERRUPT, for the first signal. The one that
			// ends the process may be another: look again from time to time.
			cancel = nil
			ticker := time.NewTicker(100 * time.Millisecond)
			defer ticker.Stop()
			again = ticker.C
		case <-again:
		}
		if again != nil && (s.disconnected() || leaving(tid)) {
			s.stats.interrupted.Add(1)
			return none, errInterrupted
		}
	}
}

// clock says when a wait has lasted too long: the deadline after it began, or
// after the first pass last got on.
type clock struct {
	timer  *time.Timer
	server *server
	last   int64     // progress when it was last seen to change
	since  time.Time // when that was
}

func (s *server) newClock() *clock {
	c := &clock{server: s, since: time.Now()}
	if !s.waitsForPass() {
		c.timer = time.NewTimer(s.deadline)
		return c
	}
	_, c.last = s.pass.Progress()
	c.timer = time.NewTimer(s.deadline / 4)
	return c
}

// waitsForPass is true while the first pass runs and may be waited for.
func (s *server) waitsForPass() bool { return s.pass != nil && !s.tree.Complete() }

// expired is asked when the timer has fired, and sets it again if it is false.
func (c *clock) expired() bool {
	now := time.Now()
	if c.server.waitsForPass() {
		if _, out := c.server.pass.Progress(); out != c.last {
			c.last, c.since = out, now
		}
	}
	left := c.server.deadline - now.Sub(c.since)
	if left <= 0 {
		return true
	}
	c.timer.Reset(min(left, max(c.server.deadline/4, time.Millisecond)))
	return false
}

// disconnected is true when the kernel has let go of the mount.
func (s *server) disconnected() bool {
	p := []unix.PollFd{{Fd: int32(s.dev)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}

// leaving says whether the thread that waits for us is to end: a signal that will
// end it is pending, or one by which people ask programs to end. All other
// signals (timers, children, the Go runtime's preemption) can wait, as they do
// while a disk is slow.
func leaving(tid uint32) bool {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/status")
	if err != nil {
		// It is gone already, or lives in a PID namespace that we cannot see
		// into: believe the INTERRUPT.
		return true
	}
	return leavingStatus(string(b))
}

func bit(sig syscall.Signal) uint64 { return 1 << (sig - 1) }

var (
	// harmless signals do nothing, or stop the process, unless it has a handler.
	harmless = bit(syscall.SIGCHLD) | bit(syscall.SIGCONT) | bit(syscall.SIGURG) | bit(syscall.SIGWINCH) |
		bit(syscall.SIGSTOP) | bit(syscall.SIGTSTP) | bit(syscall.SIGTTIN) | bit(syscall.SIGTTOU)
	// asking signals mean "end" even to a process that handles them.
	asking = bit(syscall.SIGINT) | bit(syscall.SIGTERM) | bit(syscall.SIGHUP) | bit(syscall.SIGQUIT)
)

// leavingStatus judges by /proc/<tid>/status. The kernel turns most deadly signals
// into a pending SIGKILL of each thread at once.
func leavingStatus(status string) bool {
	set := map[string]uint64{}
	for line := range strings.Lines(status) {
		name, value, ok := strings.Cut(line, ":")
		if ok && (strings.HasPrefix(name, "Sig") || strings.HasPrefix(name, "Shd")) {
			set[name], _ = strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	pending := set["SigPnd"] | set["ShdPnd"]
	if pending&bit(syscall.SIGKILL) != 0 {
		return true
	}
	pending &^= set["SigBlk"] | set["SigIgn"]
	deadly := pending &^ set["SigCgt"] &^ harmless
	return deadly != 0 || pending&asking != 0
}

// errno is what a process is told about err. Errors of the network or the cache
// carry errnos of their own, and an object that is gone "does not exist": both
// would mislead here. A name that does not exist is Lookup's own answer.
func errno(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, errInterrupted):
		return fuse.EINTR
	case errors.Is(err, syscall.ENOTDIR):
		return fuse.ENOTDIR
	}
	return fuse.EIO
}
