package extract

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Large files get their blocks before they are written. That makes them no
// faster and, since ext4 allocates late and XFS ahead, no less fragmented: 4
// files of 256 MiB side by side lay in 17, 12 and 18 pieces with it and in 17,
// 14 and 15 without, for the same time. It is for truth: free space that one
// extraction is going to fill looks free to another until then, so that of two
// that do not fit together both would begin, and both fail after gigabytes.
//
// The blocks are only set aside: the file keeps its size, and what was written
// decides it. An archive that lies about a size must not take all free space
// even for a moment, so nothing is set aside that the rest of the object
// cannot hold. And not in memory: tmpfs takes a sixth longer for it.

const (
	reserveFrom = 64 << 20 // bytes
	// maxDeflate is more than how far DEFLATE can expand anything: 258 bytes
	// from two bits.
	maxDeflate = 1032
)

// holdable is how many bytes of content an object can decode to; 0 if its size
// is unknown.
func (j *job) holdable() int64 {
	most := max(j.opts.Size, 0)
	if j.in.format == "tar.gz" || j.in.format == "gz" {
		if most > (1<<62)/maxDeflate {
			return 0
		}
		most *= maxDeflate
	}
	return most
}

// reserveBlocks sets size bytes of a new file aside.
func (b *budget) reserveBlocks(fd int, size int64) error {
	if size < reserveFrom || size > b.holdable || b.inMemory {
		return nil
	}
	err := unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, 0, size)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return err
	}
	return nil // a service to others, not a need: file systems without it are fine
}
