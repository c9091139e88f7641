package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The budget is kept by an account: the file "usage", 16 bytes, holding the
// space that the slots of all blobs account for, the checksum of that, and
// zeros. It is changed with the lock only. A process that is killed may leave
// it too high; recount sets it right.

const (
	// maxBatch bounds what one PutSpan evicts, and so how long it takes.
	maxBatch = 256 << 20
	// recountEvery is how long a recount is good for when space is short.
	recountEvery = 5 * time.Second
)

// used reads the account; it needs no lock.
func (c *Cache) used() (n int64, ok bool) {
	var b [16]byte
	if _, err := c.usage.ReadAt(b[:], 0); err != nil {
		return 0, false
	}
	n = int64(binary.LittleEndian.Uint64(b[:]))
	return n, n >= 0 && binary.LittleEndian.Uint32(b[8:]) == crc32.Checksum(b[:8], castagnoli)
}

func (c *Cache) setUsed(n int64) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(max(n, 0)))
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b[:8], castagnoli))
	_, err := c.usage.WriteAt(b[:], 0)
	return err
}

func (c *Cache) charge(n int64) error {
	used, ok := c.used()
	if !ok {
		if err := c.recount(); err != nil || n < 0 { // what was freed is not counted
			return err
		}
		used, _ = c.used()
	}
	return c.setUsed(used + n)
}

// space is what the span [off, off+size) may take on the disk: whole blocks,
// though it may share the first and the last with its neighbours.
func (f *files) space(off int64, size int) int64 {
	return roundUp(off+int64(size), f.block) - roundDown(off, f.block)
}

// bytes is the space that the slots account for.
func (f *files) bytes() (n int64) {
	for i := range f.state.taken() {
		s := &f.state.slots[i]
		if s.word.Load()&stateMask != stateEmpty {
			off, size, _ := s.place()
			n += f.space(off, size)
		}
	}
	return n
}

// recount adds up what is there: the slots of blobs in use, the blocks of
// others. The lock is held.
func (c *Cache) recount() error {
	names, err := c.names()
	if err != nil {
		return err
	}
	var sum int64
	for _, name := range names {
		if f, done, err := c.borrow(name); err == nil {
			sum += f.bytes()
			done()
		} else if fi, err := c.root.Stat(name + "/data"); err == nil {
			sum += blocks(fi)
		}
	}
	c.recounted = time.Since(c.start)
	return c.setUsed(sum)
}

func blocks(fi fs.FileInfo) int64 {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fi.Size()
	}
	return st.Blocks * 512
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

// short is how many bytes have to be freed before n more fit; negative when
// they do.
func (c *Cache) short(n int64) int64 {
	used, ok := c.used()
	if !ok {
		return n
	}
	over := used + n - c.budget
	var st unix.Statfs_t
	if c.floor > 0 && unix.Fstatfs(int(c.usage.Fd()), &st) == nil {
		over = max(over, c.floor+n-int64(st.Bavail)*int64(st.Bsize))
	}
	return over
}

// makeRoom sees to it that n bytes fit, or returns errNoRoom. The lock is held.
func (c *Cache) makeRoom(n int64) error {
	over := c.short(n)
	if over <= 0 {
		return nil
	}
	if n > c.budget {
		return errUnfit
	}
	if time.Since(c.start)-c.recounted > recountEvery {
		if err := c.recount(); err != nil {
			return err
		}
		if over = c.short(n); over <= 0 {
			return nil
		}
	}
	// Somewhat more than needed, since looking for it has a cost of its own.
	used, _ := c.used()
	if err := c.evict(min(over+min(used/64, 32<<20), maxBatch)); err != nil {
		return err
	}
	if c.short(n) > 0 {
		return errNoRoom
	}
	return nil
}

// lower evicts to the low mark, 7/8 of what is there or may be there. The
// lock is held.
func (c *Cache) lower() error {
	if err := c.recount(); err != nil {
		return err
	}
	used, _ := c.used()
	return c.evict(used - min(used, c.budget)/8*7)
}

// Trim evicts until budget and floor hold. PutSpan sees to both by itself;
// Trim is for a disk that others fill while nothing is put.
func (c *Cache) Trim() error {
	return c.locked(openWait, func() error {
		if err := c.recount(); err != nil {
			return err
		}
		for {
			before, _ := c.used()
			if err := c.evict(c.short(0)); err != nil {
				return err
			}
			// What was freed is not always free at once.
			if after, _ := c.used(); after == before {
				return nil
			}
		}
	})
}

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
