package inflate

import (
	"errors"
	"hash/crc32"
	"io"
	"sync"
)

const (
	// historySize is how far back a match may reach.
	historySize = 32 << 10
	// bufferSize is the Reader's own buffer: history in front, then room that
	// the second-level cache holds next to the tables and the input.
	bufferSize = historySize + 256<<10 + outSlack
	// MinBuffer is the least that Fill takes.
	MinBuffer = historySize + 4096
)

var errClosed = errors.New("inflate: reader is closed")

// Options of a Reader; the zero value reads gzip and records nothing.
type Options struct {
	// Raw reads bare DEFLATE: one stream, no header, no checksum. What
	// follows its final block is left unread.
	Raw bool
	// OnPoint is called with resume points, in order of their offsets, from
	// the goroutine that reads. A point comes after the output that decides
	// which bytes of its window are needed, that is up to 32 KiB late and
	// rounded up to a buffer. Its slices are valid during the call. An error
	// ends the stream.
	OnPoint func(Point) error
	// OnCut, if not nil, is told the In and Out of each point as soon as it
	// is taken, before any byte behind it is handed out; the point itself
	// follows through OnPoint. So who sums or keeps the bytes between points
	// need not look back.
	OnCut func(in, out int64)
	// Spacing is the stream distance between points in bytes, 1 MiB if 0. A
	// point lies at the first block boundary at least this far from the last
	// one, or at least 3/8 of it in compressed bytes, since decoding them is
	// what takes the time; or inside a block when none comes within twice
	// Spacing, or 4 KiB. (Below 64 KiB a stored block can be longer than that.)
	Spacing int64
	// Unchecked leaves out the CRC-32 and the length of members: for who has
	// a checksum of his own. Points that are recorded have no CRC then.
	Unchecked bool
	// End is the stream offset at which reading stops with io.EOF, if not 0.
	// Nothing behind it is checked, nor is the member's checksum.
	End int64
	// To, if not nil, is the point at which reading stops with io.EOF. What is
	// decoded must lead exactly there, with its CRC and Size, or the end is an
	// error; so ranges between points that are decoded one by one are checked
	// as if they had been decoded in one go.
	To *Point
}

// A Reader decodes one stream. It is for one goroutine at a time. Use Read,
// WriteTo, or Fill, as suits; each continues where the other stopped.
type Reader struct {
	opt Options

	// Input: the source's current slice, the next byte of it, the slice's
	// offset; and the nb bits taken from it but not yet used.
	src    Source
	srcErr error
	in     []byte
	ip     int
	inOff  int64
	bits   uint64
	nb     uint64
	short  bool // take found too few bits

	// Output: see the picture in fast.go. base is the stream offset of out[0].
	out      []byte
	w        int
	lo       int // first byte of the history
	mark     int // matches from before here call far; lo, or a point's place
	soft     int // stop when w gets here ...
	fastSoft int // ... and the fast loop when it gets here
	base     int64

	// The block.
	state        state
	final        bool
	stored       int     // bytes left of a stored block
	tab          *tables // its tables: fixed() or &mem.tables
	nlit, ndist  int     // code lengths in mem.lens, 0 in a fixed block
	dist, length int     // a match that is left to do

	// The gzip member.
	members int    // headers read
	begin   int64  // stream offset of its first byte
	crc     uint32 // of its bytes before out[summed]
	summed  int

	// For an Ahead: it takes over where blocks are decoded already, and sums
	// later. begun is the place in out where the open member began, -1 if that
	// was in an earlier buffer; oldEnd the end of a member that began there.
	ahead  *Ahead
	late   bool
	begun  int
	oldEnd *memberEnd

	marks []byte // of a guess: the other plane of out; see marked.go

	track tracker

	ready    []byte // decoded by Read and not yet handed out
	err      error  // what the next call returns
	mem      *memory
	buf      *[bufferSize]byte
	onlySlow bool // tests
}

// memory is the part of a Reader worth keeping for the next one.
type memory struct {
	tables tables
	fixed  *tables
	pre    [1 << preBits]uint32
	lens   [maxLit + maxDist]uint8
	window [historySize]byte
	packed [3 + maxLit + maxDist]byte
}

var (
	memories = sync.Pool{New: func() any { return new(memory) }}
	buffers  = sync.Pool{New: func() any { return new([bufferSize]byte) }}
)

type state uint8

const (
	atMember  state = iota // before a gzip header, or the end
	atBlock                // before a block's header
	inBlock                // among a Huffman block's symbols
	inStored               // among a stored block's bytes
	atTrailer              // behind the final block
	atEnd
)

// NewReader returns a Reader of the stream that src gives.
func NewReader(src Source, opt Options) *Reader {
	r := &Reader{opt: opt}
	r.Reset(src)
	return r
}

// Reset makes r read a new stream from src, with the options it has.
func (r *Reader) Reset(src Source) {
	*r = Reader{opt: r.opt, src: src, mem: r.mem, buf: r.buf, onlySlow: r.onlySlow}
	if r.mem == nil {
		r.mem = memories.Get().(*memory)
	}
	if r.opt.Spacing <= 0 {
		r.opt.Spacing = 1 << 20
	}
	if r.opt.Raw {
		r.state = atBlock
	}
}

// Close gives the Reader's memory back for others; the Reader is of no more
// use, except to Reset it. Slices it returned are no longer valid.
func (r *Reader) Close() error {
	if r.mem != nil {
		memories.Put(r.mem)
	}
	if r.buf != nil {
		buffers.Put(r.buf)
	}
	*r = Reader{opt: r.opt, err: errClosed, onlySlow: r.onlySlow}
	return nil
}

// Read reads decoded bytes.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	data, err := r.peek()
	n := copy(p, data)
	r.ready = data[n:]
	return n, err
}

// WriteTo writes the rest of the stream to w, straight from the buffer.
func (r *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		data, err := r.peek()
		if err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(data)
		total += int64(n)
		r.ready = data[n:]
		if err != nil {
			return total, err
		}
	}
}

// Discard drops the next n bytes of the stream.
func (r *Reader) Discard(n int64) error {
	for n > 0 {
		data, err := r.peek()
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		k := min(n, int64(len(data)))
		r.ready = data[k:]
		n -= k
	}
	return nil
}

// peek gives bytes that are decoded and not yet handed out, or an error.
func (r *Reader) peek() (data []byte, err error) {
	if len(r.ready) == 0 {
		r.ready, err = r.Fill(r.buffer())
	}
	return r.ready, err
}

func (r *Reader) buffer() []byte {
	if r.buf == nil && r.err == nil {
		r.buf = buffers.Get().(*[bufferSize]byte)
	}
	if r.buf == nil {
		return nil
	}
	return r.buf[:]
}

// Fill decodes the next bytes of the stream into buf, of MinBuffer bytes or
// more, and returns the part of buf that holds them: the first 32 KiB are
// used for history, and a little is left free at the end. The bytes in buf
// must not be changed before the next call, and buf may then be another one
// or the same; so a ring of buffers is filled without a copy of ours.
func (r *Reader) Fill(buf []byte) ([]byte, error) {
	if len(r.ready) > 0 {
		n := copy(buf, r.ready)
		r.ready = r.ready[n:]
		return buf[:n], nil
	}
	if r.err != nil {
		return nil, r.err
	}
	if len(buf) < MinBuffer {
		return nil, io.ErrShortBuffer
	}
	r.use(buf)
	start := r.w
	err := r.decode()
	if err == errMet { // the Ahead goes on
		return r.out[start:r.w], nil
	}
	if r.opt.End > 0 {
		r.w = min(r.w, max(start, int(r.opt.End-r.base)))
	}
	if err == nil || err == io.EOF {
		r.sum()
	}
	r.err = r.place(err)
	if r.w > start {
		return r.out[start:r.w], nil
	}
	return nil, r.err
}

// use makes buf the output, with the history in front.
func (r *Reader) use(buf []byte) {
	n := min(r.w-r.lo, historySize)
	copy(buf[historySize-n:historySize], r.out[r.w-n:r.w])
	shift := historySize - r.w
	r.out, r.w, r.summed = buf, historySize, historySize
	r.base -= int64(shift)
	r.lo = historySize - n
	r.mark = max(r.lo, r.mark+shift)
}

// offset is the stream offset of the next byte.
func (r *Reader) offset() int64 { return r.base + int64(r.w) }

// sum brings the member's CRC up to w.
func (r *Reader) sum() {
	if !r.late && !r.opt.Raw && !r.opt.Unchecked {
		r.crc = crc32.Update(r.crc, crc32.IEEETable, r.out[r.summed:r.w])
	}
	r.summed = r.w
}

// place adds to a fault where it was found.
func (r *Reader) place(err error) error {
	if f, ok := err.(*fault); ok {
		return &Error{In: r.bitPos() / 8, Out: r.offset(), What: f.what, Err: f.err}
	}
	return err
}

func (f *fault) Error() string { return f.what }

// decode runs until the buffer is full, or to the end or a fault.
func (r *Reader) decode() error {
	full := len(r.out) - outSlack
	for r.w < full {
		if r.opt.End > 0 && r.offset() >= r.opt.End {
			return io.EOF
		}
		r.soft = full
		if r.opt.End > 0 {
			r.soft = int(min(int64(full), r.opt.End-r.base))
		}
		r.fastSoft = r.soft
		if r.opt.To != nil {
			if err := r.limitExact(); err != nil {
				return err
			}
		}
		if r.opt.OnPoint != nil {
			if err := r.points(); err != nil {
				return err
			}
		}
		var err error
		switch r.state {
		case atMember:
			err = r.member()
		case atBlock:
			if r.ahead != nil && r.ahead.meets() {
				return errMet
			}
			err = r.header()
		case inBlock:
			err = r.body()
		case inStored:
			err = r.copyStored()
		case atTrailer:
			err = r.trailer()
		case atEnd:
			if err := r.settle(); err != nil {
				return err
			}
			return io.EOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}
