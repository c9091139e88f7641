// Package cache keeps spans of objects on disk, within a budget of bytes, and
// gives back nothing but the bytes that were put.
//
// A span is what is fetched, decoded and checked as a whole: about a mebibyte
// of an object's uncompressed stream. Decoding one costs a request and some
// milliseconds; reading it from here costs one pread. Everything kept can be
// had again, so nothing is synced to the disk, and nothing is trusted without
// its checksum. Losing a span costs time, never a byte.
//
//	c, err := cache.Open("/var/cache/objectmount", cache.Options{Budget: 10 << 30})
//	b, err := c.Blob(id, index)          // index tells where spans lie
//	if !b.ReadSpan(i, p, off) {
//		data := decode(i)
//		b.PutSpan(i, data)               // kept if it can be
//	}
//
// # On the disk
//
//	CACHEDIR.TAG       for backup programs
//	v1/                this format; directories of other versions are removed
//	                   when nobody uses them
//	  lock             see lock.go
//	  usage            the space that all spans take, see usage.go
//	  <identity>/      half of the SHA-256 of what Blob was given as id
//	    id             the id
//	    data           sparse: the uncompressed stream, spans at their offsets
//	    journal        which spans are there, and their checksums, see journal.go
//	    state          the same as shared memory of those who have the blob
//	                   open; worthless when nobody has, see state.go
//	    lock           who has the blob open, and which spans are pinned
//	    index, ...     files of the caller, see WriteFile
//
// All is 0700 and 0600. The checksums find faults of the disk, not the work of
// someone who may write here; that is why Open is particular about owners.
//
// # Many processes, one blob
//
// Any number of processes may use one directory and one blob. Changes are made
// under one lock over all of them; readers take no lock at all. What a reader
// must never see is a span that is being written, or the zeros of a hole that
// eviction punches while the pread goes on. So each span has a word of shared
// memory with a generation in it, which changes before its bytes do. The
// reader compares it before and after:
//
//	reader                    evicting, any process
//	word: present, gen 7
//	                          word = stale, gen 8
//	pread ...                 punch the hole
//	... returns               word = empty, gen 9
//	word: not gen 7 present:
//	the bytes are not used
//
// A process can be killed at any point of this: locks are the kernel's and go
// with it, and a word that stays stale means "space, but not bytes".
//
// # Eviction
//
// When a span is put and the budget would be exceeded, or less than the floor
// of the file system would be free, first go the ends of blobs that nobody has
// open; then a clock hand moves over the spans of the others and punches holes
// for those that were not read since it last came by. Pinned spans stay.
//
// # Failing disks
//
// ReadSpan and PutSpan have no errors to return. A disk that is full, broken
// or gone read-only means that spans are not kept, and after a failed write
// nothing is tried for 30 seconds; reads of what is there go on. Since the
// shared memory is a file, even that may fail, with SIGBUS; it arrives here
// as a panic that guard catches. Stats counts what happened.
package cache
