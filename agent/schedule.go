package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

// task is one path in the scheduler's care, and what is to be done about it.
type task struct {
	*item
	path  string
	mount *Mount // what is wanted; nil: it is to be taken down
	up    bool   // what is wanted is there
	todo  bool   // something is to be done, not before due
	due   time.Time
	stop  context.CancelCauseFunc // of the work in progress; nil: there is none
	stale bool                    // what is wanted changed while work was in progress
	again bool                    // it is a lazy mount that went away
	saw   bool                    // it was looked whether it is there although the outer mount failed
	pause *backoff.ExponentialBackOff
}

// outcome is how work on a task ended.
type outcome struct {
	t     *task
	mount *Mount // what was wanted when it began
	made  bool
	err   error
	flush string // it was no work but the flush of what is at this path
}

// scheduler decides what is done when. It belongs to one goroutine; the work
// is done in others, which report to done.
//
// In which order things are done is in startable.
type scheduler struct {
	a       *Agent
	once    bool // no second tries
	tasks   map[string]*task
	ups     []*task // those of new mounts, in the order of the spec
	downs   []*task // those of old ones, inner before outer; some may be gone
	done    chan outcome
	running map[*task]bool
	// flushes is how many mounts are being flushed: they are ready, and hold
	// up nothing but the end.
	flushes int
}

func (a *Agent) newScheduler(once bool) *scheduler {
	return &scheduler{a: a, once: once, tasks: map[string]*task{}, done: make(chan outcome), running: map[*task]bool{}}
}

// errSuperseded ends work on what is no longer wanted.
var errSuperseded = errors.New("the spec changed")

// errOuter: a mount cannot be made because the one around it is not there.
var errOuter = errors.New("the mount it lies inside of is not there")

// want makes a plan's steps the tasks. Steps that are what the task is doing
// or has done already change nothing; what has failed is tried again at once.
func (s *scheduler) want(steps []step) {
	now := time.Now()
	named := make(map[string]bool, len(steps))
	for _, st := range steps {
		named[st.path] = true
		t := s.tasks[st.path]
		switch {
		case t == nil:
			t = &task{item: s.a.newItem(st.path, st.mount, OriginSpec), path: st.path, pause: s.a.newPause()}
			s.tasks[st.path] = t
			s.a.register(t.item)
			t.aim(st.mount, now)
		case !sameMount(t.mount, st.mount), t.up && st.action != actionKeep:
			// Another wish; or the receipt is not what it was, because somebody
			// took the mount down by hand.
			t.aim(st.mount, now)
		default:
			t.mount = st.mount // the same mount may stand at another line now
			if t.todo && t.stop == nil {
				t.retryNow(now)
			}
		}
		t.show(st.mount)
	}
	for path, t := range s.tasks {
		if !named[path] && t.mount != nil {
			t.aim(nil, now)
			t.show(nil)
		}
	}
	s.sort(steps)
}

// sort puts the tasks in order.
func (s *scheduler) sort(steps []step) {
	s.ups, s.downs = nil, nil
	for _, st := range steps {
		if t := s.tasks[st.path]; t.mount != nil {
			s.ups = append(s.ups, t)
		}
	}
	for _, t := range s.tasks {
		if t.mount == nil {
			s.downs = append(s.downs, t)
		}
	}
	slices.SortFunc(s.downs, func(a, b *task) int { return strings.Compare(b.path, a.path) })
}

// sameMount says whether two wishes for one path come to the same.
func sameMount(a, b *Mount) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.wanted(nil, "") == b.wanted(nil, "") && cmp.Or(a.OnConflict, "error") == cmp.Or(b.OnConflict, "error") &&
		a.Prefetch == b.Prefetch
}

// aim gives the task another end.
func (t *task) aim(m *Mount, now time.Time) {
	t.mount, t.up, t.todo = m, false, true
	t.retryNow(now)
	if t.stop != nil {
		t.stale = true
		t.stop(errSuperseded)
	}
}

func (t *task) retryNow(now time.Time) {
	t.due = now
	t.pause.Reset()
}

// show brings the status in line with the task's mount.
func (t *task) show(m *Mount) {
	t.tell(func(st *ItemStatus) {
		st.Origin = OriginSpec
		if m == nil {
			st.Required = false // nobody waits for what goes away
			return
		}
		t.describe(m)
	})
}

// retryAll makes every task that waits for its next try due.
func (s *scheduler) retryAll() {
	now := time.Now()
	for _, t := range s.tasks {
		if t.todo && t.stop == nil {
			t.retryNow(now)
		}
	}
}

// start begins all work that can begin now.
func (s *scheduler) start(ctx context.Context) {
	room := s.a.cfg.Parallel - len(s.running)
	if ctx.Err() != nil || room <= 0 {
		return
	}
	for _, t := range s.startable(time.Now(), room) {
		if len(s.running) >= s.a.cfg.Parallel {
			return
		}
		if s.relatedRunning(t.path) {
			continue // to one that was started just now
		}
		s.run(ctx, t)
	}
}

func (s *scheduler) run(ctx context.Context, t *task) {
	ctx, stop := context.WithCancelCause(ctx)
	t.stop, t.stale = stop, false
	s.running[t] = true
	m := t.mount
	how := bringHow{origin: OriginSpec, serve: !s.once, once: s.once, again: t.again}
	t.again = false
	if outer := s.waitsFor(t, nil); m != nil && outer != "" {
		how.outer, t.saw = outer, true
	}
	go func() {
		made, err := s.a.work(ctx, t.item, m, how)
		stop(nil)
		s.done <- outcome{t: t, mount: m, made: made, err: err}
	}()
}

// work brings one mount up, or takes it down if m is nil. A panic is an error
// like any other: the bytes that caused it were made by strangers, and the
// other mounts have nothing to do with them. (What the panic left staged is
// known by the receipt, and swept at the next try.)
func (a *Agent) work(ctx context.Context, it *item, m *Mount, how bringHow) (made bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("panic", zap.String("path", it.status.Path), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	if m != nil {
		return a.bringUp(ctx, m, how, it)
	}
	path := it.status.Path // never changes
	it.enter(StateRemoving, "")
	err = a.takeDown(ctx, path, UnmountUnmodified, func() { it.enter(StateRemoving, "another process works on it") })
	var kept *KeptError
	switch {
	case errors.Is(err, ErrNotMounted):
		return false, nil
	case errors.As(err, &kept):
		a.log.Warn("mount left the spec, but its files are kept", zap.String("path", path), zap.String("why", kept.Why))
		return false, a.takeDown(ctx, path, UnmountKeep, func() {})
	}
	return false, err
}

// errPanic: a fault in this program.
var errPanic = errors.New("internal error")

// flush brings what is at a path to disk, in the background.
func (s *scheduler) flush(path string) {
	s.flushes++
	go func() {
		// Not ended by a context: until it is done, the mount is one that the
		// next boot will make again.
		err := s.a.flush(context.Background(), path)
		s.done <- outcome{flush: path, err: err}
	}()
}

// flushed takes in how a flush ended.
func (s *scheduler) flushed(o outcome) {
	s.flushes--
	t := s.tasks[o.flush]
	if o.err != nil {
		s.a.log.Error("not on disk", zap.String("path", o.flush), zap.String("error", errorText(o.err)))
	}
	switch {
	case t == nil || t.stop != nil || !t.up:
	case o.err != nil:
		t.todo = true
		s.failed(t, o.err, time.Now())
	default:
		t.tell(func(st *ItemStatus) { st.Unflushed = false })
	}
}

// busy says whether anything goes on that must be waited for.
func (s *scheduler) busy() bool { return len(s.running) > 0 || s.flushes > 0 }

// finished takes in how work ended.
func (s *scheduler) finished(ctx context.Context, o outcome) {
	if o.flush != "" {
		s.flushed(o)
		return
	}
	t := o.t
	t.stop = nil
	delete(s.running, t)
	now := time.Now()
	for _, in := range s.tasks {
		if inside(in.path, t.path) {
			in.saw = false
		}
	}
	switch {
	case t.stale: // whatever came of it, something else is wanted now
		t.todo, t.due = true, now
		t.enter(StatePending, "")
	case o.err == nil && o.mount == nil:
		delete(s.tasks, t.path)
		s.a.forget(t.item)
		s.a.log.Info("mount gone", zap.String("path", t.path))
	case errors.Is(o.err, errByHand):
		t.up, t.todo = true, false // until the spec is read again
	case o.err == nil:
		t.up, t.todo = true, false
		t.pause.Reset()
		if s.logReady(t, o) {
			s.flush(t.path)
		}
		if o.made {
			// What was inside is gone with the old tree: look again.
			for _, in := range s.tasks {
				if inside(in.path, t.path) && in.mount != nil && in.stop == nil {
					in.up, in.todo, in.due = false, true, now
				}
			}
		}
	case ctx.Err() != nil:
		t.enter(StatePending, "stopped")
	case errors.Is(o.err, errOuter):
		t.waits(s.waitsFor(t, nil))
	default:
		s.failed(t, o.err, now)
	}
}

// errByHand: somebody unmounted a lazy mount for good.
var errByHand = errors.New("it was unmounted by hand")

// lost makes a lazy mount again that went away by itself, or whose first pass
// failed.
func (s *scheduler) lost(path string) {
	t := s.tasks[path]
	if t == nil || t.mount == nil || !t.up || t.stop != nil {
		return // it is being seen to already
	}
	if sv := s.a.server(path); sv != nil && sv.failed() != nil {
		// It is there for those who want to know why: the error is in every
		// answer. A new one is made after a pause.
		t.todo, t.again = true, true
		s.failed(t, sv.failed(), time.Now())
		return
	}
	t.up, t.todo, t.again, t.due = false, true, true, time.Now()
}

func (s *scheduler) failed(t *task, err error, now time.Time) {
	t.up = false
	fields := []zap.Field{zap.String("path", t.path), zap.String("error", errorText(err))}
	if t.mount != nil {
		fields = append(fields, zap.String("object_id", t.mount.ObjectID), zap.String("source", t.mount.Source()))
	}
	if hint := ErrorHint(err); hint != "" {
		fields = append(fields, zap.String("hint", hint))
	}
	if s.once {
		t.todo = false
		t.item.failed(err, time.Time{})
	} else {
		t.due = now.Add(s.a.pauseAfter(err, t.pause))
		t.item.failed(err, t.due)
		fields = append(fields, zap.Time("next_try", t.due))
	}
	s.a.log.Error("mount failed", fields...)
}

// logReady logs a mount that is there, and says whether it is still to be
// flushed.
func (s *scheduler) logReady(t *task, o outcome) (unflushed bool) {
	s.a.mu.Lock()
	st := t.status
	s.a.mu.Unlock()
	s.a.log.Info("mount ready", zap.String("path", t.path), zap.String("object_id", st.ObjectID),
		zap.Bool("kept", !o.made), zap.Int64("bytes", st.Bytes), zap.Int64("entries", st.Entries))
	return st.Unflushed
}

// nextDue is when the next waiting task is due, if any waits.
func (s *scheduler) nextDue(now time.Time) (next time.Time, ok bool) {
	for _, t := range s.tasks {
		if t.todo && t.stop == nil && t.due.After(now) && (!ok || t.due.Before(next)) {
			next, ok = t.due, true
		}
	}
	return next, ok
}

// giveUp ends an Once: what still waits for another mount has failed with it.
func (s *scheduler) giveUp() {
	for _, t := range s.tasks {
		if t.todo && t.mount != nil && t.stop == nil {
			s.failed(t, fmt.Errorf("%w: %s", errOuter, s.waitsFor(t, nil)), time.Now())
		}
	}
}
