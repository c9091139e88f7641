package inflate

import "hash/crc32"

// Part is what one Fill of an Ahead gave. Its bytes are there after Finish, and
// until Release.
type Part struct {
	ahead *Ahead
	data  []byte
	err   error

	guess *guess // data is guess.mem[at:], if not nil
	at    int

	// Of data, [0, old) belongs to the member that was open before, and
	// [fresh, len) to the one that is open behind. Members in between are
	// summed already: they are small. So a part has no more than one end.
	old, fresh int
	end        *memberEnd
}

// memberEnd is the end of a member whose bytes have yet to be summed.
type memberEnd struct {
	at      int   // place in Reader.out
	in, out int64 // for the error
	crc     uint32
}

// Last is true for the part behind which there is nothing, because of the end of
// the stream or of an error.
func (p *Part) Last() bool { return p.err != nil }

// Elsewhere is true if the bytes are not in the buffer that Fill was given:
// that is free for the next Fill then, and Release must be called.
func (p *Part) Elsewhere() bool { return p.guess != nil }

// Finish does what Fill left undone, resolving and summing, and returns the
// bytes. With the last of them, or alone, comes what Reader.Fill would return
// next, io.EOF or an error. After an error nothing is valid any more.
func (p *Part) Finish() ([]byte, error) {
	a := p.ahead
	if p.guess != nil {
		a.mu.Lock()
		for p.guess.busy { // its helper has not noticed yet, and reads what will change
			a.changed.Wait()
		}
		a.mu.Unlock()
		p.guess.resolve(p.data, p.at)
	}
	a.crc = crc32.Update(a.crc, crc32.IEEETable, p.data[:p.old])
	if e := p.end; e != nil {
		if a.crc != e.crc {
			return p.data[:p.old], &Error{In: e.in, Out: e.out, What: errCRC.what, Err: errCRC.err}
		}
		a.crc = 0
	}
	if p.fresh < len(p.data) {
		a.crc = crc32.Update(0, crc32.IEEETable, p.data[p.fresh:])
	}
	return p.data, p.err
}

// Release gives the part's memory back.
func (p *Part) Release() {
	if p.guess != nil {
		p.ahead.release(p.guess, len(p.data))
	}
}

// endLate is the trailer's check where summing comes later: only of members
// that began in this very buffer the sum is made at once.
func (r *Reader) endLate(crc uint32) {
	if r.begun < 0 {
		r.oldEnd = &memberEnd{at: r.w, in: r.bitPos() / 8, out: r.offset(), crc: crc}
		r.crc = crc
	} else {
		r.crc = crc32.ChecksumIEEE(r.out[r.begun:r.w])
	}
	r.begun = r.w
}
