package index

import (
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A trace is which spans somebody used when an object was mounted last, in the
// order of their first use. Programs that start twice read the same files in
// the same order, so the next mount can fetch them before they are asked for.
// It is a file beside the index, of no use without it:
//
//	"omtrace" and the format's version   8 bytes
//	SHA-256 that the index has           32
//	number of spans                      4, little endian like all below
//	numbers of spans, none twice         4 each
//	CRC32C of all before                 4
//
// What a trace says is only ever a wish: whoever makes a wrong one can cost
// bandwidth, and Background.Bytes bounds that.

const (
	traceMagic  = "omtrace\x01"
	traceHeader = len(traceMagic) + 32 + 4
)

// MaxTrace bounds the spans of a trace.
const MaxTrace = 16 << 10

// MaxTraceBytes is the size of the longest trace file.
const MaxTraceBytes = int64(traceHeader) + 4*MaxTrace + 4

// EncodeTrace makes the file of a trace. Spans beyond MaxTrace are left out.
func (x *Index) EncodeTrace(spans []int) []byte {
	spans = spans[:min(len(spans), MaxTrace)]
	b := append([]byte(traceMagic), x.digest[:]...)
	b = le.AppendUint32(b, uint32(len(spans)))
	for _, i := range spans {
		b = le.AppendUint32(b, uint32(i))
	}
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// ParseTrace reads the file of a trace. Errors wrap ErrDamaged, or ErrMismatch
// if it is of another index.
func (x *Index) ParseTrace(b []byte) ([]int, error) {
	switch {
	case len(b) < traceHeader+4 || string(b[:len(traceMagic)]) != traceMagic:
		return nil, fmt.Errorf("read trace: %w", damaged("it does not begin as a trace does"))
	case int64(len(b)) > MaxTraceBytes || len(b)-traceHeader-4 != 4*int(le.Uint32(b[traceHeader-4:])):
		return nil, fmt.Errorf("read trace: %w", damaged("it has %d bytes and speaks of %d spans", len(b), le.Uint32(b[traceHeader-4:])))
	case crc32.Checksum(b[:len(b)-4], castagnoli) != le.Uint32(b[len(b)-4:]):
		return nil, fmt.Errorf("read trace: %w", damaged("its checksum does not match"))
	case string(b[len(traceMagic):traceHeader-4]) != string(x.digest[:]):
		return nil, fmt.Errorf("read trace: %w: it is of another index", ErrMismatch)
	}
	spans := make([]int, 0, le.Uint32(b[traceHeader-4:]))
	seen := make(map[uint32]bool, cap(spans))
	for at := traceHeader; at < len(b)-4; at += 4 {
		i := le.Uint32(b[at:])
		if uint64(i) >= uint64(x.spans) || seen[i] {
			return nil, fmt.Errorf("read trace: %w", damaged("it speaks of span %d of %d, or twice of it", i, x.spans))
		}
		seen[i] = true
		spans = append(spans, int(i))
	}
	return spans, nil
}

// MergeTrace adds to a trace what it has not of an older one, up to the
// longer's length: a mount that was hardly used does not make forgotten what
// one before it was used for, and in time what nobody uses is forgotten.
func MergeTrace(now, older []int) []int {
	seen := make(map[int]bool, len(now))
	for _, i := range now {
		seen[i] = true
	}
	most := min(max(len(now), len(older)), MaxTrace)
	all := slices.Clone(now[:min(len(now), most)])
	for _, i := range older {
		if len(all) >= most {
			break
		}
		if !seen[i] {
			all = append(all, i)
		}
	}
	return all
}

// A trace is published as an object of its own, as an index is, and beside it.
// An index without one is as good.

const traceSuffix = ".objectmount-trace"

// Keys of a published trace's metadata; MetaObject is one, too.
const (
	MetaTraceVersion = "objectmount-trace-version"
	MetaTraceIndex   = "objectmount-trace-index" // digest of its index, in hex
)

// PublishedTraceName is the name of the trace of the object with that id.
func PublishedTraceName(objectID string) string { return objectID + traceSuffix }

// TraceMetadata is what a published trace of this index says of itself.
func (x *Index) TraceMetadata() map[string]string {
	return map[string]string{
		MetaTraceVersion: strconv.Itoa(int(traceMagic[len(traceMagic)-1])),
		MetaTraceIndex:   x.Digest(),
		MetaObject:       x.object.ID,
	}
}

// IsTrace says whether a published trace with this metadata is of this index.
func (x *Index) IsTrace(m map[string]string) bool {
	for key, value := range x.TraceMetadata() {
		if m[key] != value {
			return false
		}
	}
	return true
}

// recorder notes what reads use first. Nil records nothing.
type recorder struct {
	window time.Duration // from the first read on
	ended  atomic.Bool   // set with mu held
	last   atomic.Int64  // key of what was noted last, +1
	over   chan struct{} // closed when the window is

	mu    sync.Mutex // guards the rest
	timer *time.Timer
	notes []int64 // spans; or ^offset of what was read before its span was known
	seen  map[int64]struct{}
}

func newRecorder(window time.Duration) *recorder {
	return &recorder{window: window, over: make(chan struct{}), seen: map[int64]struct{}{}}
}

// span notes a read of span i.
func (c *recorder) span(i int) {
	if c != nil {
		c.note(int64(i), int64(i))
	}
}

// tail notes a read at off in the span that is not whole yet.
func (c *recorder) tail(off int64) {
	if c != nil {
		c.note(^(off >> 16), ^off) // some of each span will do
	}
}

func (c *recorder) note(key, value int64) {
	if c.ended.Load() || key >= 0 && c.last.Load() == key+1 {
		return // most reads are of where the one before was
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Load() {
		return
	}
	c.last.Store(key + 1)
	if _, ok := c.seen[key]; ok || len(c.notes) >= MaxTrace {
		return
	}
	if c.timer == nil {
		c.timer = time.AfterFunc(c.window, c.end)
	}
	c.seen[key] = struct{}{}
	c.notes = append(c.notes, value)
}

// end ends the window.
func (c *recorder) end() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended.Swap(true) {
		return
	}
	c.seen = nil
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.over)
}

// Recorded is closed when nothing more comes to the trace; nil, which is never
// closed, if nothing is recorded.
func (r *Reader) Recorded() <-chan struct{} {
	if r.record == nil {
		return nil
	}
	return r.record.over
}

// Trace is which spans reads have used so far, in the order of their first
// use, while it was recorded. The first pass must be over.
func (r *Reader) Trace() []int {
	if r.record == nil || !r.t.Complete() {
		return nil
	}
	r.record.mu.Lock()
	notes := slices.Clone(r.record.notes)
	r.record.mu.Unlock()
	spans := make([]int, 0, len(notes))
	seen := make(map[int]bool, len(notes))
	for _, n := range notes {
		i := int(n)
		if n < 0 {
			sp, err := r.t.locate(^n)
			if err != nil {
				continue
			}
			i = sp.i
		}
		if !seen[i] {
			seen[i] = true
			spans = append(spans, i)
		}
	}
	return spans
}
