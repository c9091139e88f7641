package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/index"
	"objectmount/internal/archivetest"
	"objectmount/internal/faulttest"
	client "objectmount/objects"
)

// TestSkim indexes plain tars with few requests, and the tree is the same.
func TestSkim(t *testing.T) {
	var sparse sparseTar
	rows := 0
	for i := range 50 {
		const size = 40 << 20
		sparse.write(archivetest.Entry{Name: fmt.Sprintf("large%d", i), Size: size}.Bytes())
		sparse.size += size
		rows++
		for j := range 100 * (1 - min(1, i%10)) {
			sparse.write(archivetest.File(fmt.Sprintf("small%d/%d", i, j), "x"))
			rows++
		}
	}
	sparse.write(archivetest.Zeros(2))
	src := &faulty{Source: &sparse}
	x, err := index.Build(bg, src, index.BuildOptions{Skim: true})
	must(t, err)
	if got := x.NumRows() - 1; got != rows+5 {
		t.Errorf("%d rows, want %d", got, rows+5)
	}
	if n := src.reads.Load(); n > 60 {
		t.Errorf("%d requests", n)
	}
	if off, size, sum := x.Span(3); x.HasSums() || off != 3<<20 || size != 1<<20 || sum != 0 {
		t.Errorf("span 3: %d %d %d", off, size, sum)
	}
	t.Logf("%d requests for %d bytes", src.reads.Load(), sparse.Size())
	if !testing.Short() {
		overHTTP(t, &sparse, x)
	}
	cut := &sparseTar{pieces: sparse.pieces, size: sparse.size - 3<<20}
	if _, err := index.Build(bg, cut, index.BuildOptions{Skim: true}); !errors.Is(err, index.ErrTarTruncated) {
		t.Errorf("a truncated one: %v", err)
	}
}

// overHTTP indexes a plain tar from a server that takes 30 ms to answer: each
// read is one request, and there is the one that opens the object.
func overHTTP(t *testing.T, tar *sparseTar, want *index.Index) {
	t.Helper()
	var requests atomic.Int32
	srv := httptest.NewServer(faulttest.Line{Latency: 30 * time.Millisecond}.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "a.tar", time.Time{}, io.NewSectionReader(tar, 0, tar.size))
	})))
	defer srv.Close()
	src, err := client.Open(bg, client.FixedURL(client.Secret(srv.URL+"/a.tar")), client.ReaderOptions{})
	must(t, err)
	defer src.Close()
	x, err := index.Build(bg, src, index.BuildOptions{Skim: true})
	must(t, err)
	defer x.Close()
	if n := requests.Load(); n > 60 || !bytes.Equal(x.Bytes(), want.Bytes()) {
		t.Errorf("%d requests for an index of %d bytes, want %d", n, x.Size(), want.Size())
	}
	t.Logf("%d requests over HTTP", requests.Load())
}

// sparseTar is a Source made of what was written and of zeros.
type sparseTar struct {
	pieces []struct {
		off  int64
		data []byte
	}
	size int64
}

func (s *sparseTar) write(p []byte) {
	s.pieces = append(s.pieces, struct {
		off  int64
		data []byte
	}{s.size, p})
	s.size += int64(len(p))
}

func (s *sparseTar) Size() int64 { return s.size }

func (s *sparseTar) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	return s.ReadAt(p, off)
}

func (s *sparseTar) ReadAt(p []byte, off int64) (int, error) {
	n := int(min(int64(len(p)), s.size-off))
	clear(p[:n])
	for _, x := range s.pieces {
		if x.off < off+int64(n) && off < x.off+int64(len(x.data)) {
			copy(p[max(0, x.off-off):n], x.data[max(0, off-x.off):])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
