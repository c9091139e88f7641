package index

import "sync"

// Layout says where the spans of a stream lie, for a cache. *Index and
// *Growing are ones. Spans follow each other without gaps and cover the
// stream from 0 on.
//
// NumSpans grows while a *Growing does; what has once been said of a span
// does not change.
type Layout interface {
	NumSpans() int
	// Span gives the bytes [off, off+size) of span i and their CRC32C
	// (Castagnoli). A sum of 0 means that it is not known, which is so for
	// plain tars that were indexed without reading all of them: a cache then
	// goes by the sum that it made itself when the span was put. The size is
	// at most MaxSpan. It can be 0: such a span is never put nor read.
	Span(i int) (off int64, size int, sum uint32)
}

// MaxSpan bounds the bytes of one span.
const MaxSpan = 8 << 20

// Spans is where decoded spans are kept between reads: a *cache.Blob, or a
// MemSpans. It is safe for concurrent use.
type Spans interface {
	// ReadSpan copies bytes [off, off+len(p)) of span i into p. False means
	// that they are not there, or not to be trusted: decode the span again.
	ReadSpan(i int, p []byte, off int) bool
	// PutSpan offers the whole bytes of span i. They may be dropped, and are
	// not retained.
	PutSpan(i int, data []byte)
	// HasSpan says whether ReadSpan is likely to find span i.
	HasSpan(i int) bool
}

// MemSpans keeps all spans in memory. The zero value is empty.
type MemSpans struct {
	mu   sync.RWMutex
	data map[int][]byte
}

// ReadSpan implements Spans.
func (m *MemSpans) ReadSpan(i int, p []byte, off int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, ok := m.data[i]
	if !ok || off < 0 || off > len(data) || len(p) > len(data)-off {
		return false
	}
	copy(p, data[off:])
	return true
}

// PutSpan implements Spans.
func (m *MemSpans) PutSpan(i int, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		m.data = map[int][]byte{}
	}
	m.data[i] = append([]byte(nil), data...)
}

// HasSpan implements Spans.
func (m *MemSpans) HasSpan(i int) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.data[i]
	return ok
}

// Drop forgets span i.
func (m *MemSpans) Drop(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.data, i)
}
