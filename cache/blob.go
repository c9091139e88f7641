package cache

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Layout says where the spans of a stream lie: span i is the bytes
// [off, off+size), and sum their CRC32C (Castagnoli), or 0 when it is not
// known. Spans are in order and do not overlap. A Layout may grow while it is
// in use, and must be safe for concurrent use; both methods are called on each
// read, so they should be cheap.
type Layout interface {
	NumSpans() int
	Span(i int) (off int64, size int, sum uint32)
}

// Blob is the spans of one object. It is safe for concurrent use.
type Blob struct {
	cache  *Cache
	files  *files
	dataFD int // of files.data

	noNowait atomic.Bool // the file system does not know RWF_NOWAIT
	stripes  [16]stripe
	count    counters
	closing  sync.Once
}

// stripe is what calls about every 16th span share: a gate that Close shuts,
// and counters, on cache lines that other calls leave alone.
type stripe struct {
	inside       atomic.Int64 // calls under way; negative when the gate is shut
	hits, misses atomic.Int64
	checking     sync.Mutex // one reader at a time checks a span; the others then find it checked
	left         chan struct{}
	_            [128 - 40]byte
}

// shut is added to stripe.inside to shut it.
const shut = -1 << 40

// enter begins a call about span i; it returns nil when b is closed.
func (b *Blob) enter(i int) *stripe {
	s := &b.stripes[uint(i)%uint(len(b.stripes))]
	if s.inside.Add(1) < 0 {
		s.leave()
		return nil
	}
	return s
}

func (s *stripe) leave() {
	if s.inside.Add(-1) == shut {
		select {
		case s.left <- struct{}{}:
		default:
		}
	}
}

// Blob opens the spans kept under id, which names the bytes of one object and
// the way they are cut into spans: store origin, object id, ETag, size, span
// size. Two layouts under one id must agree about each span that both have;
// one that visibly does not is ErrLayout while the other is in use, and starts
// afresh otherwise.
//
// Spans kept from before are found again if layout has them when the first
// process opens the blob; so a layout that has yet to grow starts afresh, too.
//
// An error means that there is no cache for this object (a full disk, say);
// reads can go on without.
func (c *Cache) Blob(id string, layout Layout) (*Blob, error) {
	b := &Blob{cache: c}
	for i := range b.stripes {
		b.stripes[i].left = make(chan struct{}, 1)
	}
	name := dirName(id)
	err := c.locked(openWait, func() error {
		open := func() error {
			if err := c.makeDir(name, id); err != nil {
				return err
			}
			return guard(func() (err error) {
				b.files, err = c.attach(name, layout)
				return err
			})
		}
		err := open()
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, errFault) {
			_ = c.lower()
			err = open()
		}
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closed {
			b.files.detach()
			return os.ErrClosed
		}
		c.blobs[b] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the cache of %s: %w", id, err)
	}
	b.dataFD = int(b.files.data.Fd())
	return b, nil
}

func (c *Cache) makeDir(name, id string) error {
	if err := c.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return c.writeID(name, id)
}

// Close waits for the calls under way and closes the blob. Its spans stay.
func (b *Blob) Close() error {
	b.closing.Do(func() {
		for i := range b.stripes {
			s := &b.stripes[i]
			if s.inside.Add(shut) != shut {
				<-s.left
			}
		}
		c := b.cache
		c.lock.sem <- struct{}{} // nobody of ours is evicting from it
		defer func() { <-c.lock.sem }()
		c.mu.Lock()
		delete(c.blobs, b)
		var s Stats
		b.addTo(&s)
		c.past.add(s)
		c.mu.Unlock()
		b.files.detach()
	})
	return nil
}

// place asks the layout where span i is.
func place(l Layout, i int) (off int64, size int, sum uint32, ok bool) {
	if i < 0 || i >= MaxSpans || i >= l.NumSpans() {
		return 0, 0, 0, false
	}
	off, size, sum = l.Span(i)
	return off, size, sum, off >= 0 && size > 0 && size <= MaxSpanSize && off <= 1<<62
}

// HasSpan says whether span i is here. It may be gone, or prove damaged, when
// it is read.
func (b *Blob) HasSpan(i int) (here bool) {
	st := b.enter(i)
	if st == nil {
		return false
	}
	defer st.leave()
	_ = guard(func() error {
		off, size, _, ok := place(b.files.layout, i)
		here = ok && b.files.holds(i, off, size)
		return nil
	})
	return here
}

// holds says whether span i is present at [off, off+size).
func (f *files) holds(i int, off int64, size int) bool {
	if i >= f.state.taken() {
		return false
	}
	s := &f.state.slots[i]
	o, n, _ := s.place()
	return s.word.Load()&stateMask == statePresent && o == off && n == size
}

// Pin keeps the spans [lo, hi) that are here, or get here, from being evicted
// by any process, until release is called or the process ends, even when b is
// closed before. It uses up a file descriptor. A span that proves damaged is dropped all the same.
func (b *Blob) Pin(lo, hi int) (release func(), err error) {
	if lo < 0 || hi > MaxSpans || lo >= hi {
		return nil, fmt.Errorf("pin spans [%d, %d): %w", lo, hi, os.ErrInvalid)
	}
	st := b.enter(0)
	if st == nil {
		return nil, os.ErrClosed
	}
	defer st.leave()
	var f *os.File
	// With the lock, so that no eviction is between its look at the pins and
	// its hole.
	err = b.cache.locked(openWait, func() (err error) {
		if f, err = b.cache.root.OpenFile(b.files.name+"/lock", os.O_RDWR, 0); err != nil {
			return err
		}
		// Its directory and state stay, too, when b is closed before.
		if _, err = tryLock(f, unix.F_RDLCK, lockState, lockPins-lockState); err != nil {
			return err
		}
		_, err = tryLock(f, unix.F_RDLCK, lockPins+int64(lo), int64(hi-lo))
		return err
	})
	if err != nil {
		if f != nil {
			_ = f.Close()
		}
		return nil, fmt.Errorf("pin spans [%d, %d): %w", lo, hi, err)
	}
	return sync.OnceFunc(func() { _ = f.Close() }), nil
}

// pinned says whether anyone pins span i.
func (f *files) pinned(i int) bool { return lockedByOthers(f.lock, lockPins+int64(i)) }
