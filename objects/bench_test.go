package objects_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// The benchmarks read from a server in the same process: over the loopback as
// it is, and over a line like that to a storage service far away, where each
// connection carries 90 MB/s and each answer begins after 30 ms.
//
//	go test -run '^$' -bench . ./objects
//
// The comparison with other programs, as whole processes, is `make bench-fetch`.

var far = faulttest.Line{Latency: 30 * time.Millisecond, Rate: 90e6}

// fileServer serves a sparse file of so many bytes over a line.
func fileServer(tb testing.TB, l faulttest.Line, size int64) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "object")
	f, err := os.Create(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	s := httptest.NewUnstartedServer(l.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name) // of its own, so that it goes out by sendfile
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		defer f.Close()
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "", time.Time{}, f)
	})))
	s.Listener = l.Listener(s.Listener)
	s.Start()
	tb.Cleanup(s.Close)
	return s.URL + "/object"
}

var lines = []struct {
	name string
	line faulttest.Line
}{{"loopback", faulttest.Line{}}, {"far", far}}

// drain reads a stream by Next, as an extraction does.
func drain(tb testing.TB, s io.ReadCloser, want int64) {
	tb.Helper()
	n := int64(0)
	for {
		b, err := s.(interface{ Next() ([]byte, error) }).Next()
		n += int64(len(b))
		if err == io.EOF {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := s.Close(); err != nil || n != want {
		tb.Fatalf("%d of %d bytes, %v", n, want, err)
	}
}

func BenchmarkStream(b *testing.B) {
	for _, l := range lines {
		for _, size := range []int64{67 << 20, 1 << 30} {
			for _, mem := range []int64{0, 32 << 20} {
				b.Run(fmt.Sprintf("%s/%dMiB/memory=%dMiB", l.name, size>>20, mem>>20), func(b *testing.B) {
					url := fileServer(b, l.line, size)
					b.SetBytes(size)
					b.ReportAllocs()
					requests := int64(0)
					for b.Loop() {
						r, err := objects.Open(b.Context(), objects.FixedURL(objects.Secret(url)), objects.ReaderOptions{
							Network: objects.NewNetwork(objects.Limits{Memory: mem})})
						if err != nil {
							b.Fatal(err)
						}
						s, err := r.Stream(b.Context(), 0)
						if err != nil {
							b.Fatal(err)
						}
						drain(b, s, size)
						requests = r.Stats().Requests
						r.Close()
					}
					b.ReportMetric(float64(requests), "requests")
				})
			}
		}
	}
}

// BenchmarkOneConnection is what a program does that knows nothing of ranges.
func BenchmarkOneConnection(b *testing.B) {
	for _, l := range lines {
		b.Run(l.name, func(b *testing.B) {
			const size = 256 << 20
			url := fileServer(b, l.line, size)
			b.SetBytes(size)
			buf := make([]byte, 128<<10)
			for b.Loop() {
				resp, err := http.Get(url)
				if err != nil {
					b.Fatal(err)
				}
				for n, err := 0, error(nil); err == nil; n, err = resp.Body.Read(buf) {
					_ = n
				}
				resp.Body.Close()
			}
		})
	}
}

func BenchmarkDownload(b *testing.B) {
	for _, l := range lines {
		b.Run(l.name, func(b *testing.B) {
			const size = 512 << 20
			url := fileServer(b, l.line, size)
			path := filepath.Join(b.TempDir(), "file")
			b.SetBytes(size)
			for b.Loop() {
				r, err := objects.Open(b.Context(), objects.FixedURL(objects.Secret(url)), objects.ReaderOptions{})
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Download(b.Context(), path, nil); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}

// BenchmarkReadAt is a cold read of a lazy mount.
func BenchmarkReadAt(b *testing.B) {
	const size = 64 << 20
	url := fileServer(b, faulttest.Line{}, size)
	length := int64(size)
	r, err := objects.Open(b.Context(), objects.FixedURL(objects.Secret(url)), objects.ReaderOptions{Size: &length, Lazy: true})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	p := make([]byte, 128<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for off := int64(0); b.Loop(); off = (off + 7*int64(len(p))) % (size - int64(len(p))) {
		if _, err := r.ReadAtContext(context.Background(), p, off); err != nil {
			b.Fatal(err)
		}
	}
}
