package cache

import (
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// evict frees need bytes if it can: first those of blobs that nobody has open,
// then by the clock. The lock is held.
func (c *Cache) evict(need int64) error {
	if need <= 0 {
		return nil
	}
	freed, err := c.cutCold(need)
	if err == nil && freed < need {
		var n int64
		n, err = c.turn(need - freed)
		freed += n
	}
	return errors.Join(err, c.charge(-freed))
}

// cutCold shortens the data of blobs that nobody has open, beginning with the
// one whose last use is longest ago. Without their state that is cheaper than
// choosing spans, and the beginning of an archive is as good as its end; the
// records of what is cut off are skipped when the blob is opened again.
func (c *Cache) cutCold(need int64) (freed int64, err error) {
	names, err := c.names()
	if err != nil {
		return 0, err
	}
	type cold struct {
		name string
		used time.Time
	}
	var all []cold
	for _, name := range names {
		d, err := c.root.Stat(name + "/data")
		if err != nil || blocks(d) == 0 {
			continue
		}
		if fi, err := c.root.Stat(name + "/lock"); err == nil {
			all = append(all, cold{name, fi.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b cold) int { return a.used.Compare(b.used) })
	for _, x := range all {
		if freed >= need {
			break
		}
		n, err := c.cut(x.name, need-freed)
		freed += n
		if err != nil {
			return freed, err
		}
	}
	return freed, nil
}

func (c *Cache) cut(name string, need int64) (freed int64, err error) {
	lock, err := c.root.OpenFile(name+"/lock", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if alone, err := tryLock(lock, unix.F_WRLCK, lockState, 1); !alone {
		return 0, err
	}
	data, err := c.root.OpenFile(name+"/data", os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer data.Close()
	fi, err := data.Stat()
	if err != nil {
		return 0, err
	}
	size, before := fi.Size(), blocks(fi)
	// Steps get longer where there is nothing but holes.
	for step := max(need, 1<<20); freed < need && size > 0; step *= 2 {
		size = roundDown(max(size-step, 0), c.block)
		if err := data.Truncate(size); err != nil {
			return freed, err
		}
		if fi, err = data.Stat(); err != nil {
			return freed, err
		}
		if now := before - blocks(fi); now > freed {
			freed, step = now, max(need-now, 1<<20)/2
		}
	}
	c.past.evicted.Add(1)
	return freed, nil
}

// borrow returns the files of a blob that is in use, by us or by another
// process, until done is called; else errCold. The lock is held.
func (c *Cache) borrow(name string) (f *files, done func(), err error) {
	c.mu.Lock()
	for b := range c.blobs {
		if b.files.name == name {
			f = b.files
		}
	}
	c.mu.Unlock()
	if f != nil {
		return f, func() {}, nil
	}
	if f, err = c.attach(name, nil); err != nil {
		return nil, nil, err
	}
	return f, f.detach, nil
}

// hand is where the clock goes on: at a span of a blob.
type hand struct {
	name string
	span int
}

// turn turns the clock over the spans of all blobs in use, in order of their
// names, until need bytes are free. A span that was used since the clock came
// by last gets another round; after two rounds in vain nothing but a pin does.
func (c *Cache) turn(need int64) (freed int64, err error) {
	names, err := c.names()
	if err != nil || len(names) == 0 {
		return 0, err
	}
	slices.Sort(names)
	at, _ := slices.BinarySearchFunc(names, c.hand.name, strings.Compare)
	at %= len(names)
	if names[at] != c.hand.name {
		c.hand = hand{name: names[at]}
	}
	for visit := range 3*len(names) + 1 {
		f, done, err := c.borrow(names[at])
		if err == nil {
			var n int64
			n, err = c.sweepSpans(f, need-freed, visit > 2*len(names))
			freed += n
			done()
		} else if errors.Is(err, errCold) {
			err = nil
		}
		if freed >= need || err != nil {
			return freed, err
		}
		at = (at + 1) % len(names)
		c.hand = hand{name: names[at]}
	}
	return freed, nil
}

// sweepSpans moves the hand over one blob.
func (c *Cache) sweepSpans(f *files, need int64, force bool) (freed int64, err error) {
	for taken := f.state.taken(); c.hand.span < taken && freed < need; c.hand.span++ {
		i := c.hand.span
		s := &f.state.slots[i]
		w := s.word.Load()
		switch {
		case w&stateMask == stateEmpty:
			continue
		case w&stateMask == statePresent && w&flagUsed != 0 && !force:
			s.flag(w, 0, flagUsed)
			continue
		case f.pinned(i):
			continue
		}
		n, err := f.reclaim(i, w)
		if err != nil {
			c.past.errors.Add(1)
			return freed, err
		}
		freed += n
		if w&stateMask == statePresent {
			c.past.evicted.Add(1)
		}
	}
	return freed, nil
}

// reclaim empties the slot of span i and gives its space back. The lock is
// held.
func (f *files) reclaim(i int, w uint64) (n int64, err error) {
	s := &f.state.slots[i]
	if w&stateMask == statePresent {
		s.set(w, stateStale, 0) // or a reader has done so, who found it damaged
		w = s.word.Load()
	}
	off, size, _ := s.place()
	f.forget(i, off)
	if err := punch(f.data, f.hole(i, off), f.holeEnd(i, off+int64(size))); err != nil {
		return 0, err
	}
	s.set(w, stateEmpty, 0)
	return f.space(off, size), nil
}

// forget notes in the journal that span i is no longer there. When that cannot
// be written, a hole or the checksum will tell.
func (f *files) forget(i int, off int64) { _ = f.appendRecord(record{span: i, off: off}) }

// hole returns where the hole of span i may begin, which begins at lo itself:
// a block that it shares with spans that are empty is given back, too.
func (f *files) hole(i int, lo int64) int64 {
	from := roundDown(lo, f.block)
	for j := i - 1; lo > from && j >= 0; j-- {
		off, empty := f.neighbour(j)
		if !empty {
			return lo
		}
		if off <= from {
			break
		}
	}
	return from
}

// holeEnd is the other end of it.
func (f *files) holeEnd(i int, hi int64) int64 {
	to := roundUp(hi, f.block)
	for j := i + 1; hi < to && j < MaxSpans; j++ {
		off, empty := f.neighbour(j)
		if off >= to {
			break
		}
		if !empty {
			return hi
		}
	}
	return to
}

// neighbour says where span j begins, and whether it is known to be empty. It
// may not be known where we have no layout, only what was noted by introduce.
func (f *files) neighbour(j int) (off int64, empty bool) {
	size := 0
	if j < f.state.taken() {
		s := &f.state.slots[j]
		if s.word.Load()&stateMask != stateEmpty {
			return int64(s.off.Load()), false
		}
		off, size, _ = s.place()
	}
	if size == 0 && f.layout != nil {
		off, size, _, _ = place(f.layout, j)
	}
	if size == 0 {
		return -1, false
	}
	return off, true
}
