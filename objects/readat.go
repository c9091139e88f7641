package objects

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

// ReadAtContext reads len(p) bytes at off, like io.ReaderAt: fewer bytes come
// with an error, which is io.EOF at the end of the object. It costs one round
// trip, also as the first reading of a lazy Reader.
//
// When the answer stands still for much longer than others do, the rest is
// asked for once more on another connection. Whichever has it first wins, and
// the other is ended.
func (r *Reader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read object: negative offset")
	}
	size := r.Size()
	if off >= size {
		return 0, io.EOF
	}
	var err error
	if int64(len(p)) > size-off {
		p, err = p[:size-off], io.EOF
	}
	n := copy(p, r.firstFrom(off))
	if n == len(p) {
		return n, err
	}
	leave, perr := r.net.gate.pass(ctx, r.lease.where(), true)
	if perr != nil {
		return n, r.named("read", perr)
	}
	defer leave()
	m, rerr := r.race(ctx, p[n:], off+int64(n))
	if rerr != nil {
		return n + m, r.named("read", rerr)
	}
	return n + m, err
}

const (
	hedgeUnknown = time.Second            // before there is experience
	hedgeLeast   = 100 * time.Millisecond // a second request sooner costs more than it gains
	hedgeMost    = 10 * time.Second
	hedgeSamples = 128
	hedgeEnough  = 16 // samples that are an experience
	// Second requests are for the odd stall. Where everything is slow they
	// would make it worse: one in hedgeRation reads, after hedgeSpare free ones.
	hedgeRation = 10
	hedgeSpare  = 3
)

// experience is how long the reads of a Reader had to wait for bytes.
type experience struct {
	mu      sync.Mutex
	fixed   time.Duration // from the options; 0: by experience
	waits   []time.Duration
	next    int
	reads   int
	seconds int
}

// add notes the longest wait of one read.
func (e *experience) add(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads++
	if len(e.waits) < hedgeSamples {
		e.waits = append(e.waits, d)
		return
	}
	e.waits[e.next%hedgeSamples] = d
	e.next++
}

// limit is how long to wait before asking again: twice what 99 of 100 reads
// had to.
func (e *experience) limit() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fixed != 0 {
		return e.fixed
	}
	if len(e.waits) < hedgeEnough {
		return hedgeUnknown
	}
	sorted := slices.Sorted(slices.Values(e.waits))
	return min(max(2*sorted[len(sorted)*99/100], hedgeLeast), hedgeMost)
}

// allow says whether one more second request is within the ration.
func (e *experience) allow() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seconds >= hedgeSpare+e.reads/hedgeRation {
		return false
	}
	e.seconds++
	return true
}

var errOvertaken = errors.New("the second request was faster")

// race is one read by at most two requests at a time: the first, in the
// caller's goroutine, into p; and a second one for the rest, into memory of
// its own, that the timer starts.
type race struct {
	r      *Reader
	ctx    context.Context // of the caller
	end    int64
	limit  time.Duration
	giveUp context.CancelCauseFunc // ends the first request

	mu      sync.Mutex // guards what follows
	off     int64      // of the next byte that the first request owes
	armed   time.Time  // since when it stands still; zero: it waits for nothing
	longest time.Duration
	timer   *time.Timer
	over    bool
	recall  context.CancelFunc // ends the second request; nil: there is none
	second  chan struct{}      // closed when it has ended
	from    int64              // where it began
	won     []byte             // what it brought; nil: it has not won
}

// race reads bytes [off, off+len(p)).
func (r *Reader) race(ctx context.Context, p []byte, off int64) (int, error) {
	c := &race{r: r, ctx: ctx, off: off, end: off + int64(len(p)), limit: r.waits.limit()}
	ctx, c.giveUp = context.WithCancelCause(ctx)
	defer c.giveUp(nil)
	pace := r.pacer()
	count := pace.retried
	pace.retried = func() { c.disarm(); count() }
	f := &feed{r: r, ctx: ctx, off: off, end: c.end, pace: pace, sent: c.arm}
	defer f.close()
	n, err := 0, error(nil)
	for n < len(p) && err == nil {
		var m int
		m, err = f.read(p[n:])
		n += m
		c.progress(f.off, n == len(p) || err != nil)
	}
	if won := c.finish(); won != nil && err != nil {
		copy(p[c.from-off:], won)
		n, err = len(p), nil
	}
	return n, err
}

// arm begins to wait for an answer, or for more of it.
func (c *race) arm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Now()
	switch {
	case c.limit < 0 || c.over || c.second != nil:
	case c.timer == nil:
		c.timer = time.AfterFunc(c.limit, c.hedge)
	default:
		c.timer.Reset(c.limit)
	}
}

// disarm: nothing is on the wire; a second request would help nobody.
func (c *race) disarm() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.armed = time.Time{}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// progress is told of bytes up to off, or of the end of the first request.
func (c *race) progress(off int64, end bool) {
	c.mu.Lock()
	c.off = off
	if !c.armed.IsZero() {
		c.longest = max(c.longest, time.Since(c.armed))
	}
	c.mu.Unlock()
	if end {
		c.disarm()
	} else {
		c.arm()
	}
}

// hedge makes the second request. It runs in the timer's goroutine.
func (c *race) hedge() {
	c.mu.Lock()
	if c.over || c.second != nil || c.armed.IsZero() || !c.r.waits.allow() {
		c.mu.Unlock()
		return
	}
	ctx, cancel := context.WithCancel(c.ctx)
	c.recall, c.second, c.from = cancel, make(chan struct{}), c.off
	f := &feed{r: c.r, ctx: ctx, off: c.off, end: c.end, pace: c.r.pacer()}
	c.mu.Unlock()
	defer close(c.second)
	defer f.close()
	c.r.stats.hedges.Add(1)
	leave, err := c.r.net.gate.pass(ctx, c.r.lease.where(), true)
	if err != nil {
		return
	}
	defer leave()
	p := make([]byte, f.end-f.off)
	for n := 0; n < len(p); {
		m, err := f.read(p[n:])
		if err != nil {
			return // the first goes on, with the whole of the retry law
		}
		n += m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.won = p
		c.giveUp(errOvertaken)
	}
}

// finish ends the second request, if there is one, and waits for its end. It
// gives what that has brought.
func (c *race) finish() []byte {
	c.mu.Lock()
	c.over = true
	won, second := c.won, c.second
	if c.recall != nil {
		c.recall()
	}
	c.r.waits.add(c.longest)
	c.mu.Unlock()
	if second != nil {
		<-second
	}
	return won
}
