package cache

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bytes of a blob's file "lock".
const (
	lockState = 0 // shared by all who have the state mapped
	lockDir   = 1 // shared by all who use the directory
	lockPins  = 2 // at lockPins+i, shared by all who pin span i
)

// errCold means that nobody has the blob open, so that there is no state.
var errCold = errors.New("the blob is not open")

// ErrLayout means that a blob holds spans which the given layout does not
// have: the same id was used for two ways of cutting an object into spans.
var ErrLayout = errors.New("the cache is in use with another layout of the same object")

// files is the directory of one identity, opened.
type files struct {
	name  string // of the directory
	sum   uint32 // nameSum(name)
	block int64  // of the file system

	lock, data, journal, shared *os.File

	layout Layout // nil if we only evict from it

	state *state
}

// attach opens the directory called name, which exists. The lock is held.
//
// If nobody has it open, its state is made from the journal, as far as that
// agrees with layout; without a layout the answer is errCold. Else the state
// is shared with those who have it open.
func (c *Cache) attach(name string, layout Layout) (_ *files, err error) {
	f := &files{name: name, sum: nameSum(name), block: c.block, layout: layout}
	attached := false
	defer func() {
		if !attached { // for an error, or a fault
			f.detach()
		}
	}()
	if f.lock, err = c.root.OpenFile(name+"/lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	alone, err := tryLock(f.lock, unix.F_WRLCK, lockState, 1)
	if err != nil {
		return nil, err
	}
	if alone && layout == nil {
		return nil, errCold
	}
	for _, o := range []struct {
		file **os.File
		name string
	}{{&f.data, "data"}, {&f.journal, "journal"}, {&f.shared, "state"}} {
		if *o.file, err = c.root.OpenFile(name+"/"+o.name, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, err
		}
	}
	if alone {
		if err := clearFile(f.shared, stateSize); err != nil {
			return nil, fmt.Errorf("make %s: %w", f.shared.Name(), err)
		}
	}
	if f.state, err = mapState(f.shared); err != nil {
		return nil, err
	}
	// Reads ask for what they need; what the kernel reads ahead, beyond the
	// span, has not been checked (see Blob.warm).
	_ = unix.Fadvise(int(f.data.Fd()), 0, 0, unix.FADV_RANDOM)
	if alone {
		if only, _ := tryLock(f.lock, unix.F_WRLCK, lockDir, 1); only {
			c.removeTemps(name)
		}
		err = f.rebuild()
	} else if layout != nil {
		err = f.agree()
	}
	if err != nil {
		return nil, err
	}
	// From alone to shared in one step: nobody sees a state without an owner.
	if ok, err := tryLock(f.lock, unix.F_RDLCK, lockState, lockPins-lockState); !ok {
		return nil, fmt.Errorf("share %s: %w", f.lock.Name(), errors.Join(err, errBusy))
	}
	now := time.Now()
	_ = c.root.Chtimes(name+"/lock", now, now) // for the choice among cold blobs
	attached = true
	return f, nil
}

// detach closes all; the kernel drops the locks.
func (f *files) detach() {
	if f.state != nil {
		_ = f.state.unmap()
	}
	for _, x := range []*os.File{f.shared, f.journal, f.data, f.lock} {
		if x != nil {
			_ = x.Close()
		}
	}
}

// removeTemps removes what WriteFile left when it was killed.
func (c *Cache) removeTemps(name string) {
	d, err := c.root.Open(name)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if strings.HasPrefix(n, tempPrefix) {
			_ = c.root.Remove(name + "/" + n)
		}
	}
}

// agree checks that what is in the state, which others use, lies where the
// layout says.
func (f *files) agree() error {
	for i := range min(f.state.taken(), f.layout.NumSpans()) {
		s := &f.state.slots[i]
		if s.word.Load()&stateMask == stateEmpty {
			continue
		}
		off, size, _, _ := place(f.layout, i)
		if o, n, _ := s.place(); o != off || n != size {
			return fmt.Errorf("span %d is [%d, %d), not [%d, %d): %w", i, o, o+int64(n), off, off+int64(size), ErrLayout)
		}
	}
	return nil
}

// rebuild fills the empty state with the spans that the journal claims, that
// the layout knows, and that have no hole. Their bytes are checked when they are
// read. Other bytes of the data file are given back.
func (f *files) rebuild() error {
	slots, lost := f.state.slots, false
	if err := f.reserve(0); err != nil {
		return err
	}
	var full error
	reserved := map[int64]bool{}
	// What cannot be read of the journal is as good as not written.
	_ = readJournal(f.journal, f.sum, func(r record) {
		s := &slots[r.span]
		if r.size == 0 {
			s.word.Store(stateEmpty)
			return
		}
		off, size, sum, ok := place(f.layout, r.span)
		if !ok || r.off != off || r.size != size || sum != 0 && sum != r.crc {
			lost = true
			return
		}
		if page := slotAt(r.span) / 4096; !reserved[page] {
			if full = errors.Join(full, f.reserve(slotAt(r.span))); full != nil {
				return
			}
			reserved[page] = true
		}
		f.state.taking(r.span)
		s.setPlace(r.off, r.size, r.crc)
		s.word.Store(generation | statePresent)
	})
	if full != nil {
		return full
	}
	x, end := extents{file: f.data}, int64(0)
	for i := range f.state.taken() {
		s := &slots[i]
		if s.word.Load()&stateMask != statePresent {
			continue
		}
		off, size, _ := s.place()
		if err := f.giveBack(&x, end, off); err != nil {
			return err
		}
		if off < end || !x.covers(off, off+int64(size)) {
			s.word.Store(stateEmpty)
			lost = true
			continue
		}
		end = off + int64(size)
		f.introduce(i)
	}
	fi, err := f.data.Stat()
	if err != nil {
		return err
	}
	if lost {
		// Or a record would vouch for bytes that a later life did not finish.
		if err := f.compact(); err != nil {
			return err
		}
	}
	return f.giveBack(&x, end, fi.Size()+f.block)
}

// reserve gets the blocks of the page with the slot at the given offset of the
// state, so that a full disk is an error here and not a fault there.
func (f *files) reserve(slot int64) error {
	var unused [8]byte
	page := roundDown(slot, 4096)
	for off := page; off < page+4096; off += f.block {
		if _, err := f.shared.WriteAt(unused[:], off+24); err != nil {
			return err
		}
	}
	return nil
}

// introduce notes where the neighbours of span i are, for processes that evict
// it without a layout.
func (f *files) introduce(i int) {
	for _, j := range [2]int{i - 1, i + 1} {
		off, size, _, ok := place(f.layout, j)
		if !ok || slotAt(j)/4096 != slotAt(i)/4096 && f.reserve(slotAt(j)) != nil {
			continue
		}
		if s := &f.state.slots[j]; s.lenCRC.Load() == 0 {
			s.setPlace(off, size, 0)
		}
	}
}

// giveBack punches the blocks that lie within [lo, hi), if any has data.
func (f *files) giveBack(x *extents, lo, hi int64) error {
	lo, hi = roundUp(lo, f.block), roundDown(hi, f.block)
	if lo >= hi || !x.touches(lo, hi) {
		return nil
	}
	*x = extents{file: f.data}
	return punch(f.data, lo, hi)
}

// extents walks the runs of data in a file, forwards.
type extents struct {
	file       *os.File
	start, end int64
}

func (x *extents) seek(off int64) {
	if off < x.end {
		return
	}
	start, err := unix.Seek(int(x.file.Fd()), off, unix.SEEK_DATA)
	if err != nil { // ENXIO: nothing but a hole up to the end
		x.start, x.end = 1<<62, 1<<62
		return
	}
	x.start = start
	if x.end, err = unix.Seek(int(x.file.Fd()), start, unix.SEEK_HOLE); err != nil {
		x.end = start + 1
	}
}

func (x *extents) covers(lo, hi int64) bool {
	x.seek(lo)
	return x.start <= lo && hi <= x.end
}

func (x *extents) touches(lo, hi int64) bool {
	x.seek(lo)
	return x.start < hi
}

func punch(f *os.File, lo, hi int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, lo, hi-lo)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("punch a hole into %s: %w", f.Name(), err)
		}
	}
}

// clearFile makes f size zero bytes. Blocks that it has already are kept and
// overwritten, since a full disk may have no others.
func clearFile(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for x := (extents{file: f}); ; {
		x.seek(x.end)
		if x.start >= size {
			return nil
		}
		for at := x.start; at < min(x.end, size); {
			n, err := f.WriteAt(zeros[:min(int64(len(zeros)), x.end-at, size-at)], at)
			if err != nil {
				return err
			}
			at += int64(n)
		}
	}
}

func roundDown(n, to int64) int64 { return n / to * to }
func roundUp(n, to int64) int64   { return (n + to - 1) / to * to }

// writeID keeps id in its directory, for Sweep and for people.
func (c *Cache) writeID(name, id string) error {
	if b, err := c.root.ReadFile(name + "/id"); err == nil && bytes.Equal(b, []byte(id)) {
		return nil
	}
	return c.root.WriteFile(name+"/id", []byte(id), 0o600)
}
