package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"objectmount/internal/inflate"
)

// decoder is the reading half of a first pass: a goroutine that reads the
// object and decodes it into a ring of buffers, while the other half looks at
// what is already there. Memory is bounded however slow that is.
type decoder struct {
	read atomic.Int64 // bytes of the object
	full chan decoded
	free chan []byte
	quit context.CancelFunc
	done chan struct{}
}

// decoded is a piece of the stream, with the cuts that lie in it and the
// points that came with it. An error comes alone, io.EOF too.
type decoded struct {
	data, buf []byte
	cuts      [][2]int64 // in, out
	points    []inflate.Point
	err       error
}

const (
	decodeBuffers = 6
	decodeHistory = 32 << 10
	decodeLeast   = 64 << 10 // bytes of output in one buffer, at first, and
	decodeMost    = 512 << 10
	// decodeSlow is how long a buffer may take to fill before the next ones
	// are made smaller, so that on a slow link bytes are seen soon.
	decodeSlow = 50 * time.Millisecond
)

// decode starts the goroutine. r gives the object's bytes; first is what was
// read of them already.
func decode(ctx context.Context, r io.Reader, gzip bool) *decoder {
	ctx, cancel := context.WithCancel(ctx)
	d := &decoder{
		full: make(chan decoded, decodeBuffers), free: make(chan []byte, decodeBuffers),
		quit: cancel, done: make(chan struct{}),
	}
	for range decodeBuffers {
		d.free <- nil
	}
	r = &countingReader{r, &d.read}
	go func() {
		defer close(d.done)
		defer close(d.full)
		if gzip {
			d.inflate(ctx, r)
		} else {
			d.copy(ctx, r)
		}
	}()
	return d
}

// stop ends the goroutine. A read that is under way must end by itself.
func (d *decoder) stop() {
	d.quit()
	for range d.full {
	}
	<-d.done
}

// buffer waits for a free buffer.
func (d *decoder) buffer(ctx context.Context) []byte {
	select {
	case b := <-d.free:
		if b == nil {
			b = make([]byte, decodeHistory+decodeMost+4096)
		}
		return b
	case <-ctx.Done():
		return nil
	}
}

func (d *decoder) inflate(ctx context.Context, r io.Reader) {
	var c decoded
	z := inflate.NewReader(inflate.FromReader(r), inflate.Options{
		Spacing: plainSpan,
		OnCut:   func(in, out int64) { c.cuts = append(c.cuts, [2]int64{in, out}) },
		OnPoint: func(p inflate.Point) error {
			p.Window, p.Tables = bytes.Clone(p.Window), bytes.Clone(p.Tables)
			c.points = append(c.points, p)
			return nil
		},
	})
	defer z.Close()
	// The last buffer is history for the next one until that is filled; so it
	// is only then that whoever has it may give it back. The ring holds more
	// buffers than that takes, and Fill copies the history at once.
	size := decodeLeast
	for {
		b := d.buffer(ctx)
		if b == nil {
			return
		}
		began := time.Now()
		data, err := z.Fill(b[:decodeHistory+size+4096])
		if time.Since(began) > decodeSlow {
			size = max(size/2, decodeLeast)
		} else {
			size = min(size*2, decodeMost)
		}
		c.data, c.buf, c.err = data, b, gzipError(err)
		d.full <- c // has room for the whole ring
		if err != nil {
			return
		}
		c = decoded{}
	}
}

func (d *decoder) copy(ctx context.Context, r io.Reader) {
	least := blockSize // the first piece has to tell what the object is
	for {
		b := d.buffer(ctx)
		if b == nil {
			return
		}
		n, err := io.ReadAtLeast(r, b, least)
		if err == io.ErrUnexpectedEOF {
			err = nil // the end comes with the next call
		}
		if n > 0 {
			d.full <- decoded{data: b[:n], buf: b}
			if err == nil {
				least = 1
				continue
			}
			b = nil
		}
		d.full <- decoded{buf: b, err: err}
		return
	}
}

// gzipError gives the decoder's refusals their sentinel; errors of the source
// pass.
func gzipError(err error) error {
	var e *inflate.Error
	switch {
	case !errors.As(err, &e):
		return err
	case errors.Is(err, inflate.ErrTruncated):
		return fmt.Errorf("%w: gzip: %w: %w", ErrCorrupt, err, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: gzip: %w", ErrCorrupt, err)
}

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// streamOf reads all of src in order, by its Stream if it has one.
func streamOf(ctx context.Context, src Source) (io.ReadCloser, error) {
	if s, ok := src.(Streamer); ok {
		return s.Stream(ctx, 0)
	}
	return io.NopCloser(&sectionReader{ctx: ctx, src: src}), nil
}

// sectionReader reads a Source in order. Small reads are made large ones,
// since each may be a request.
type sectionReader struct {
	ctx context.Context
	src Source
	off int64
	buf []byte
	ok  []byte // read and not given
}

func (r *sectionReader) Read(p []byte) (int, error) {
	if len(r.ok) == 0 {
		left := r.src.Size() - r.off
		if left <= 0 {
			return 0, io.EOF
		}
		if r.buf == nil {
			r.buf = make([]byte, min(1<<20, left))
		}
		n, err := r.src.ReadAtContext(r.ctx, r.buf[:min(int64(len(r.buf)), left)], r.off)
		if n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		r.off, r.ok = r.off+int64(n), r.buf[:n]
	}
	n := copy(p, r.ok)
	r.ok = r.ok[n:]
	return n, nil
}
