package cache

import "sync/atomic"

// Stats is a snapshot of counters since Open.
type Stats struct {
	Hits    int64 // reads served
	Misses  int64 // reads not served
	Corrupt int64 // spans dropped since their bytes did not have their checksum
	Puts    int64 // spans written
	Dropped int64 // spans offered and not written
	Evicted int64 // spans given up for space, by this process
	Errors  int64 // failed system calls on the cache's files
	Bytes   int64 // disk space of the spans kept now, by all processes
}

// counters are what is not counted on each read.
type counters struct {
	hits, misses, corrupt, puts, dropped, evicted, errors atomic.Int64
}

func (c *counters) add(s Stats) {
	c.hits.Add(s.Hits)
	c.misses.Add(s.Misses)
	c.corrupt.Add(s.Corrupt)
	c.puts.Add(s.Puts)
	c.dropped.Add(s.Dropped)
	c.evicted.Add(s.Evicted)
	c.errors.Add(s.Errors)
}

func (c *counters) addTo(s *Stats) {
	s.Hits += c.hits.Load()
	s.Misses += c.misses.Load()
	s.Corrupt += c.corrupt.Load()
	s.Puts += c.puts.Load()
	s.Dropped += c.dropped.Load()
	s.Evicted += c.evicted.Load()
	s.Errors += c.errors.Load()
}

// Stats returns the counters of this process, over all blobs.
func (c *Cache) Stats() Stats {
	var s Stats
	c.mu.Lock()
	c.past.addTo(&s)
	for b := range c.blobs {
		b.addTo(&s)
	}
	c.mu.Unlock()
	if used, ok := c.used(); ok {
		s.Bytes = used
	}
	return s
}

// Stats returns the counters of this handle. Bytes are those of the blob,
// whoever put them; they are added up at each call. Evictions are counted by
// the Cache only.
func (b *Blob) Stats() Stats {
	var s Stats
	b.addTo(&s)
	if st := b.enter(0); st != nil {
		_ = guard(func() error { s.Bytes = b.files.bytes(); return nil })
		st.leave()
	}
	return s
}

func (b *Blob) addTo(s *Stats) {
	b.count.addTo(s)
	for i := range b.stripes {
		s.Hits += b.stripes[i].hits.Load()
		s.Misses += b.stripes[i].misses.Load()
	}
}
