package mount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"objectmount/index"
)

// Open answers ENOSYS, once: the kernel then opens files without asking, and
// keeps their pages.
func (s *server) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.ENOSYS }

// Flush likewise spares a request at each close.
func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read reads content. go-fuse lends a buffer of its own, which is not used: it
// must be given back by the deadline, and Content may not be ready by then.
func (s *server) Read(cancel <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	s.stats.reads.Add(1)
	row, off, size := row(in.NodeId), int64(in.Offset), int64(in.Size)
	a, err := s.tree.Attr(row)
	if err != nil {
		return nil, s.failed(err)
	}
	// The kernel reads whole pages: beyond the end there is nothing to wait for.
	size = min(size, a.Size-off, maxRead)
	if off < 0 || size <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}

	if p := s.readNow(row, off, int(size)); p != nil {
		s.stats.bytes.Add(size)
		return &reply{buffers: &s.buffers, buffer: p}, fuse.OK
	}
	p, err := await(s, cancel, in.Pid, func(ctx context.Context) (*buffer, error) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		// When the reply's deadline has passed meanwhile, nobody takes this buffer
		// and the garbage collector has it.
		p := s.buffers.get(int(size))
		n, err := s.content.ReadFileAt(ctx, row, p.data, off)
		if n == len(p.data) {
			return p, nil
		}
		s.buffers.put(p)
		if err == nil || err == io.EOF {
			// The kernel would show what is missing as zeros.
			err = fmt.Errorf("%d bytes instead of %d at %d of row %d: %w", n, size, off, row, io.ErrUnexpectedEOF)
		}
		return nil, err
	})
	if err != nil {
		if errors.Is(err, errInterrupted) {
			return nil, fuse.EINTR
		}
		// Whatever the network says ("not found", say), the file is there.
		s.stats.failed(err)
		return nil, fuse.EIO
	}
	s.stats.bytes.Add(size)
	return &reply{buffers: &s.buffers, buffer: p}, fuse.OK
}

// readNow is a read for which nothing has to be waited: most are, once a file
// has been used, and they need no goroutine and no clock. nil: ask await.
func (s *server) readNow(row uint32, off int64, size int) *buffer {
	ready, ok := s.content.(ReadyContent)
	if !ok {
		return nil
	}
	p := s.buffers.get(size)
	if !ready.ReadFileNow(row, p.data, off) {
		s.buffers.put(p)
		return nil
	}
	return p
}

// Lseek finds holes and data, for programs that copy sparse files.
func (s *server) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	s.stats.other.Add(1)
	a, err := s.tree.Attr(row(in.NodeId))
	if err != nil {
		return s.failed(err)
	}
	off := int64(in.Offset)
	if off < 0 || off >= a.Size {
		return fuse.Status(unix.ENXIO)
	}
	pieces := []index.Piece{{Len: a.Size}}
	if a.Stored < a.Size {
		if pieces, err = s.tree.Extents(row(in.NodeId)); err != nil {
			return s.failed(err)
		}
	}
	switch in.Whence {
	case unix.SEEK_DATA:
		for _, p := range pieces {
			if off < p.Off+p.Len {
				out.Offset = uint64(max(off, p.Off))
				return fuse.OK
			}
		}
		return fuse.Status(unix.ENXIO)
	case unix.SEEK_HOLE:
		for _, p := range pieces {
			if off < p.Off {
				break
			}
			off = max(off, min(p.Off+p.Len, a.Size))
		}
		out.Offset = uint64(off)
		return fuse.OK
	}
	return fuse.EINVAL
}

// buffers are pools of buffers for replies, by powers of two from a page to
// maxRead.
type buffers [9]sync.Pool

type buffer struct {
	data []byte // of the length asked for
	all  []byte
	pool int
}

func (b *buffers) get(n int) *buffer {
	pool := max(0, bits.Len(uint(n-1))-12)
	p, _ := b[pool].Get().(*buffer)
	if p == nil {
		p = &buffer{all: make([]byte, 4096<<pool), pool: pool}
	}
	p.data = p.all[:n]
	return p
}

func (b *buffers) put(p *buffer) { b[p.pool].Put(p) }

// reply is the content of a buffer on its way to the kernel. go-fuse calls Done
// after writing it only for results that have Slices; for others it would do so
// before, and the buffer could be another read's by then.
type reply struct {
	buffers *buffers
	buffer  *buffer
}

func (r *reply) Slices() ([][]byte, fuse.Status)    { return [][]byte{r.buffer.data}, fuse.OK }
func (r *reply) Bytes([]byte) ([]byte, fuse.Status) { return r.buffer.data, fuse.OK }
func (r *reply) Size() int                          { return len(r.buffer.data) }
func (r *reply) Done()                              { r.buffers.put(r.buffer) }
