package inflate

import (
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Ahead decodes one gzip stream while goroutines that have nothing better to
// do decode parts of it ahead. In the input it looks like this:
//
//	     the reader                a guess                another one
//	═════════▶─────────────────────?═══════▶───────────────?══▶────────
//	  slabs, read up to here by a goroutine of its own ──────────────────▶|
//
// A DEFLATE stream does not say where its blocks begin. But what follows bit b
// of the input depends on b and on the 32 KiB of output before it, and on
// nothing else. So a helper guesses a place that looks like a block's header
// and decodes from there, with marks for the bytes that it cannot know yet
// (marked.go). When the reader comes to the end of a block and stands at the
// very bit at which a guess began, the guess was right: then its whole blocks
// are taken over, the marks get their bytes, and the reader goes on behind.
// Else the guess is thrown away. A wrong guess is never seen, a fault in the
// input is always found by the reader itself, and all checksums are made of
// what is handed out: the outcome is that of a Reader, to the last error. That
// is what pugz (Kerbiriou and Chikhi, 2019) and rapidgzip (Knespel and Brunst,
// 2023) do; here the reader never waits for a guess, it takes what is there.
//
// What is left to do for a Part, resolving and summing it, is for who gets it:
// so the only thing that the decoding goroutine does is to decode. Three may
// take part:
//
//   - one goroutine calls Fill, until a part is the Last;
//   - one goroutine calls Finish for the parts in their order. Release may be
//     called from any, after Finish;
//   - any goroutine calls Help while it has nothing else to do. Ahead has some
//     of its own where there are more than two processors.
//
// Memory is bounded by 4 MiB of input and 5 MiB for each of at most
// maxGuesses. With one processor nothing is read or decoded ahead.
type Ahead struct {
	r   *Reader
	src Source

	sizes aheadSizes

	// Fill's.
	met    *guess // the reader stands at its begin
	taking *guess // whose blocks come next ...
	at     int    // ... from here on
	tail   [historySize]byte
	taken  int64 // bytes of guesses, for tests

	// Finish's: the CRC-32 of the open member so far.
	crc uint32

	meet atomic.Int64 // the first bit at which a guess begins

	mu      sync.Mutex
	changed sync.Cond // with mu: slabs have come or gone, or a guess has
	quit    bool
	slabs   []*slab // read, from the reader's current one on
	spare   []*slab
	srcErr  error    // after the last slab
	hungry  bool     // the reader waits for a slab
	pos     int64    // byte of input at which the next slab of the reader begins
	guesses []*guess // in order of their places
	free    []*guess // their memory, to be used again
	made    int      // guesses there are, free ones among them
	most    int      // that there may be
	misses  int      // guesses since the last good one
	resume  int64    // byte of input before which no guess begins
	polite  politeness
	running sync.WaitGroup
}

const (
	// maxGuesses bounds memory. There is one more than processors, because one
	// is held by who writes the files.
	maxGuesses = 5
	// partBytes is what Fill hands out of a guess at once.
	partBytes = 256 << 10
)

var (
	guessPool = sync.Pool{New: func() any { return new(guess) }}
	slabPool  = sync.Pool{New: func() any { return new(slab) }}
)

// aheadSizes are constants, except in tests.
type aheadSizes struct {
	slab int           // bytes of a slab, at most slabBytes
	lead int64         // how far before the reader a guess begins, in bytes of input: its helper needs time
	unit int64         // how far it goes
	long time.Duration // a piece of work that took longer was disturbed
}

var usualSizes = aheadSizes{slab: slabBytes, lead: 2 << 20, unit: 512 << 10, long: 2 * time.Millisecond}

// NewAhead returns an Ahead of the gzip stream that src gives. If src has a
// method NextInto(buf []byte) ([]byte, error), which is Next but may read into
// buf, that spares a copy. src is read from a goroutine that Close ends.
func NewAhead(src Source) *Ahead {
	return newAhead(src, runtime.GOMAXPROCS(0), fastMarks, usualSizes)
}

func newAhead(src Source, processors int, guessing bool, sizes aheadSizes) *Ahead {
	a := &Ahead{src: src, sizes: sizes}
	a.changed.L = &a.mu
	a.meet.Store(math.MaxInt64)
	if processors == 1 {
		a.r = NewReader(src, Options{})
		a.r.late = true
		return a
	}
	a.r = NewReader((*slabSource)(a), Options{})
	a.r.late, a.r.ahead = true, a
	a.running.Go(a.read)
	if guessing {
		a.most = min(processors+1, maxGuesses)
		// One processor is the reader's, another one that of who calls Finish
		// and Help.
		for range min(processors, maxGuesses) - 2 {
			a.running.Go(a.helper)
		}
	}
	return a
}

// Close ends reading ahead and waits for it, so that nobody uses the source any
// more. It comes after the last Fill, Finish and Help.
func (a *Ahead) Close() error {
	a.mu.Lock()
	a.quit = true
	a.changed.Broadcast()
	a.mu.Unlock()
	a.running.Wait()
	for _, g := range append(a.guesses, a.free...) {
		g.slabs = g.slabs[:0]
		guessPool.Put(g)
	}
	for _, s := range a.spare {
		slabPool.Put(s)
	}
	a.guesses, a.free, a.spare = nil, nil, nil
	return a.r.Close()
}

// Fill decodes the next bytes of the stream, into buf as Reader.Fill does, or
// takes some that were decoded elsewhere (see Part.Elsewhere).
func (a *Ahead) Fill(buf []byte) *Part {
	for {
		if g := a.taking; g != nil {
			n := min(partBytes, g.out-a.at)
			p := &Part{ahead: a, data: g.mem[a.at : a.at+n : a.at+n], guess: g, at: a.at, old: n, fresh: n}
			if a.at += n; a.at == g.out {
				a.taking = nil
			}
			return p
		}
		p := a.fill(buf)
		if a.met != nil {
			a.adopt()
		}
		if len(p.data) > 0 || p.err != nil || p.end != nil {
			return p
		}
	}
}

// fill is Fill of what the reader decodes.
func (a *Ahead) fill(buf []byte) *Part {
	r := a.r
	r.begun, r.oldEnd = -1, nil
	data, err := r.Fill(buf)
	start := r.w - len(data)
	p := &Part{ahead: a, data: data, err: err, old: len(data), fresh: len(data), end: r.oldEnd}
	if r.begun >= 0 {
		p.old, p.fresh = 0, r.begun-start
	}
	if r.oldEnd != nil {
		p.old = r.oldEnd.at - start
	}
	return p
}

// meets says whether a guess has decoded what follows: then a.met is set. The
// reader stands behind a block.
func (a *Ahead) meets() bool {
	r := a.r
	bit := r.bitPos()
	if bit < a.meet.Load() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.announce()
	for i := 0; i < len(a.guesses); {
		g := a.guesses[i]
		if g.start > bit {
			i++
			continue
		}
		// A guess takes a whole window for granted.
		// (And the reader must not have read beyond its end: its bits are of the
		// slab before the current one, if that has just begun.)
		if g.start == bit && g.out > historySize && r.w-r.lo >= historySize && len(a.slabs) > 0 && g.bit/8 >= a.slabs[0].off {
			a.met = g
			a.taken += int64(g.out - historySize)
			g.held = g.out - historySize
			a.misses = 0
			a.drop(g)
			return true
		}
		a.miss()
		a.drop(g)
	}
	return false
}

// adopt makes the reader stand where the guess ends that was met.
func (a *Ahead) adopt() {
	g, r := a.met, a.r
	a.met, a.taking, a.at = nil, g, historySize
	off := r.offset() + int64(g.out-historySize)
	g.learn(r.out[r.w-historySize : r.w])
	g.last(a.tail[:])
	r.out, r.w, r.lo, r.mark = a.tail[:], historySize, 0, 0
	r.base = off - historySize

	a.mu.Lock()
	for len(a.slabs) > 1 && g.bit/8 >= a.slabs[0].end() {
		a.pass()
	}
	s := a.slabs[0]
	a.pos = s.end()
	a.mu.Unlock()
	r.in, r.inOff, r.ip = s.data, s.off, int(g.bit/8-s.off)
	r.bits, r.nb = 0, 0
	r.take(uint64(g.bit % 8)) // which the guess has read, too
}

// politeness keeps helpers off a processor that others use. A piece of work
// takes a tenth of a millisecond; if it took many times as long, somebody else
// ran meanwhile, and a helper that goes on takes time from the reader and from
// strangers. It pauses then, longer each time.
type politeness struct {
	until time.Time
	pause time.Duration
	good  time.Duration // worked undisturbed since
}

const (
	firstPause = 20 * time.Millisecond
	maxPause   = 320 * time.Millisecond
)

func (p *politeness) waits(now time.Time) bool { return now.Before(p.until) }

func (p *politeness) worked(from, to time.Time, long time.Duration) {
	took := to.Sub(from)
	if took > long {
		p.pause = min(max(2*p.pause, firstPause), maxPause)
		p.until, p.good = to.Add(p.pause), 0
	} else if p.good += took; p.good > firstPause/2 {
		p.pause, p.good = p.pause/2, 0
	}
}
