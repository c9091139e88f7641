package objects

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// minPart is the least that is worth a request of its own, and maxPart
	// the most, so that a worker that is not needed any more soon ends.
	minPart = 1 << 20
	maxPart = 16 << 20
	// partTime is how long a part should take, once the speed is known: long
	// enough that the wait for its answer does not show, not so long that a
	// slow connection holds up what others have brought already.
	partTime = time.Second
	// lameAfter, lameFactor and lameMost say when a connection is given up
	// because the others are so much faster, and how often in one part.
	lameAfter  = time.Second
	lameFactor = 4
	lameMost   = 3
)

// sink is where a crew's bytes go: a window, or a file.
type sink interface {
	begin(p *part)                                     // p is about to be fetched; called in order
	room(ctx context.Context, p *part) ([]byte, error) // where the next bytes of p shall go
	put(p *part, n int) error                          // n bytes of p are there
	fail(p *part, err error)                           // p ends here
	staff(workers, most int)                           // so many workers there should be now
	awaits(p *part) bool                               // nothing can be handed on before p brings more
	starved() time.Duration                            // how long nobody had anything to do but wait for bytes
}

// crew fetches spans of a Reader's object by several requests at a time. A
// worker takes the next part, fetches it with a feed of its own (so each part
// is resumed, renewed and held to the pinned identity as everything is), and
// takes another, until there are none or the tuner wants fewer workers.
type crew struct {
	r    *Reader
	ctx  context.Context
	stop context.CancelFunc
	to   sink
	wg   sync.WaitGroup

	// share is how much may be fetched ahead of the first byte that is
	// missing; 0: any amount.
	share func() int64

	bytes, busy atomic.Int64 // the meters; busy in nanoseconds

	mu      sync.Mutex // guards what follows
	tuner   tuner
	left    spans // not handed out yet, ascending
	missing int64 // bytes in left
	workers int
	fresh   int  // workers that have not asked for a part yet
	warm    int  // workers that have received something
	over    bool // a part failed: no more are begun
}

// fetch begins to fetch the gaps into to.
// close must be called.
func (r *Reader) fetch(ctx context.Context, to sink, share func() int64, gaps ...span) *crew {
	c := &crew{r: r, to: to, left: slices.Clone(gaps), share: share, tuner: newTuner(r.net.width)}
	c.ctx, c.stop = context.WithCancel(ctx)
	for _, s := range gaps {
		c.missing += s[1] - s[0]
	}
	c.mu.Lock()
	c.hire()
	c.mu.Unlock()
	return c
}

// close ends all workers and waits for them.
func (c *crew) close() {
	c.stop()
	c.wg.Wait()
}

// hire starts the workers that are wanted and of use. The caller holds mu.
func (c *crew) hire() {
	c.to.staff(c.tuner.n, c.tuner.most)
	for c.workers < c.tuner.n && int64(c.fresh)*minPart < c.missing && !c.over && c.ctx.Err() == nil {
		c.workers++
		c.fresh++
		c.wg.Go(c.work)
	}
}

// work is a worker's life. It passes the gate before it takes a part, never
// after: see gate.
func (c *crew) work() {
	w := &worker{c: c}
	for first := true; ; first = false {
		leave, err := c.r.net.gate.pass(c.ctx, c.r.lease.where(), false)
		if err != nil {
			leave = func() {} // take sees that ctx is over
		}
		p := c.take(w, first)
		if p == nil {
			leave()
			return
		}
		err = w.fetch(p)
		leave()
		if err != nil {
			c.mu.Lock()
			c.over = true
			c.mu.Unlock()
			c.to.fail(p, err)
		}
	}
}

// take hands out the next part; nil: the worker is not needed any more, and
// counts no longer.
func (c *crew) take(w *worker, first bool) *part {
	grain := c.grain()
	c.mu.Lock()
	defer c.mu.Unlock()
	if first {
		c.fresh--
	}
	if c.over || len(c.left) == 0 || c.workers > c.tuner.n || c.ctx.Err() != nil {
		c.workers--
		if w.warm {
			c.warm--
		}
		return nil
	}
	s := &c.left[0]
	// Who has nothing yet and, of the others, half share what is left, so that
	// the last parts end at about the same time.
	n := min(grain, max(minPart, c.missing/int64(1+c.fresh+(c.workers-c.fresh)/2)))
	if rest := s[1] - s[0] - n; rest < minPart/2 {
		n += rest
	}
	p := &part{off: s[0], end: s[0] + n}
	if s[0] += n; s[0] == s[1] {
		c.left = c.left[1:]
	}
	c.missing -= n
	c.to.begin(p)
	return p
}

// grain is how large a part should be: what one worker brings in partTime,
// and such that all possible workers have room for one.
func (c *crew) grain() int64 {
	n := int64(maxPart)
	if c.share != nil {
		n = min(n, c.share()/int64(c.tuner.most))
	}
	if busy := time.Duration(c.busy.Load()); busy > epochMin {
		n = min(n, int64(float64(c.bytes.Load())/busy.Seconds()*partTime.Seconds()))
	} else {
		n = min(n, 4*minPart)
	}
	return max(n/chunkSize*chunkSize, minPart)
}

// tick lets the tuner decide.
func (c *crew) tick(now time.Time) {
	starved := c.to.starved()
	c.mu.Lock()
	defer c.mu.Unlock()
	settled := c.workers == c.tuner.n && c.warm == c.workers
	c.tuner.tick(reading{now, c.bytes.Load(), time.Duration(c.busy.Load()), starved}, settled)
	c.hire()
}

// slowDown is what a feed calls when the server asks for fewer requests.
func (c *crew) slowDown() {
	c.mu.Lock()
	c.tuner.slowDown(time.Now())
	c.mu.Unlock()
}

// worker is what one of them remembers.
type worker struct {
	c      *crew
	warm   bool
	ticked time.Time
	bytes  int64         // of the present answer
	busy   time.Duration // receiving it
	given  int           // answers for the present part that were given up as lame
}

// fetch brings one part.
func (w *worker) fetch(p *part) error {
	c := w.c
	w.given = 0
	f := &feed{r: c.r, ctx: c.ctx, off: p.off, end: p.end, pace: c.r.pacer(), slow: c.slowDown}
	defer f.close()
	for f.off < p.end {
		buf, err := c.to.room(c.ctx, p)
		if err != nil {
			return err
		}
		begin := time.Now()
		fresh := f.body == nil // this read waits for an answer first
		n, err := f.read(buf)
		if err != nil {
			return err
		}
		if err := c.to.put(p, n); err != nil {
			return err
		}
		now := time.Now()
		if fresh {
			w.bytes, w.busy = 0, 0
		} else {
			w.bytes += int64(n)
			w.busy += now.Sub(begin)
			c.bytes.Add(int64(n))
			c.busy.Add(int64(now.Sub(begin)))
		}
		w.tick(now)
		if f.body != nil && w.lame(p) {
			w.given++
			f.close() // the next read asks for the rest on another connection
			c.r.stats.retries.Add(1)
		}
	}
	return nil
}

// tick counts the worker in with its first bytes, and looks at the tuner
// every few milliseconds.
func (w *worker) tick(now time.Time) {
	if !w.warm {
		w.warm = true
		w.c.mu.Lock()
		w.c.warm++
		w.c.mu.Unlock()
	}
	if now.Sub(w.ticked) >= epochMin/8 {
		w.ticked = now
		w.c.tick(now)
	}
}

// lame says whether everybody waits for p while its connection is one of
// those that are stuck in a bad place of the network: much slower than the
// others are.
func (w *worker) lame(p *part) bool {
	c := w.c
	if w.busy < lameAfter || w.given == lameMost {
		return false
	}
	others := float64(c.bytes.Load()-w.bytes) / (time.Duration(c.busy.Load()) - w.busy).Seconds()
	if !(float64(w.bytes)/w.busy.Seconds()*lameFactor < others) { // not a number, when it is the only one
		return false
	}
	c.mu.Lock()
	last := len(c.left) == 0
	c.mu.Unlock()
	return last || c.to.awaits(p)
}
