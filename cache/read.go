package cache

import (
	"hash/crc32"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadSpan copies the bytes [off, off+len(p)) of span i to p, and says whether
// it did. False means that the span is not here, or not whole: it has to be
// decoded (again); what p then holds is undefined.
//
// The checksum of the span is compared when it is first read since the first
// process opened the blob, and again when its pages have to come from the disk.
func (b *Blob) ReadSpan(i int, p []byte, off int) (ok bool) {
	st := b.enter(i)
	if st == nil {
		return false
	}
	defer func() {
		if r := recover(); r != nil {
			if !isFault(r) {
				panic(r)
			}
			ok = false
			b.count.errors.Add(1)
		}
		if ok {
			st.hits.Add(1)
		} else {
			st.misses.Add(1)
		}
		st.leave()
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // see guard

	start, size, sum, ok := place(b.files.layout, i)
	if !ok || off < 0 || off > size || len(p) > size-off || i >= b.files.state.taken() {
		return false
	}
	s := &b.files.state.slots[i]
	w := s.word.Load()
	if w&stateMask != statePresent {
		return false
	}
	if o, n, _ := s.place(); o != start || n != size {
		return false
	}
	if b.warm(s, w, p, start+int64(off)) {
		return true
	}
	return b.check(i, st, p, start, size, sum, off)
}

// warm reads from a span that was checked, and only from the kernel's memory:
// pages there are those that PutSpan wrote or that check compared. What has to
// come from the disk has not been compared since it went there, and disks that
// failed to write a page do not say so when it is read. (Two cracks: a block
// that two spans share may have come with the other one, and a disk may be so
// fast that the kernel has the page before it notices that it had not.)
func (b *Blob) warm(s *slot, w uint64, p []byte, at int64) bool {
	if w&flagChecked == 0 || !b.inMemory(p, at) || !unchanged(s, w) {
		return false
	}
	if w&flagUsed == 0 {
		s.flag(w, flagUsed, 0)
	}
	return true
}

// unchanged says whether the bytes that were read since w was loaded were
// those of the span: nobody has begun to write or to punch them.
func unchanged(s *slot, w uint64) bool {
	// A full barrier, so that no processor looks at the word before it looks
	// at the bytes.
	var barrier atomic.Int32
	barrier.Add(1)
	return s.word.Load()&sameSpan == w&sameSpan
}

// inMemory reads p at off if all of it is in the kernel's page cache.
func (b *Blob) inMemory(p []byte, off int64) bool {
	if len(p) == 0 {
		return true
	}
	for {
		var n uintptr
		var errno syscall.Errno
		if b.noNowait.Load() {
			n, _, errno = syscall.Syscall6(unix.SYS_PREAD64, uintptr(b.dataFD), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(off), 0, 0)
		} else {
			iov := unix.Iovec{Base: unsafe.SliceData(p)}
			iov.SetLen(len(p))
			n, _, errno = syscall.Syscall6(unix.SYS_PREADV2, uintptr(b.dataFD), uintptr(unsafe.Pointer(&iov)), 1, uintptr(off), 0, unix.RWF_NOWAIT)
		}
		switch errno {
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			if !b.noNowait.CompareAndSwap(false, true) {
				return false
			}
		default:
			return errno == 0 && n == uintptr(len(p))
		}
	}
}

// check reads the whole span, [off, off+len(p)) of it to p, and compares its
// checksum. A span that fails is dropped.
func (b *Blob) check(i int, st *stripe, p []byte, start int64, size int, sum uint32, off int) bool {
	st.checking.Lock()
	defer st.checking.Unlock()
	s := &b.files.state.slots[i]
	for range 3 {
		w := s.word.Load()
		if w&stateMask != statePresent {
			return false
		}
		o, n, want := s.place()
		if o != start || n != size {
			return false
		}
		if b.warm(s, w, p, start+int64(off)) {
			return true // another reader has checked it meanwhile
		}
		got, err := b.readAll(p, start, size, off)
		if !unchanged(s, w) {
			continue // evicted, and perhaps put again
		}
		if err != nil || got != want || sum != 0 && got != sum {
			if s.set(w, stateStale, 0) {
				if err != nil && err != io.ErrUnexpectedEOF {
					b.count.errors.Add(1)
				} else {
					b.count.corrupt.Add(1)
				}
			}
			return false
		}
		s.flag(w, flagChecked|flagUsed, 0)
		return true
	}
	return false
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// readAll reads the span [start, start+size) and returns its checksum; the
// part at off goes to p.
func (b *Blob) readAll(p []byte, start int64, size, off int) (sum uint32, err error) {
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for at := 0; at < size; {
		var into []byte
		switch end := off + len(p); {
		case at < off:
			into = buf[:min(len(buf), off-at)]
		case at < end:
			into = p[at-off : min(at-off+len(buf), len(p))]
		default:
			into = buf[:min(len(buf), size-at)]
		}
		n, err := unix.Pread(b.dataFD, into, start+int64(at))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.ErrUnexpectedEOF
		}
		if n > 0 {
			sum = crc32.Update(sum, castagnoli, into[:n])
			at += n
		}
	}
	return sum, nil
}
