package cache

import (
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

var (
	// errNoRoom means that eviction could not make enough room: the disk is
	// full of other things, or all that is here is pinned.
	errNoRoom = errors.New("no room")
	// errUnfit means that it will not do for this span, whatever room there is.
	errUnfit = errors.New("the bytes are not those of the span, or too many")
)

// How long nothing is written after an attempt failed for these reasons. After
// a failed write it is Cache.pause, 30 s.
const (
	pauseNoRoom = time.Second
	pauseBusy   = 2 * time.Second
)

// PutSpan offers the whole bytes of span i, which may be dropped: when the
// disk is full or broken, when the lock of the cache cannot be had in two
// seconds, or when the bytes are not what the layout says. After a failed
// write nothing is written for 30 seconds. data is not retained.
func (b *Blob) PutSpan(i int, data []byte) { b.putOrDrop(i, data, false) }

// PutSpare is PutSpan for a span that nobody has asked for. It is dropped when
// others would have to be evicted for it, and until it is read it is the first
// to go.
func (b *Blob) PutSpare(i int, data []byte) { b.putOrDrop(i, data, true) }

func (b *Blob) putOrDrop(i int, data []byte, spare bool) {
	st := b.enter(i)
	if st == nil {
		return
	}
	defer st.leave()
	if err := guard(func() error { return b.offer(i, data, spare) }); err != nil {
		b.count.dropped.Add(1)
	}
}

func (b *Blob) offer(i int, data []byte, spare bool) error {
	off, size, sum, ok := place(b.files.layout, i)
	if !ok || size != len(data) {
		return errUnfit
	}
	if b.files.holds(i, off, size) {
		return nil
	}
	c := b.cache
	if time.Since(c.start) < time.Duration(c.paused.Load()) {
		return errNoRoom
	}
	crc := crc32.Checksum(data, castagnoli)
	if sum != 0 && sum != crc {
		return errUnfit
	}
	err := c.locked(putWait, func() error {
		// A fault skips what follows it in put; so guard that by itself.
		err := guard(func() error { return b.put(i, data, off, crc, spare) })
		if err != nil && !errors.Is(err, errNoRoom) && !errors.Is(err, errUnfit) {
			b.count.errors.Add(1)
			_ = c.lower()
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, errUnfit):
	case errors.Is(err, errNoRoom):
		if !spare {
			c.rest(pauseNoRoom)
		}
	case errors.Is(err, errBusy):
		c.rest(pauseBusy)
	default:
		c.rest(c.pause)
	}
	return err
}

// rest lets no span be written for some time.
func (c *Cache) rest(d time.Duration) { c.paused.Store(int64(time.Since(c.start) + d)) }

// put writes span i. The lock is held.
func (b *Blob) put(i int, data []byte, off int64, crc uint32, spare bool) error {
	f, size := b.files, len(data)
	s := &f.state.slots[i]
	w := s.word.Load()
	if w&stateMask != stateEmpty {
		if o, n, _ := s.place(); o != off || n != size {
			return errUnfit
		}
	}
	switch w & stateMask {
	case statePresent:
		return nil // another process was faster
	case stateEmpty:
		if err := f.reserve(slotAt(i)); err != nil {
			return err
		}
		space := f.space(off, size)
		if spare && b.cache.short(space) > 0 {
			return errNoRoom
		}
		if err := b.cache.makeRoom(space); err != nil {
			return err
		}
		// Charged before the space is taken, so that being killed here makes
		// the account too high, which a recount repairs, never too low.
		if err := b.cache.charge(space); err != nil {
			return err
		}
		f.state.taking(i)
		f.introduce(i)
	case stateStale:
		f.forget(i, off) // what it was before
	}
	s.setPlace(off, size, crc)
	s.set(w, stateStale, 0)

	err := writeAll(f, data, off)
	if err == nil {
		err = f.appendRecord(record{span: i, size: size, off: off, crc: crc})
	}
	w = s.word.Load()
	if err != nil {
		if n, e := f.reclaim(i, w); e == nil {
			_ = b.cache.charge(-n)
		}
		return err
	}
	flags := uint64(flagChecked | flagUsed)
	if spare {
		flags = flagChecked
	}
	s.set(w, statePresent, flags)
	b.count.puts.Add(1)
	return nil
}

func writeAll(f *files, data []byte, off int64) error {
	n, err := f.data.WriteAt(data, off)
	if err == nil && n != len(data) {
		err = fmt.Errorf("write %s: %d of %d bytes", f.data.Name(), n, len(data))
	}
	return err
}
