package inflate

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
)

const (
	// chunkSize is what a worker decodes before it hands it over, and
	// workerChunks how many of them it may be ahead by.
	chunkSize    = historySize + 512<<10 + outSlack
	workerChunks = 12
)

// RangeOptions of DecodeRanges; the zero value is good for the ranges between
// points of a gzip file.
type RangeOptions struct {
	// Raw reads bare DEFLATE.
	Raw bool
	// Size is the compressed size in bytes. If not 0, the range from the last
	// point to the end of the stream is decoded, too.
	Size int64
	// Workers is the number of ranges decoded at a time, GOMAXPROCS if 0. A
	// worker takes up to 6.6 MiB.
	Workers int
}

// DecodeRanges decodes the ranges between consecutive points, in parallel,
// and calls yield with their bytes, in order and from the calling goroutine.
// data is valid during the call. Each range is checked: it must end exactly
// where the next point lies, with that point's CRC, or with the member's.
//
// open gives the compressed bytes [lo, hi) of the stream, and is called from
// several goroutines. A Source that is an io.Closer is closed in the end. When
// yield, open or a range fails, the context given to open is cancelled and the
// first error, in order of the ranges, is returned.
func DecodeRanges(ctx context.Context, points []Point, opt RangeOptions,
	open func(ctx context.Context, lo, hi int64) (Source, error),
	yield func(off int64, data []byte) error) error {

	for i := 1; i < len(points); i++ {
		if points[i].In < points[i-1].In || points[i].Out < points[i-1].Out {
			return &Error{In: points[i].In / 8, Out: points[i].Out, What: errNotIncreases.what, Err: errNotIncreases.err}
		}
	}
	n := len(points) - 1
	if opt.Size > 0 {
		n++
	}
	if n <= 0 {
		return nil
	}
	workers := opt.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = min(workers, n)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	// Ranges are begun in order, at most workers beyond the one that is handed
	// over. A range's chunks wait for their turn in its own channel; a worker
	// has a fixed number of buffers for them, so they cannot be many. What is
	// in order has a worker, who closes its channel in the end.
	jobs, order := make(chan *rangeJob), make(chan *rangeJob, workers)
	wg.Go(func() {
		defer close(order)
		defer close(jobs)
		for i := range n {
			j := &rangeJob{start: points[i], hi: opt.Size, out: make(chan chunk, workerChunks)}
			if i+1 < len(points) {
				j.end = &points[i+1]
				j.hi = (j.end.In + 7) / 8
			}
			for _, c := range []chan *rangeJob{jobs, order} {
				select {
				case c <- j:
				case <-ctx.Done():
					return
				}
			}
		}
	})
	for range workers {
		wg.Go(func() {
			free := make(chan []byte, workerChunks)
			for range workerChunks {
				free <- nil // made when they are needed
			}
			for j := range jobs {
				j.err = j.decode(ctx, opt.Raw, open, free)
				close(j.out)
			}
		})
	}
	for j := range order {
		for c := range j.out {
			if err := yield(c.off, c.data); err != nil {
				return err
			}
			c.free <- c.buf
		}
		if j.err != nil {
			return j.err
		}
	}
	return ctx.Err()
}

type rangeJob struct {
	start Point
	end   *Point // nil: the end of the stream
	hi    int64
	out   chan chunk
	err   error // set before out is closed
}

type chunk struct {
	off       int64
	data, buf []byte
	free      chan<- []byte // where buf goes back to
}

// decode decodes the range into buffers from free and sends them to j.out,
// which has room for all of them.
func (j *rangeJob) decode(ctx context.Context, raw bool, open func(context.Context, int64, int64) (Source, error), free chan []byte) (err error) {
	src, err := open(ctx, j.start.In/8, j.hi)
	if err != nil {
		return err
	}
	if c, ok := src.(io.Closer); ok {
		defer func() { err = errors.Join(err, c.Close()) }()
	}
	r := Resume(j.start, src, Options{Raw: raw, To: j.end})
	defer r.Close()
	for {
		var buf []byte
		select {
		case buf = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		if buf == nil {
			buf = make([]byte, chunkSize)
		}
		off := r.offset()
		data, err := r.Fill(buf)
		if err != nil {
			free <- buf
			if err == io.EOF {
				return nil
			}
			return err
		}
		j.out <- chunk{off, data, buf, free}
	}
}

// limitExact keeps output inside the range that Options.To ends, and gives io.EOF
// at its end: both offsets are those of the point, and what comes next is what it
// says. An end of block, or of a member, may lie before it; to take that, one
// byte more is allowed, and refused when it really comes.
func (r *Reader) limitExact() error {
	end := r.opt.To
	left := end.Out - r.offset()
	if left < 0 || r.bitPos() > end.In {
		return errRange
	}
	next := atBlock
	if end.Member {
		next = atMember
	} else if len(end.Tables) > 0 {
		next = inBlock
	}
	if left == 0 && r.bitPos() == end.In && r.state == next {
		r.sum()
		if !r.opt.Raw && !end.Member && (r.crc != end.CRC || uint32(end.Out-r.begin) != end.Size) {
			return errRangeCRC
		}
		return io.EOF
	}
	if r.state == atEnd {
		return errRange
	}
	r.fastSoft = int(min(int64(r.fastSoft), end.Out-r.base-outSlack))
	r.soft = int(min(int64(r.soft), max(end.Out, r.offset()+1)-r.base))
	return nil
}
