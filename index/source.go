package index

import (
	"context"
	"io"
	"os"
)

// Source reads ranges of the object as it is stored, compressed or not.
// *objects.Reader is one, [FileSource] another. It is safe for concurrent use.
type Source interface {
	// Size is the object's size in bytes.
	Size() int64
	// ReadAtContext is io.ReaderAt's ReadAt that ends early with ctx: fewer
	// than len(p) bytes come with an error, which is io.EOF at the end.
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}

// Streamer is a [Source] that can also read on and on, at the speed of the
// link, as a first pass wants it.
type Streamer interface {
	// Stream reads from off to the end. The stream is one goroutine's.
	Stream(ctx context.Context, off int64) (io.ReadCloser, error)
}

// FileSource is the Source of an open file. The file's size is the one it had
// when FileSource was called.
func FileSource(f *os.File) (Source, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return readerSource{f, st.Size()}, nil
}

// ReaderSource is the Source of the first size bytes of r, which must be safe
// for concurrent use.
func ReaderSource(r io.ReaderAt, size int64) Source { return readerSource{r, size} }

type readerSource struct {
	r    io.ReaderAt
	size int64
}

func (s readerSource) Size() int64 { return s.size }

func (s readerSource) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off >= s.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > s.size-off {
		p, end = p[:s.size-off], io.EOF
	}
	n, err := s.r.ReadAt(p, off)
	if n == len(p) {
		err = end
	}
	return n, err
}

func (s readerSource) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(&contextReader{ctx, io.NewSectionReader(s.r, off, s.size-off)}), nil
}

// contextReader reads until its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// Identifier is a Source that knows its object only when all of it has been
// read, as that of an upload: a first pass asks it then, and what
// BuildOptions.Object said does not count.
type Identifier interface{ Object() ObjectID }
