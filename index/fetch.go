package index

import (
	"context"
	"errors"
	"time"
)

// ErrNoRoom means that Spans are full of what somebody asked for.
var ErrNoRoom = errors.New("no room is left in the cache")

// errNotKept: Spans took a span and have it not; the disk fails, say.
var errNotKept = errors.New("the cache does not keep what it is given")

// Background says what [Reader.Fetch] fetches, and when.
type Background struct {
	// Spans are the numbers of the spans to fetch, in this order. Nil: all.
	Spans []int
	// Quiet is how long nothing must have been asked for before a run of spans
	// begins. 0: it is enough that nobody waits at that moment.
	Quiet time.Duration
	// Flights is how many runs are under way at a time. 0: one, of all
	// Readers with the same Traffic.
	Flights int
	// Bytes bounds what is fetched, in bytes of the object; 0: no bound.
	Bytes int64
	// Rate bounds it in bytes of the object per second; 0: no bound.
	Rate int64
	// Failed is told of each failure, and says whether to give up: then the
	// failure is Fetch's, too. Nil never gives up.
	Failed func(error) (giveUp bool)
}

// spareSlack is room beyond a span's bytes: a cache counts whole blocks.
const spareSlack = 128 << 10

// Pauses after failures: the first, and the longest.
const (
	firstPause   = time.Second
	longestPause = 5 * time.Minute
)

// fetching is one call of Fetch.
type fetching struct {
	r *Reader
	Background
	at, n int   // place in Spans of the next one, and how many there are
	left  int64 // of Bytes
}

// Fetch fetches spans in the background until all of them have been in Spans
// or Bytes is used up (nil), no room is left for them (ErrNoRoom), or ctx
// ends. After a failure it tries again, later and later; but a span that the
// object has damaged is left to whoever asks for it. Without Spans there is
// nothing to do. It waits for the end of the first pass.
func (r *Reader) Fetch(ctx context.Context, b Background) error {
	if r.spans == nil {
		return nil
	}
	if _, err := r.t.await(ctx, 1<<62); err != nil {
		return err
	}
	f := &fetching{r: r, Background: b, n: len(b.Spans), left: b.Bytes}
	if b.Spans == nil {
		f.n = r.t.NumSpans()
	}
	if b.Bytes <= 0 {
		f.left = 1 << 62
	}
	var pause time.Duration
	for {
		before := f.at
		err := f.all(ctx)
		switch {
		case err == nil, errors.Is(err, ErrNoRoom), errors.Is(err, errReaderClosed):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case b.Failed != nil && b.Failed(err):
			return err
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrDamaged):
			f.at++
			continue
		}
		if f.at > before {
			pause = 0
		}
		pause = min(max(2*pause, firstPause), longestPause)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// all fetches from place at on. With an error, at is the place that it is
// about.
func (f *fetching) all(ctx context.Context) error {
	var under []*spareRun
	defer func() {
		for _, u := range under { // after an error: they go on if somebody reads them
			u.leave()
		}
	}()
	for {
		var next *spareRun
		if len(under) < max(f.Flights, 1) {
			var err error
			if next, err = f.begin(ctx); err != nil {
				return err
			}
		}
		if next != nil {
			under = append(under, next)
			continue
		}
		if len(under) == 0 {
			return nil
		}
		u := under[0]
		under = under[1:]
		if place, err := u.wait(ctx); err != nil {
			f.at = place
			return err
		}
	}
}

// spareRun is a run in the background.
type spareRun struct {
	f       *fetching
	flights []*flight
	run     *run
	place   int   // of the first span
	size    int64 // bytes of the object
	begun   time.Time
	done    func() // gives the turn back
}

// begin begins the next run, when it may. Nil: there is none, or not now.
func (f *fetching) begin(ctx context.Context) (u *spareRun, err error) {
	done := func() {}
	if f.Flights < 1 {
		if done, err = f.r.traffic.turn(ctx); err != nil {
			return nil, err
		}
	}
	if err = f.r.traffic.quiet(ctx, f.Quiet); err == nil {
		u, err = f.collect()
	}
	if u == nil {
		done()
		return nil, err
	}
	u.begun, u.done = time.Now(), done
	u.run = f.r.launch(u.flights, true)
	return u, nil
}

// collect begins flights for neighbouring spans that are nowhere yet.
func (f *fetching) collect() (*spareRun, error) {
	r, u := f.r, &spareRun{f: f}
	room := int64(1) << 62
	if s, ok := r.spans.(SpareSpans); ok {
		room = s.Room()
	}
	var lo int64
	for f.at < f.n && len(u.flights) < runSpans {
		i := f.at
		if f.Spans != nil {
			i = f.Spans[f.at]
		}
		sp, err := r.t.spanAt(i)
		first := len(u.flights) == 0
		switch {
		case err != nil && first:
			return nil, err
		case err == nil && first && (sp.size == 0 || r.has(i)):
			f.at++
			continue
		case err == nil && first:
			lo = sp.lo
			if room < int64(sp.size)+spareSlack {
				return nil, ErrNoRoom
			}
		}
		if err != nil || !first && (sp.size == 0 || r.has(i) || i != u.flights[len(u.flights)-1].sp.i+1 || sp.lo < lo || sp.hi-lo > runBytes) ||
			room < int64(sp.size)+spareSlack || sp.hi-lo > f.left {
			break
		}
		fl, closed := r.beginSpare(sp, len(u.flights))
		if closed && first {
			return nil, errReaderClosed
		}
		if fl == nil && first {
			continue // somebody has just asked for it
		}
		if fl == nil {
			break
		}
		if first {
			u.place = f.at
		}
		room -= int64(sp.size)
		u.size = sp.hi - lo
		u.flights = append(u.flights, fl)
		f.at++
	}
	if len(u.flights) == 0 {
		return nil, nil
	}
	f.left -= u.size
	return u, nil
}

// has says whether a span is there, or somebody sees to it.
func (r *Reader) has(i int) bool {
	if r.spans.HasSpan(i) {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.flights[i] != nil
}

// beginSpare begins a flight for a span that nobody has asked for, behind n
// others of its run. Nil: there is one, or no memory for another of the run.
func (r *Reader) beginSpare(sp span, n int) (f *flight, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, true
	}
	if r.flights[sp.i] != nil || n > 0 && !r.room(n+1) {
		return nil, false
	}
	return r.begin(sp, true), false
}

// wait waits until a run is in Spans. With an error it gives the place that
// this is about.
func (u *spareRun) wait(ctx context.Context) (place int, err error) {
	defer u.leave()
	select {
	case <-u.run.over:
	case <-ctx.Done():
		return u.place, ctx.Err()
	}
	r := u.f.r
	for i, f := range u.flights {
		if f.err != nil {
			return u.place + i, f.err
		}
		r.stats.spare.Add(1)
	}
	for i, f := range u.flights {
		if r.spans.HasSpan(f.sp.i) {
			continue
		}
		if s, ok := r.spans.(SpareSpans); ok && s.Room() < int64(f.sp.size)+spareSlack {
			return u.place + i, ErrNoRoom
		}
		return u.place + i, errNotKept
	}
	if u.f.Rate > 0 {
		// The turn is kept meanwhile: the rate is that of all who take turns.
		due := time.Duration(float64(u.size) / float64(u.f.Rate) * float64(time.Second))
		err = sleep(ctx, due-time.Since(u.begun))
	}
	return u.place, err
}

// leave is for a run that nobody waits for any more.
func (u *spareRun) leave() {
	for _, f := range u.flights {
		u.f.r.leave(f)
	}
	u.done()
}
