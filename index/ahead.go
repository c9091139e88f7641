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
	r.mu.Lock()
	if r.opt.ReadAhead <= 0 {
		r.mu.Unlock()
		return
	}
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
	r.runAhead(from, to)
}

// runAhead begins flights for what is nowhere yet of stream bytes [from, to).
func (r *Reader) runAhead(from, to int64) {
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

const (
	besideFiles = 16
	besideBytes = 4 << 20
	besideRows  = 64 // looked at to find them
)

// beside reads ahead the files that follow a file in its directory and in the
// archive: whoever opens one of them is likely to open the next. Most are in
// the span that the file is in; this is about those behind it. sp was not
// there, else whoever reads file after file is a sequence already.
func (r *Reader) beside(row uint32, sp span) {
	r.mu.Lock()
	off := r.opt.ReadAhead <= 0
	r.mu.Unlock()
	if off || row == 0 {
		return
	}
	a, err := r.t.Attr(row)
	if err != nil {
		return
	}
	from := sp.off + int64(sp.size)
	to, files := from, 0
	for next := row + 1; next <= row+besideRows && int64(next) < int64(r.t.NumRows()) && files < besideFiles; next++ {
		b, err := r.t.Attr(next)
		if err != nil || b.Parent != a.Parent || b.Type != TypeFile {
			continue
		}
		f, err := r.t.file(next)
		if err != nil || f.size == 0 {
			continue
		}
		files++
		at, n, err := f.at(0, r.t.piece)
		if err != nil || at < sp.off { // a hole, or a name for a file further in front
			continue
		}
		if at >= from+besideBytes {
			break
		}
		to = max(to, min(at+n, from+besideBytes))
	}
	r.runAhead(from, to)
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
		f := r.begin(sp, false)
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
