package inflate

import (
	"math"
	"time"
)

// Help does a piece of work ahead of the reader, a tenth of a millisecond or
// so. It returns false if there is nothing to do now, or if this processor
// seems to be wanted by others. Any number of goroutines may call it.
func (a *Ahead) Help() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.help()
}

// helper helps whenever there is work.
func (a *Ahead) helper() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.quit {
		if !a.help() {
			a.changed.Wait() // slabs come and go all the time
		}
	}
}

// help is Help; mu is held, but not while it works.
func (a *Ahead) help() bool {
	begin := time.Now()
	if a.most == 0 || a.quit || a.polite.waits(begin) {
		return false
	}
	g := a.pick()
	if g == nil {
		return false
	}
	g.busy = true
	a.mu.Unlock()
	st := g.work()
	end := time.Now()
	a.mu.Lock()
	g.busy = false
	a.polite.worked(begin, end, a.sizes.long)
	if g.gone {
		a.reuse(g)
		a.changed.Broadcast()
		return true
	}
	g.status = st
	if g.over && g.out == historySize {
		a.miss()
		a.drop(g)
	}
	a.announce()
	return true
}

// pick finds a guess to go on with, or makes one.
func (a *Ahead) pick() *guess {
	for _, g := range a.guesses {
		if !g.busy && !g.over {
			return g
		}
	}
	if len(a.free) == 0 && a.made == a.most {
		return nil
	}
	// A guess ends where the next one begins.
	from := max(a.pos+a.sizes.lead, a.resume)
	if n := len(a.guesses); n > 0 {
		from = max(from, a.guesses[n-1].limit/8)
	}
	// All that it will want must be there, with the block that goes on behind
	// its end; and all that it may want, so that it does not keep more.
	first, end := -1, 0
	want := from + a.sizes.unit + slabBytes
	for i, s := range a.slabs {
		if s.off <= from && from < s.end() {
			first = i
		}
		if end = i + 1; s.end() >= want {
			break
		}
	}
	if first < 0 || a.slabs[end-1].end() < want && a.srcErr == nil {
		return nil
	}
	g := a.newGuess()
	g.slabs = append(g.slabs, a.slabs[first:end]...)
	for _, s := range g.slabs {
		s.holds++
	}
	g.begin(from, from+a.sizes.unit)
	a.guesses = append(a.guesses, g)
	return g
}

func (a *Ahead) newGuess() *guess {
	if n := len(a.free); n > 0 {
		g := a.free[n-1]
		a.free = a.free[:n-1]
		return g
	}
	a.made++
	return guessPool.Get().(*guess)
}

// announce tells the reader where the first guess begins.
func (a *Ahead) announce() {
	m := int64(math.MaxInt64)
	for _, g := range a.guesses {
		m = min(m, g.start)
	}
	a.meet.Store(m)
}

// miss counts a guess that came to nothing. After some in a row the next ones
// come less and less often: the stream may be one without whole blocks to find,
// such as many small members.
func (a *Ahead) miss() {
	if a.misses++; a.misses > 2 {
		a.resume = a.pos + a.sizes.lead + slabBytes<<min(a.misses, 8)
	}
}

// drop takes g out of the list.
func (a *Ahead) drop(g *guess) {
	for i := range a.guesses {
		if a.guesses[i] == g {
			a.guesses = append(a.guesses[:i], a.guesses[i+1:]...)
			break
		}
	}
	g.gone = true
	a.reuse(g)
}

func (a *Ahead) release(g *guess, n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g.held -= n
	a.reuse(g)
}

// reuse frees g if nobody needs it any more.
func (a *Ahead) reuse(g *guess) {
	if !g.gone || g.busy || g.held > 0 {
		return
	}
	for _, s := range g.slabs {
		a.letGo(s)
	}
	g.slabs = g.slabs[:0]
	a.free = append(a.free, g)
	if len(a.free) == 1 {
		a.changed.Broadcast()
	}
}
