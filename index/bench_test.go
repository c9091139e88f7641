package index_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"objectmount/index"
	"objectmount/internal/inflate"
)

// goTree is the machine's Go tree as .tar.gz, some 70 MB: source, objects and
// binaries. It is made once, or read from $INDEX_BENCH_FILE.
var goTree = sync.OnceValue(func() []byte {
	if name := os.Getenv("INDEX_BENCH_FILE"); name != "" {
		b, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		return b
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	root := strings.TrimSpace(string(out))
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
			return err
		}
		h, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		if err := w.WriteHeader(h); err != nil || info.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil || w.Close() != nil || z.Close() != nil {
		panic(err)
	}
	return buf.Bytes()
})

// processorTime reports the processor time of what follows, all threads
// together: where the machine is shared, that is what can be compared.
func processorTime(b *testing.B) (report func()) {
	now := func() time.Duration {
		var u syscall.Rusage
		must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began := now()
	return func() { b.ReportMetric((now()-began).Seconds()*1e3/float64(b.N), "cpu-ms/op") }
}

// BenchmarkInflate decodes the Go tree and does nothing else: what
// BenchmarkBuild and BenchmarkSequential are compared with.
func BenchmarkInflate(b *testing.B) {
	gz := goTree()
	defer processorTime(b)()
	b.ResetTimer()
	for b.Loop() {
		r := inflate.NewReader(inflate.FromBytes(gz), inflate.Options{})
		n, err := r.WriteTo(io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
		r.Close()
	}
}

// BenchmarkBuild indexes the Go tree, and tells the index's size.
func BenchmarkBuild(b *testing.B) {
	gz := goTree()
	path := filepath.Join(b.TempDir(), "index")
	report := processorTime(b)
	b.ResetTimer()
	for b.Loop() {
		x, err := index.Build(context.Background(), source(gz), index.BuildOptions{Path: path})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(x.StreamSize())
		b.ReportMetric(float64(x.Size()), "index-bytes")
		x.Close()
	}
	b.StopTimer()
	report()
	x, err := index.Open(path, index.ObjectID{Size: int64(len(gz))})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	var published bytes.Buffer
	if err := x.Publish(&published); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(published.Len()), "published-bytes")
	b.ReportMetric(float64(x.NumRows()), "rows")
	b.ReportMetric(float64(x.NumSpans()), "spans")
}

// BenchmarkOpen opens the index of a million entries and looks up one path.
func BenchmarkOpen(b *testing.B) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 1_000_000 {
		must(b, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir%d/sub%d/file%d.go", i/10_000, i/100%100, i), Mode: 0o644}))
	}
	must(b, w.Close())
	path := filepath.Join(b.TempDir(), "index")
	x, err := index.Build(context.Background(), source(buf.Bytes()), index.BuildOptions{Path: path})
	must(b, err)
	b.ReportMetric(float64(x.Size()), "index-bytes")
	must(b, x.Close())
	want := index.ObjectID{Size: int64(buf.Len())}
	buf = bytes.Buffer{}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for b.Loop() {
		x, err := index.Open(path, want)
		must(b, err)
		row := uint32(0)
		for _, name := range []string{"dir77", "sub33", "file773333.go"} {
			row, err = x.Lookup(context.Background(), row, name)
			must(b, err)
		}
		_, err = x.Attr(row)
		must(b, err)
		must(b, x.Close())
	}
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N), "heap-B/op")
}

func reader(b *testing.B, opt index.ReaderOptions, spans index.Spans) (*index.Index, *index.Reader) {
	gz := goTree()
	path := filepath.Join(b.TempDir(), "object")
	must(b, os.WriteFile(path, gz, 0o600))
	f, err := os.Open(path)
	must(b, err)
	b.Cleanup(func() { f.Close() })
	src, err := index.FileSource(f)
	must(b, err)
	x := build(b, gz, index.BuildOptions{})
	r := index.NewReader(x, src, spans, opt)
	b.Cleanup(func() { r.Close() })
	return x, r
}

// BenchmarkCold reads 4 KiB at random from a local file, each from a span
// that has to be decoded.
func BenchmarkCold(b *testing.B) {
	x, r := reader(b, index.ReaderOptions{Memory: 1}, nil)
	rnd := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4096)
	defer processorTime(b)()
	b.ResetTimer()
	for b.Loop() {
		_, err := r.ReadAt(context.Background(), p, rnd.Int64N(x.StreamSize()-4096))
		must(b, err)
	}
}

// BenchmarkWarm reads 4 KiB at random from spans in memory.
func BenchmarkWarm(b *testing.B) {
	x, r := reader(b, index.ReaderOptions{}, &index.MemSpans{})
	must(b, r.Prefetch(context.Background(), 0, x.StreamSize()))
	rnd := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 4096)
	defer processorTime(b)()
	b.ResetTimer()
	for b.Loop() {
		_, err := r.ReadAt(context.Background(), p, rnd.Int64N(x.StreamSize()-4096))
		must(b, err)
	}
}

// BenchmarkSequential reads the whole stream, 128 KiB at a time as a kernel
// does, with nothing cached.
func BenchmarkSequential(b *testing.B) {
	for _, procs := range []int{1, 2} {
		b.Run(fmt.Sprintf("processors=%d", procs), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			x, _ := reader(b, index.ReaderOptions{}, nil)
			gz := goTree()
			b.SetBytes(x.StreamSize())
			p := make([]byte, 128<<10)
			defer processorTime(b)()
			b.ResetTimer()
			for b.Loop() {
				r := index.NewReader(x, source(gz), nil, index.ReaderOptions{})
				for off := int64(0); off < x.StreamSize(); off += int64(len(p)) {
					if _, err := r.ReadAt(context.Background(), p, off); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
				must(b, r.Close())
			}
		})
	}
}
