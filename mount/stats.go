package mount

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats are counters of a mount since it was made: requests that reached the
// server. What the kernel knew already is not in them.
type Stats struct {
	Lookups     int64 // names looked up
	GetAttrs    int64 // attributes asked for
	Listings    int64 // pieces of listings
	Xattrs      int64 // extended attributes, and lists of them
	Reads       int64 // reads of content
	Bytes       int64 // of content given to the kernel
	Links       int64 // link targets asked for
	Other       int64 // statfs and seeks
	Pending     int64 // requests that wait right now
	Missed      int64 // deadlines that passed: the process got EIO
	Interrupted int64 // requests whose process left before the answer
	Failed      int64 // requests answered with EIO, missed deadlines too

	LastError     string    // of the last request that failed; "" if none did
	LastErrorTime time.Time // when
}

type stats struct {
	lookups, getattrs, listings, xattrs, reads, bytes, links, other atomic.Int64

	pending, missed, interrupted, failures atomic.Int64

	mu   sync.Mutex // guards what follows
	last error
	when time.Time
}

// failed remembers an error that became EIO.
func (s *stats) failed(err error) {
	s.failures.Add(1)
	s.mu.Lock()
	s.last, s.when = err, time.Now()
	s.mu.Unlock()
}

func (s *stats) snapshot() Stats {
	out := Stats{
		Lookups: s.lookups.Load(), GetAttrs: s.getattrs.Load(), Listings: s.listings.Load(),
		Xattrs: s.xattrs.Load(), Reads: s.reads.Load(), Bytes: s.bytes.Load(), Links: s.links.Load(), Other: s.other.Load(),
		Pending: s.pending.Load(), Missed: s.missed.Load(), Interrupted: s.interrupted.Load(),
		Failed: s.failures.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil {
		out.LastError, out.LastErrorTime = s.last.Error(), s.when
	}
	return out
}
