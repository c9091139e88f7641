package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/dustin/go-humanize"
	"go.uber.org/zap"
)

// Intervals of what is said to the service manager.
const (
	extendEvery = 10 * time.Second // while bytes move, more time is asked for this often
	extendBy    = 2 * time.Minute
	statusEvery = 2 * time.Second
)

// Reload makes Run read the spec now, and try at once whatever has failed. It
// is what SIGHUP should do. Without a Run it has no effect.
func (a *Agent) Reload() {
	select {
	case a.reload <- struct{}{}:
	default: // one is coming already
	}
}

// daemon is what Run keeps: everything in it belongs to Run's goroutine.
type daemon struct {
	a      *Agent
	s      *scheduler
	digest [sha256.Size]byte // of the spec files that were read last
	read   bool              // there was a spec, right or wrong
	ready  bool              // READY=1 was said
	line   string            // the last STATUS line
	moved  int64             // a.moved at the last look
}

// Run is the daemon: it makes the machine match the spec, and keeps it so
// while the spec changes, until ctx ends. Then it stops what it is doing,
// clears away what is half done, and returns nil. What was extracted stays; the
// lazy mounts that it serves are taken down, and come back at the next start.
//
// It returns an error when it cannot begin: another agent runs with the same
// directories, or they cannot be written. A spec that is wrong or missing is
// no such error; it is told by Status.
func (a *Agent) Run(ctx context.Context) error {
	ctl, err := a.listen()
	if err != nil {
		return err
	}
	defer ctl.close()
	a.tidy()

	watching, stopWatching := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	w := &specWatch{path: a.cfg.SpecPath, debounce: a.cfg.Debounce, changed: changed, log: a.log}
	watchDone := w.start(watching)
	defer func() { stopWatching(); <-watchDone }()

	a.log.Info("agent started", zap.String("version", a.cfg.Version), zap.String("spec", a.cfg.SpecPath))
	d := &daemon{a: a, s: a.newScheduler(false)}
	d.readSpec(false)
	for _, path := range a.unflushed() {
		d.s.flush(path) // of a process that died, or has not come to it yet
	}
	ctl.answer()
	d.loop(ctx, changed)

	a.note(a.cfg.Notifier.Stopping())
	a.log.Info("agent stopping", zap.Int("running", len(d.s.running)))
	d.drain(ctx)
	a.stopServing()
	return nil
}

func (d *daemon) loop(ctx context.Context, changed <-chan struct{}) {
	a := d.a
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	var alive <-chan time.Time
	if every := a.cfg.Notifier.WatchdogInterval(); every > 0 {
		// From this loop, so that a loop that hangs is noticed.
		t := time.NewTicker(every / 2)
		defer t.Stop()
		alive = t.C
	}
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		d.s.start(ctx)
		d.tellManager()
		now := time.Now()
		if next, ok := d.s.nextDue(now); ok {
			retry.Reset(next.Sub(now))
		} else {
			retry.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case o := <-d.s.done:
			d.s.finished(ctx, o)
		case <-changed:
			d.readSpec(false)
		case <-a.reload:
			if d.ready {
				a.note(a.cfg.Notifier.Reloading())
			}
			d.readSpec(true)
			d.s.retryAll()
			if d.ready {
				a.note(a.cfg.Notifier.Ready())
			}
		case path := <-a.lost:
			d.s.lost(path)
		case <-retry.C:
		case <-alive:
			a.note(a.cfg.Notifier.Alive())
		case <-status.C:
		case <-extend.C:
			d.extend()
		}
	}
}

// drain waits for the work that ctx has ended.
func (d *daemon) drain(ctx context.Context) {
	extend := time.NewTicker(extendEvery)
	defer extend.Stop()
	d.a.note(d.a.cfg.Notifier.ExtendTimeout(extendBy))
	for d.s.busy() {
		select {
		case o := <-d.s.done:
			d.s.finished(ctx, o)
		case <-extend.C: // a large stage takes long to delete, and a large tree to flush
			d.a.note(d.a.cfg.Notifier.ExtendTimeout(extendBy))
		}
	}
}

// readSpec reads the spec and takes it over if it is another one than before
// and right. A wrong one changes nothing, and a missing one neither: files are
// never deleted because a file vanished.
func (d *daemon) readSpec(again bool) {
	a := d.a
	files, err := readSpecFiles(a.cfg.SpecPath)
	if err == nil {
		digest := specDigest(files)
		if d.read && digest == d.digest && !again {
			return
		}
		d.read, d.digest = true, digest
	} else {
		d.read = false
	}
	var spec *Spec
	if err == nil {
		spec, err = parseSpecFiles(files)
	}
	if err != nil {
		d.refuse(err)
		return
	}
	a.accept(spec)
	steps := plan(spec.Mounts, a.have(), a.cfg.SpecPath, a.store())
	count := map[action]int{}
	for _, st := range steps {
		count[st.action]++
	}
	a.log.Info("spec applied", zap.Strings("files", spec.Sources), zap.Int("mounts", len(spec.Mounts)),
		zap.Int("add", count[actionAdd]), zap.Int("keep", count[actionKeep]),
		zap.Int("change", count[actionChange]), zap.Int("remove", count[actionRemove]))
	d.s.want(steps)
}

// refuse notes a spec that is not taken over, once for each way of being wrong.
func (d *daemon) refuse(err error) {
	a := d.a
	var se *SpecError
	if !errors.As(err, &se) {
		se = &SpecError{File: a.cfg.SpecPath, Msg: err.Error(), err: err}
	}
	missing := errors.Is(err, fs.ErrNotExist)
	a.mu.Lock()
	a.settled = a.settled || missing
	same := a.specErr != nil && a.specErr.Error() == se.Error()
	a.specErr = se
	a.mu.Unlock()
	if same {
		return
	}
	fields := []zap.Field{zap.String("file", se.File), zap.Int("line", se.Line), zap.Int("column", se.Column),
		zap.String("error", se.Msg), zap.String("hint", se.Hint)}
	if missing {
		a.log.Warn("no spec: everything stays as it is", fields...)
	} else {
		a.log.Error("spec refused: everything stays as it is", fields...)
	}
}

// tellManager says READY once it is true, and what is going on.
func (d *daemon) tellManager() {
	a := d.a
	if d.ready && !a.cfg.Notifier.Enabled() {
		return
	}
	ready, line := d.summary()
	if line != d.line {
		d.line = line
		a.note(a.cfg.Notifier.Status(line))
	}
	if ready && !d.ready {
		d.ready = true
		a.log.Info("agent ready", zap.Duration("after", time.Since(a.started)))
		a.note(a.cfg.Notifier.Ready())
	}
}

// summary says whether every required mount is there, and all in one line.
func (d *daemon) summary() (ready bool, line string) {
	a := d.a
	a.mu.Lock()
	defer a.mu.Unlock()
	ready = a.settled
	var up, failed int
	var done, total int64
	for _, it := range a.items {
		s := &it.status
		switch s.State {
		case StateReady:
			up++
		case StateFailed:
			failed++
		case StateExtracting:
			done, total = done+s.Bytes, total+s.TotalBytes
		}
		ready = ready && (s.State == StateReady || !s.Required)
	}
	line = fmt.Sprintf("%d of %d mounts ready", up, len(a.items))
	if failed > 0 {
		line += fmt.Sprintf(", %d failed", failed)
	}
	if total > 0 {
		line += fmt.Sprintf(", %s of %s fetched", humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total)))
	}
	if a.specErr != nil {
		line += "; spec not applied: " + a.specErr.Error()
	}
	return ready, line
}

// extend asks for more time as long as something moves. When nothing does,
// the unit's TimeoutStartSec decides how long a start may take.
func (d *daemon) extend() {
	moved := d.a.moved.Load()
	if moved != d.moved && !d.ready {
		d.a.note(d.a.cfg.Notifier.ExtendTimeout(extendBy))
	}
	d.moved = moved
}

// note logs that the service manager could not be told something.
func (a *Agent) note(err error) {
	if err != nil {
		a.log.Warn("service manager not told", zap.String("error", err.Error()))
	}
}
