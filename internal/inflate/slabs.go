package inflate

import "io"

// slab is a stretch of the input, read before the reader wants it.
type slab struct {
	off   int64 // of the stream
	data  []byte
	mem   [slabBytes]byte
	holds int // the list, and guesses; guarded by Ahead.mu
}

const (
	slabBytes  = 256 << 10
	aheadSlabs = 16 // read ahead
)

func (s *slab) end() int64 { return s.off + int64(len(s.data)) }

// read reads the source until its end.
func (a *Ahead) read() {
	next := func([]byte) ([]byte, error) { return a.src.Next() }
	if s, ok := a.src.(interface {
		NextInto(buf []byte) ([]byte, error)
	}); ok {
		next = s.NextInto
	}
	var rest []byte // read and in no slab yet
	var off int64
	var err error
	for empty := 0; len(rest) > 0 || err == nil; {
		s := a.room()
		if s == nil {
			return
		}
		n := 0
		for n < a.sizes.slab && (len(rest) > 0 || err == nil) && (n == 0 || !a.wanted()) {
			if len(rest) == 0 {
				rest, err = next(s.mem[n:a.sizes.slab])
				if empty++; len(rest) > 0 {
					empty = 0
				} else if empty == 100 && err == nil {
					err = io.ErrNoProgress
				}
				if len(rest) > 0 && &rest[0] == &s.mem[n] { // where it belongs
					n, rest = n+len(rest), nil
					continue
				}
			}
			k := copy(s.mem[n:a.sizes.slab], rest)
			n, rest = n+k, rest[k:]
		}
		s.data, s.off, s.holds = s.mem[:n], off, 1
		off += int64(n)
		a.mu.Lock()
		if n > 0 {
			a.slabs = append(a.slabs, s)
		}
		if len(rest) == 0 {
			a.srcErr = err
		}
		a.changed.Broadcast()
		a.mu.Unlock()
	}
}

// room waits until the next slab may be read; nil means that none is wanted.
func (a *Ahead) room() *slab {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.slabs) >= aheadSlabs && !a.quit {
		a.changed.Wait()
	}
	if a.quit {
		return nil
	}
	if n := len(a.spare); n > 0 {
		s := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return s
	}
	return slabPool.Get().(*slab)
}

// wanted says whether what was read must not wait for more.
func (a *Ahead) wanted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hungry || a.quit
}

// slabSource is the Source of an Ahead's reader.
type slabSource Ahead

func (s *slabSource) Next() ([]byte, error) {
	a := (*Ahead)(s)
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for len(a.slabs) > 0 {
			if s := a.slabs[0]; s.off >= a.pos {
				a.pos = s.end()
				return s.data, nil
			}
			a.pass()
		}
		if a.srcErr != nil {
			return nil, a.srcErr
		}
		a.hungry = true
		a.changed.Wait()
		a.hungry = false
	}
}

// pass lets go of the reader's slab; mu is held. Who reads is woken for a few
// of them at a time.
func (a *Ahead) pass() {
	a.letGo(a.slabs[0])
	a.slabs = a.slabs[1:]
	if len(a.slabs) <= aheadSlabs*3/4 {
		a.changed.Broadcast()
	}
}

func (a *Ahead) letGo(s *slab) {
	if s.holds--; s.holds == 0 {
		a.spare = append(a.spare, s)
	}
}
