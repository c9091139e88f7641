package index

// Reading ahead. Reads that follow one another, or nearly so (readers of an
// archive's files skip its headers, kernels ask a little out of order), are a
// sequence. The second read of one begins to read ahead, at first a span or
// two, then twice as much whenever half of it has been used up.

// sequence is one of the last sequences of reads.
type sequence struct {
	next   int64 // where the last read ended
	ahead  int64 // what is before here was asked for
	window int64
	reads  int
	used   uint64 // when
}

const (
	// A read belongs to a sequence if it begins this much before or behind
	// its end.
	nearBefore = 256 << 10
	nearBehind = 512 << 10
	firstAhead = 1 << 20
)

// follow takes note of a read of [off, end), and reads ahead.
func (r *Reader) follow(off, end int64) {
	if r.opt.ReadAhead <= 0 {
		return
	}
	r.mu.Lock()
	r.clock++
	s := &r.follows[0]
	for i := range r.follows {
		x := &r.follows[i]
		if x.used > 0 && off >= x.next-nearBefore && off <= x.next+nearBehind {
			s = x
			break
		}
		if x.used < s.used {
			s = x
		}
	}
	if s.used == 0 || off < s.next-nearBefore || off > s.next+nearBehind {
		*s = sequence{next: off}
	}
	s.used = r.clock
	s.reads++
	s.next = max(s.next, end)
	s.ahead = max(s.ahead, s.next)
	from, to := s.ahead, int64(0)
	if s.reads >= 2 && s.ahead-s.next <= s.window/2 {
		s.window = min(max(2*s.window, firstAhead), r.opt.ReadAhead)
		to = s.next + s.window
		s.ahead = to
	}
	r.mu.Unlock()
	// A read of many spans is a sequence of its own.
	if end-off > plainSpan {
		from, to = off, max(to, end)
	}
	to = min(to, r.t.StreamSize())
	for from < to {
		run, next := r.collect(from, to, false)
		r.launch(run, true)
		for _, f := range run { // they go on without us
			r.leave(f)
		}
		if next < 0 {
			return
		}
		from = next
	}
}

// collect begins flights for a run of spans from stream byte off on that are
// nowhere yet, and says where to go on; -1: nowhere, the memory is used up or
// the spans are not known. The caller is a reader of each, and must launch
// them. Those that someone waits for take their memory when it is free; those
// ahead of readers only if it is.
func (r *Reader) collect(off, end int64, wanted bool) (flights []*flight, next int64) {
	var lo, hi int64
	for off < end && len(flights) < runSpans {
		sp, err := r.t.locate(off)
		if err != nil {
			return flights, -1
		}
		if len(flights) > 0 && (sp.lo < lo || sp.hi < hi || sp.hi-lo > runBytes) {
			break
		}
		have := r.spans != nil && r.spans.HasSpan(sp.i)
		r.mu.Lock()
		if have || r.flights[sp.i] != nil {
			r.mu.Unlock()
			if len(flights) > 0 {
				break
			}
			off = sp.off + int64(sp.size)
			continue
		}
		if r.ctx.Err() != nil || !wanted && !r.room(len(flights)+1) {
			r.mu.Unlock()
			return flights, -1
		}
		f := r.begin(sp)
		f.ahead = !wanted
		r.mu.Unlock()
		if len(flights) == 0 {
			lo = sp.lo
		}
		hi = sp.hi
		flights = append(flights, f)
		off = sp.off + int64(sp.size)
	}
	return flights, off
}

// room says whether n more spans can be decoded at once without waiting for
// memory. The lock is held.
func (r *Reader) room(n int) bool {
	used := r.held
	for _, f := range r.kept {
		if f.refs == 0 {
			used -= f.held
		}
	}
	return used+int64(n)*2*plainSpan <= r.opt.Memory
}
