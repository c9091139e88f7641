package extract

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"objectmount/index"
)

// goTree is the machine's Go tree as .tar.gz, some 70 MB: source, objects and
// binaries. It is made once, or read from $INDEX_BENCH_FILE.
var goTree = sync.OnceValues(func() ([]byte, error) {
	if name := os.Getenv("INDEX_BENCH_FILE"); name != "" {
		return os.ReadFile(name)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	if err := w.AddFS(regular{os.DirFS(strings.TrimSpace(string(root)))}); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	err = z.Close() // before its bytes are taken
	return buf.Bytes(), err
})

// regular is a file system without what tar.AddFS refuses.
type regular struct{ fs.FS }

func (r regular) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(r.FS, name)
	kept := list[:0]
	for _, e := range list {
		if e.IsDir() || e.Type().IsRegular() {
			kept = append(kept, e)
		}
	}
	return kept, err
}

// BenchmarkExtractWithIndex extracts the Go tree as it comes and with an index,
// and beside them decodes it and no more. Each run has a fresh file system, in
// memory or an ext4 image in memory, whose flushing is not counted, as it is
// not waited for when an agent extracts.
//
//	go test ./extract -run - -bench ExtractWithIndex -benchtime 5x
func BenchmarkExtractWithIndex(b *testing.B) {
	gz, err := goTree()
	must(b, err)
	x, err := index.Build(context.Background(), index.ReaderSource(bytes.NewReader(gz), int64(len(gz))), index.BuildOptions{})
	must(b, err)
	defer x.Close()
	with := map[string]*index.Index{"stream": nil, "index": x}
	for how, x := range with {
		b.Run("decode/"+how, func(b *testing.B) {
			b.SetBytes(with["index"].StreamSize())
			for b.Loop() {
				o, err := open(newSource(context.Background(), bytes.NewReader(gz), int64(len(gz))), Options{Index: x})
				must(b, err)
				for err == nil {
					_, err = o.Next()
				}
				o.close()
				if err != io.EOF {
					b.Fatal(err)
				}
			}
		})
		for _, kind := range []string{"tmpfs", "ext4"} {
			b.Run(kind+"/"+how, func(b *testing.B) {
				b.SetBytes(with["index"].StreamSize())
				cpu := 0.0
				for b.Loop() {
					b.StopTimer()
					dir, unmount := freshFS(b, kind)
					began := cpuTime()
					b.StartTimer()
					_, err := Extract(context.Background(), bytes.NewReader(gz), filepath.Join(dir, "x"),
						Options{Index: x, Size: int64(len(gz)), FlushLater: true})
					b.StopTimer()
					must(b, err)
					cpu += (cpuTime() - began).Seconds()
					unmount()
					b.StartTimer()
				}
				b.ReportMetric(cpu*1e3/float64(b.N), "cpu-ms/op")
			})
		}
	}
}
