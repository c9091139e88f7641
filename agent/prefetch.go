package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"objectmount/index"
	"objectmount/objects"
)

// Prefetch says what a lazy mount fetches before anybody asks for it.
type Prefetch string

// The ways to prefetch. Each does what the one before it does, and more.
const (
	PrefetchNone Prefetch = "none" // nothing: what is fetched was asked for, or lies in one piece with it
	PrefetchAuto Prefetch = "auto" // what follows what was asked for, and what was read the last time
	PrefetchAll  Prefetch = "all"  // everything, when nobody asks for anything else, as far as the cache has room
)

func (p Prefetch) valid() bool { return p == PrefetchNone || p == PrefetchAuto || p == PrefetchAll }

// ParsePrefetch reads a policy as a person writes it.
func ParsePrefetch(text string) (Prefetch, error) {
	if p := Prefetch(text); p.valid() {
		return p, nil
	}
	return "", errors.New("it is none, auto or all")
}

// What a mount does in the background, in this order:
//
//	none   off
//	auto   waiting (for the first pass) ─▶ replaying (what the trace says) ─▶ idle
//	all    waiting ─▶ replaying ─▶ filling ─▶ done, or full
//	                                     └──▶ stopped: the object cannot be fetched any more
//
// What fails there is counted and tried again later; no reader ever hears of
// it.
const (
	prefetchOff       = "off"
	prefetchWaiting   = "waiting"
	prefetchReplaying = "replaying"
	prefetchIdle      = "idle"
	prefetchFilling   = "filling"
	prefetchDone      = "done"
	prefetchFull      = "full"
	prefetchStopped   = "stopped"
)

const (
	// replayBytes bounds what a trace can cost, in bytes of the object: who
	// publishes one is not always to be trusted.
	replayBytes = 1 << 30
	// replayFlights hide the latency of a link: a trace is many small pieces.
	replayFlights = 4
	// fillQuiet is how long nobody must have waited before filling goes on.
	fillQuiet = 100 * time.Millisecond
)

// PrefetchStatus is what a lazy mount has prefetched.
type PrefetchStatus struct {
	Policy     Prefetch `json:"policy"`
	State      string   `json:"state"`            // "off", "waiting", "replaying", "idle", "filling", "done", "full", "stopped"
	Traced     int      `json:"traced_spans"`     // pieces that were read the last time
	Spans      int64    `json:"spans"`            // fetched before anybody asked, since it was mounted
	Background int64    `json:"background_spans"` // of them, while nobody asked for anything else
	Bytes      int64    `json:"bytes"`            // of the object, for all of them
	Failed     int64    `json:"failed"`           // tries in the background that failed
	Error      string   `json:"error,omitempty"`  // the last of them
}

// prefetching is the background of one server.
type prefetching struct {
	mu      sync.Mutex // guards the rest
	policy  Prefetch
	state   string
	traced  int
	failed  int64
	err     error
	restart context.CancelFunc // ends what goes on, so that another policy begins; nil: nothing goes on
}

// prefetchOf is the policy of a mount.
func (a *Agent) prefetchOf(m *Mount) Prefetch {
	if m.Prefetch != "" {
		return m.Prefetch
	}
	return a.cfg.Prefetch
}

// setPrefetch changes what is prefetched, also while it goes on.
func (s *server) setPrefetch(p Prefetch) {
	b := &s.background
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.policy == p {
		return
	}
	b.policy = p
	if p == PrefetchNone {
		s.reader.SetReadAhead(-1)
	} else {
		s.reader.SetReadAhead(0)
	}
	if b.restart != nil {
		b.restart()
	}
}

// enter notes what goes on.
func (b *prefetching) enter(state string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = state
}

// prefetch does what the policy says, until the server closes.
func (s *server) prefetch() {
	b := &s.background
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithCancel(s.ctx)
		b.mu.Lock()
		policy := b.policy
		b.restart = cancel
		b.mu.Unlock()
		s.prefetchAs(ctx, policy)
		<-ctx.Done() // another policy, or the end
		cancel()
	}
}

func (s *server) prefetchAs(ctx context.Context, policy Prefetch) {
	b := &s.background
	if policy == PrefetchNone || s.blob == nil {
		b.enter(prefetchOff)
		return
	}
	b.enter(prefetchWaiting)
	if s.passed != nil {
		select {
		case <-s.passed:
		case <-ctx.Done():
			return
		}
	}
	x := s.complete()
	if x == nil {
		b.enter(prefetchStopped) // the first pass has failed
		return
	}
	if trace := s.knownTrace(ctx, x); len(trace) > 0 {
		b.mu.Lock()
		b.state, b.traced = prefetchReplaying, len(trace)
		b.mu.Unlock()
		err := s.reader.Fetch(ctx, index.Background{Spans: trace, Flights: replayFlights, Bytes: replayBytes,
			Rate: s.a.cfg.FillRate, Failed: s.notPrefetched})
		if s.prefetched(ctx, err) {
			return
		}
	}
	if policy != PrefetchAll {
		b.enter(prefetchIdle)
		return
	}
	b.enter(prefetchFilling)
	err := s.reader.Fetch(ctx, index.Background{Quiet: fillQuiet, Rate: s.a.cfg.FillRate, Failed: s.notPrefetched})
	if !s.prefetched(ctx, err) {
		b.enter(prefetchDone)
	}
}

// prefetched looks at how a Fetch has ended, and says whether that is the end
// of all.
func (s *server) prefetched(ctx context.Context, err error) bool {
	switch {
	case err == nil:
		return false
	case ctx.Err() != nil:
	case errors.Is(err, index.ErrNoRoom):
		s.background.enter(prefetchFull)
	default:
		s.background.enter(prefetchStopped)
		s.a.log.Info("nothing more is fetched in the background: what is cached stays readable",
			zap.String("path", s.path), zap.String("why", errorText(err)))
	}
	return true
}

// notPrefetched counts a failure in the background, and gives up when no later
// try can do better.
func (s *server) notPrefetched(err error) (giveUp bool) {
	if s.ctx.Err() != nil {
		return true
	}
	b := &s.background
	b.mu.Lock()
	b.failed++
	b.err = err
	b.mu.Unlock()
	s.noteGone(err)
	return isGone(err)
}

// isGone says whether an object cannot be fetched any more, by this mount.
func isGone(err error) bool {
	for _, gone := range []error{objects.ErrDeleted, objects.ErrNotFound, objects.ErrExpired, objects.ErrChanged, objects.ErrCredentials} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// status is what is told of it.
func (s *server) prefetchStatus(r index.Stats) *PrefetchStatus {
	b := &s.background
	b.mu.Lock()
	defer b.mu.Unlock()
	st := &PrefetchStatus{Policy: b.policy, State: b.state, Traced: b.traced, Failed: b.failed,
		Spans: r.Ahead, Background: r.Spare, Bytes: r.Unasked}
	if b.err != nil {
		st.Error = errorText(b.err)
	}
	return st
}
