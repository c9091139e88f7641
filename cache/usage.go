package cache

import (
	"encoding/binary"
	"hash/crc32"
	"io/fs"
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

// Room is how many bytes of spans can be put without evicting any, by budget
// and floor; never negative. Spans take whole blocks of the file system.
func (b *Blob) Room() int64 {
	st := b.enter(0)
	if st == nil {
		return 0
	}
	defer st.leave()
	c := b.cache
	room := -c.short(0)
	if room < MaxSpanSize {
		// The account may be too high.
		_ = c.locked(putWait, func() error {
			if time.Since(c.start)-c.recounted <= recountEvery {
				return nil
			}
			return c.recount()
		})
		room = -c.short(0)
	}
	return max(room, 0)
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
