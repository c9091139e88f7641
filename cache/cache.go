package cache

// Bounds of what is kept. Spans beyond them are not cached; reading them works
// as if the cache were not there.
const (
	MaxSpans    = 1 << 22  // spans of one blob
	MaxSpanSize = 64 << 20 // bytes of one span
)

// Options of Open. The zero value is a good default.
type Options struct {
	// Budget is how many bytes of spans are kept, of all blobs together. Files
	// that the caller keeps beside them (WriteFile) are not counted.
	// 0: a quarter of the file system.
	Budget int64

	// FreeFloor is how many bytes of the file system stay free: below it spans
	// are evicted, and none added. 0: the larger of 1 GiB and 5 % of the file
	// system. Negative: no floor.
	FreeFloor int64
}

// Cache is a directory of spans. It is safe for concurrent use, and several
// processes may have the same directory open at once.
type Cache struct{}

// Layout says where the spans of a stream lie: span i is the bytes
// [off, off+size), and sum their CRC32C (Castagnoli), or 0 when it is not
// known. Spans are in order and do not overlap. A Layout may grow while it is
// in use, and must be safe for concurrent use; Span is called on each read, so
// it should be cheap.
type Layout interface {
	NumSpans() int
	Span(i int) (off int64, size int, sum uint32)
}

// Blob is the spans of one object. It is safe for concurrent use.
type Blob struct{}

// Open opens the cache in dir and makes it if it is not there. A directory
// that belongs to someone else, or that others may write to, is refused.
func Open(dir string, opt Options) (*Cache, error) { return nil, nil }

// Blob opens the spans kept under id, which names the bytes of one object and
// the way they are cut into spans: store origin, object id, ETag, size, span
// size. Two layouts under one id must agree about each span that both have.
//
// An error means that there is no cache for this object (a full disk, say);
// reads can go on without.
func (c *Cache) Blob(id string, layout Layout) (*Blob, error) { return nil, nil }

// Path returns where the file called name lies beside the spans of id. It
// need not exist.
func (c *Cache) Path(id, name string) string { return "" }

// WriteFile makes the file called name beside the spans of id, an index or a
// trace, from what write writes: whole or not at all. It is not synced.
func (c *Cache) WriteFile(id, name string, data []byte) error { return nil }

// Sweep removes every identity that no process has open and of which keep says
// false (nil keeps none), with the files beside its spans. It returns how many.
func (c *Cache) Sweep(keep func(id string) bool) (int, error) { return 0, nil }

// Trim evicts until budget and floor hold. PutSpan sees to both by itself;
// Trim is for a disk that others fill while nothing is put.
func (c *Cache) Trim() error { return nil }

// Stats returns the counters of this process.
func (c *Cache) Stats() Stats { return Stats{} }

// Close closes the cache, and the blobs that are still open.
func (c *Cache) Close() error { return nil }

// ReadSpan copies the bytes [off, off+len(p)) of span i to p, and says whether
// it did. False means that the span is not here, or not whole: it has to be
// decoded (again); what p then holds is undefined.
func (b *Blob) ReadSpan(i int, p []byte, off int) bool { return false }

// PutSpan offers the whole bytes of span i, which may be dropped: when the
// disk is full or broken, or when they are not what the layout says. data is
// not retained.
func (b *Blob) PutSpan(i int, data []byte) {}

// HasSpan says whether span i is here. It may be gone, or prove damaged, when
// it is read.
func (b *Blob) HasSpan(i int) bool { return false }

// Pin keeps the spans [lo, hi) that are here, or get here, from being evicted
// by any process, until release is called or the process ends. A span that
// proves damaged is dropped all the same.
func (b *Blob) Pin(lo, hi int) (release func(), err error) { return nil, nil }

// Stats returns the counters of this handle.
func (b *Blob) Stats() Stats { return Stats{} }

// Close waits for the calls under way and closes the blob. Its spans stay.
func (b *Blob) Close() error { return nil }

// Stats is a snapshot of counters since Open.
type Stats struct {
	Hits    int64 // reads served
	Misses  int64 // reads not served
	Corrupt int64 // spans dropped since their bytes or checksum were wrong
	Puts    int64 // spans written
	Dropped int64 // spans offered and not written
	Evicted int64 // spans given up for space, by this process
	Errors  int64 // failed system calls on the cache's files
	Bytes   int64 // bytes kept now, by all processes
}
