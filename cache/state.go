package cache

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The state of a blob is a file that every process that has the blob open
// maps and shares: which spans are there, now. It is memory that happens to
// have a name. What it says is believed only while some process has the blob
// open; who opens the blob first makes it anew from the journal.
//
//	page 0    header
//	4096 + 32*i  slot of span i
//
//	slot:  word      state, flags and generation, see below
//	       off       where the span begins in the stream
//	       lenCRC    its length << 32 | its CRC32C
//	       (unused: written to reserve the block)
//
//	word:  bits 0-1  empty, stale or present
//	       bit 2     checked: the bytes have been compared with the checksum
//	       bit 3     used: read since the clock came by
//	       bits 4-   generation: one more at each change of bits 0-1
//
//	          PutSpan: lock, write data, write record
//	   empty ------------> stale ------------> present
//	     ^                  |  ^                  |
//	     +------------------+  +------------------+
//	         punch the hole      evicted, or damaged
//
// A slot is stale while its bytes on the disk change: before the first one is
// written, and before the hole is punched. So a reader who finds the same
// generation after his pread as before it has read no half-written and no
// punched byte. A process that is killed leaves slots stale, which costs space
// until the clock comes by, and nothing else.
const (
	stateEmpty   = 0
	stateStale   = 1
	statePresent = 2
	stateMask    = 3
	flagChecked  = 4
	flagUsed     = 8
	generation   = 16

	// sameSpan leaves of a word what a reader compares: the flags may change
	// under him.
	sameSpan = ^uint64(flagChecked | flagUsed)

	headerSize = 4096
	slotSize   = 32
	stateSize  = headerSize + MaxSpans*slotSize
)

// slotAt is where the slot of span i is in the file.
func slotAt(i int) int64 { return headerSize + int64(i)*slotSize }

type slot struct {
	word, off, lenCRC, _ atomic.Uint64
}

type header struct {
	high      atomic.Uint64 // no slot at or after this index was ever taken
	compactAt atomic.Uint64 // size of the journal at which it is written anew
	_         [2]uint64     // the second is written to reserve the block
}

// set moves s to state with a new generation and returns false when word is
// no longer what s holds but for its flags. Readers set flags at any time.
func (s *slot) set(word uint64, state, flags uint64) bool {
	next := (word &^ (generation - 1)) + generation | state | flags
	for {
		if s.word.CompareAndSwap(word, next) {
			return true
		}
		now := s.word.Load()
		if now&sameSpan != word&sameSpan {
			return false
		}
		word = now
	}
}

// flag sets or clears flags of s, unless the span has changed since word.
func (s *slot) flag(word, set, clear uint64) {
	for w := word; !s.word.CompareAndSwap(w, w&^clear|set); {
		if w = s.word.Load(); w&sameSpan != word&sameSpan {
			return
		}
	}
}

func (s *slot) place() (off int64, size int, crc uint32) {
	lc := s.lenCRC.Load()
	return int64(s.off.Load()), int(lc >> 32), uint32(lc)
}

func (s *slot) setPlace(off int64, size int, crc uint32) {
	s.off.Store(uint64(off))
	s.lenCRC.Store(uint64(size)<<32 | uint64(crc))
}

// state is the mapping. Touching it can fault: its pages are those of a file,
// so an unreadable or a full disk arrives as SIGBUS. All code that touches it
// runs under guard, which makes an error of that.
type state struct {
	mem   []byte
	head  *header
	slots []slot
}

func mapState(f *os.File) (*state, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, stateSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", f.Name(), err)
	}
	base := unsafe.Pointer(unsafe.SliceData(mem))
	return &state{
		mem:   mem,
		head:  (*header)(base),
		slots: unsafe.Slice((*slot)(unsafe.Add(base, headerSize)), MaxSpans),
	}, nil
}

func (s *state) unmap() error { return unix.Munmap(s.mem) }

// taken is how many slots have to be looked at to see all that were ever
// taken.
func (s *state) taken() int { return int(min(s.head.high.Load(), MaxSpans)) }

// taking notes that slot i is about to be taken.
func (s *state) taking(i int) {
	if s.head.high.Load() <= uint64(i) {
		s.head.high.Store(uint64(i) + 1)
	}
}

// errFault means that the state could not be read from, or have space on, its
// disk.
var errFault = fmt.Errorf("the shared state is not accessible: %w", unix.EIO)

// guard runs f, which may touch mappings, and returns errFault if that faults.
// Changes under way are left as they are, as if the process had been killed.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if !isFault(r) {
				panic(r)
			}
			err = errFault
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	return f()
}

// isFault tells a fault on a mapped page (the kernel names the address) from
// an error in a program. It may be a page of the layout, which is often mapped,
// too; the span cannot be had then either.
func isFault(r any) bool {
	e, ok := r.(interface {
		runtime.Error
		Addr() uintptr
	})
	return ok && e.Addr() >= 1<<16
}
