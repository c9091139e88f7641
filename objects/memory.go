package objects

import (
	"context"
	"sync"
)

// chunkSize is the unit in which memory is given out and taken back. It is
// small enough that a chunk which goes round and round stays in the
// processor's cache, and that 16 half-filled ones do not matter; and large
// enough that a read of the socket is rarely cut short by it.
const chunkSize = 256 << 10

// memory gives out chunks, never more than the budget but for one a stream:
// the bytes that a reader is waiting for are never held up by those behind
// them.
//
//	    pos (handed to the reader)
//	     ↓
//	─────█████▒▒▒▒▒▒▒▒ ████▒▒▒▒▒ ██▒▒▒▒▒▒▒ …
//	      part 1        part 2     part 3
//	█ chunks that hold bytes; ▒ asked for, on the way
//
// When it is scarce, the claim that is the least ahead of its reader is served
// first. So a full memory slows the last parts down, and the first go on. A
// stream with few workers may hold less than one with many: what is far ahead
// of a reader who is slower than the network only fills the machine.
type memory struct {
	budget int

	mu      sync.Mutex
	out     int      // chunks given out
	free    [][]byte // what was given back last is given out first: it is warm
	users   int      // streams; without any, nothing is kept
	waiting []*claim
}

// claim is somebody waiting for the chunk at off.
type claim struct {
	w     *window
	off   int64
	given chan []byte // has room for one
}

// join counts a stream in, leave counts it out.
func (m *memory) join() {
	m.mu.Lock()
	m.users++
	m.mu.Unlock()
}

func (m *memory) leave() {
	m.mu.Lock()
	if m.users--; m.users == 0 {
		m.free = nil
	}
	m.mu.Unlock()
}

// share is how many bytes one stream may count on now.
func (m *memory) share() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(m.budget/max(m.users, 1)) * chunkSize
}

// take gives the chunk for the bytes of w from off on.
func (m *memory) take(ctx context.Context, w *window, off int64) ([]byte, error) {
	c := &claim{w, off, make(chan []byte, 1)}
	m.mu.Lock()
	m.waiting = append(m.waiting, c)
	m.serve()
	m.mu.Unlock()

	select {
	case b := <-c.given:
		return b, nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.waiting {
		if m.waiting[i] == c {
			m.waiting = append(m.waiting[:i], m.waiting[i+1:]...)
			return nil, context.Cause(ctx)
		}
	}
	m.back(w, <-c.given) // it came at the same moment
	return nil, context.Cause(ctx)
}

// borrow gives a chunk whatever the budget, to one who holds a single one.
func (m *memory) borrow() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.grant(nil)
}

// give takes a chunk back, from w unless it was borrowed.
func (m *memory) give(w *window, b []byte) {
	m.mu.Lock()
	m.back(w, b)
	m.mu.Unlock()
}

// widen lets w hold so many bytes, if there is room for them.
func (m *memory) widen(w *window, bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if most := int(bytes / chunkSize); most != w.most {
		w.most = most
		m.serve()
	}
}

// moved is told that a reader waits for bytes that have no chunk yet.
func (m *memory) moved() {
	m.mu.Lock()
	m.serve()
	m.mu.Unlock()
}

// grant, back and serve are called with mu held.
func (m *memory) grant(w *window) []byte {
	m.out++
	if w != nil {
		w.holding++
	}
	if n := len(m.free); n > 0 {
		b := m.free[n-1]
		m.free = m.free[:n-1]
		return b
	}
	return make([]byte, chunkSize)
}

func (m *memory) back(w *window, b []byte) {
	m.out--
	if w != nil {
		w.holding--
	}
	if m.users > 0 && m.out+len(m.free) < m.budget {
		m.free = append(m.free, b)
	}
	m.serve()
}

func (m *memory) serve() {
	for {
		first, least := -1, int64(0)
		for i, c := range m.waiting {
			ahead := c.off - c.w.pos.Load() // bytes between the reader and this chunk
			if ahead > 0 && (c.w.holding >= c.w.most || m.out >= m.budget) {
				continue
			}
			if first < 0 || ahead < least {
				first, least = i, ahead
			}
		}
		if first < 0 {
			return
		}
		c := m.waiting[first]
		c.given <- m.grant(c.w)
		m.waiting = append(m.waiting[:first], m.waiting[first+1:]...)
	}
}
