package index

// ReadFileNow reads len(p) bytes of the file row at off if all of them can be
// had at once: from Spans, with no fetching, no decoding and no waiting for
// others. Otherwise it says false, p's bytes are undefined, and ReadFileAt is
// the one to ask, which knows errors and ends, too.
func (r *Reader) ReadFileNow(row uint32, p []byte, off int64) bool {
	if r.spans == nil || off < 0 || r.ctx.Err() != nil || !r.t.Complete() {
		return false
	}
	f, err := r.t.file(row)
	if err != nil || int64(len(p)) > f.size-off {
		return false
	}
	for n := 0; n < len(p); {
		stream, run, err := f.at(off+int64(n), r.t.piece)
		if err != nil {
			return false
		}
		q := p[n:min(int64(len(p)), int64(n)+run)]
		if stream < 0 {
			clear(q)
		} else if !r.readNow(q, stream) {
			return false
		}
		n += len(q)
	}
	return true
}

// readNow reads bytes [off, off+len(p)) of the stream from Spans.
func (r *Reader) readNow(p []byte, off int64) bool {
	for n := 0; n < len(p); {
		at := off + int64(n)
		if k := r.t.tail(p[n:], at); k > 0 {
			r.record.tail(at)
			n += k
			continue
		}
		sp, err := r.t.locate(at)
		if err != nil {
			return false
		}
		k := int(min(int64(len(p)-n), sp.off+int64(sp.size)-at))
		if k <= 0 || !r.spans.ReadSpan(sp.i, p[n:n+k], int(at-sp.off)) {
			return false
		}
		r.record.span(sp.i)
		r.stats.hits.Add(1)
		n += k
	}
	r.follow(off, off+int64(len(p)))
	return true
}
