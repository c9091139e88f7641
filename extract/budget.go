package extract

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// budget holds an extraction to its limits and keeps the file system from
// running full. Free space is looked at as we go, because we are not alone.
type budget struct {
	fd      int // of a directory on the file system
	lim     Limits
	reserve int64
	total   int64 // bytes of the file system; 0 if it does not say
	members int64 // of the archive
	entries int64 // made
	bytes   int64 // of content, holes included
	every   int64 // bytes to write between two looks at free space
	written int64 // since the last look
	made    int64 // entries since then

	holdable int64 // bytes of content that the object can have; 0: unknown
	inMemory bool
}

// lookEntries is how many entries are made between two looks at free space.
const lookEntries = 4096

func newBudget(fd int, lim Limits) (*budget, error) {
	b := &budget{fd: fd, lim: lim, reserve: lim.Reserve}
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(fd, &st) }); err != nil {
		return nil, fmt.Errorf("statfs: %w", err)
	}
	b.total = int64(st.Blocks) * st.Bsize
	b.inMemory = st.Type == unix.TMPFS_MAGIC
	if b.reserve <= 0 {
		b.reserve = min(64<<20, b.total/100)
	}
	b.every = min(max(b.reserve/4, 256<<10), 32<<20)
	return b, b.look(0)
}

// look refuses when less than need bytes and the reserve are free.
func (b *budget) look(need int64) error {
	b.written, b.made = 0, 0
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Fstatfs(b.fd, &st) }); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if st.Blocks == 0 {
		return nil // a file system without a size
	}
	// Bavail, not Bfree: the blocks kept for root are not ours to fill.
	free := int64(st.Bavail) * st.Bsize
	if need == 0 && free < b.reserve {
		return fmt.Errorf("%w: %d bytes are free, and %d are kept free (reserve)", ErrNoSpace, free, b.reserve)
	}
	if free-b.reserve < need {
		return fmt.Errorf("%w: %d bytes are needed, and %d of %d free bytes can be used, %d are kept free (reserve)",
			ErrNoSpace, need, max(0, free-b.reserve), free, b.reserve)
	}
	return nil
}

// full says whether the reserve is touched. Any goroutine may ask.
func (b *budget) full() bool {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(b.fd, &st) })
	return err != nil || (st.Blocks > 0 && (int64(st.Bavail)*st.Bsize < b.reserve || (st.Files > 0 && st.Ffree == 0)))
}

// member accounts for an entry of the archive. Not each makes something: one
// directory can be spoken of many times.
func (b *budget) member() error {
	if b.members++; b.members > b.lim.Entries {
		return refuse(ErrLimit, "the archive has more than %d entries (max-entries)", b.lim.Entries)
	}
	return nil
}

// entry accounts for something that is about to be made.
func (b *budget) entry() error {
	if b.entries++; b.entries > b.lim.Entries {
		return refuse(ErrLimit, "the archive has more than %d entries (max-entries)", b.lim.Entries)
	}
	if b.made++; b.made >= lookEntries {
		return b.look(0)
	}
	return nil
}

// file judges a file of size bytes before it is made. A file with holes may
// be larger than what is free, but not than its file system unless a limit
// was set that allows it.
func (b *budget) file(size int64, sparse bool) error {
	switch {
	case b.lim.FileBytes > 0 && size > b.lim.FileBytes:
		return refuse(ErrLimit, "it has %d bytes, more than %d for one file (max-file-size)", size, b.lim.FileBytes)
	case b.lim.Bytes > 0 && size > b.lim.Bytes-b.bytes:
		return refuse(ErrLimit, "with its %d bytes there would be more than %d in all (max-bytes)", size, b.lim.Bytes)
	case b.total > 0 && size > b.total && b.lim.FileBytes <= 0 && (b.lim.Bytes <= 0 || !sparse):
		return refuse(ErrLimit, "it has %d bytes, more than the file system's %d (max-file-size)", size, b.total)
	}
	b.bytes += size
	if !sparse && size >= b.every {
		if err := b.look(size); err != nil {
			return err
		}
	}
	return nil
}

// grow is file for one whose size is known only as it comes: n more bytes.
func (b *budget) grow(n int64) error {
	if b.bytes += n; b.lim.Bytes > 0 && b.bytes > b.lim.Bytes {
		return fmt.Errorf("%w: more than %d bytes (max-bytes)", ErrLimit, b.lim.Bytes)
	}
	if b.lim.FileBytes > 0 && b.bytes > b.lim.FileBytes {
		return fmt.Errorf("%w: more than %d bytes in one file (max-file-size)", ErrLimit, b.lim.FileBytes)
	}
	return nil
}

// wrote accounts for n bytes that were put on disk.
func (b *budget) wrote(n int) error {
	if b.written += int64(n); b.written >= b.every {
		return b.look(0)
	}
	return nil
}
