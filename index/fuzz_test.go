package index

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/internal/archivetest"
)

// FuzzTarReader holds TarReader against archive/tar: what both accept, both
// read alike; and whatever the input and the pieces it comes in, the result is
// the same. Where only one accepts, the other has a reason that is its own.
func FuzzTarReader(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(goroot(), "src/archive/tar/testdata/*.tar"))
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil && len(b) < 64<<10 {
			f.Add(b, uint16(512), false)
			f.Add(b, uint16(100), true)
		}
	}
	for _, c := range append(archivetest.Cases("/outside"), archivetest.CVEs("/outside")...) {
		if len(c.Data) <= 16<<10 {
			f.Add(c.Data, uint16(511), false)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, piece uint16, mend bool) {
		if len(data) > 16<<10 {
			return
		}
		if mend { // a mutated header gets past the checksum
			data = bytes.Clone(data)
			for b := data; len(b) >= blockSize; b = b[blockSize:] {
				if !isZero(b[:blockSize]) {
					sum(b[:blockSize])
				}
			}
		}
		ours, ourErr := readOurs(data, int(piece)+1)
		again, againErr := readOurs(data, len(data)+1)
		if (ourErr == nil) != (againErr == nil) || !cmp.Equal(ours, again) {
			t.Fatalf("pieces of %d: %v; whole: %v", int(piece)+1, ourErr, againErr)
		}
		var te *TarError
		if ourErr != nil && ourErr != errTooLarge && !errors.As(ourErr, &te) {
			t.Fatalf("error %v is no *TarError", ourErr)
		}
		theirs, theirErr := readTheirs(data)
		if ourErr == nil && theirErr == nil {
			forgiveGo17(theirs, ours)
			if diff := cmp.Diff(theirs, ours); diff != "" {
				t.Fatalf("(-archive/tar +ours):\n%s", diff)
			}
		}
	})
}

// BenchmarkTarReader reads the headers of many small files.
func BenchmarkTarReader(b *testing.B) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := range 10_000 {
		must(b, w.WriteHeader(&tar.Header{Name: fmt.Sprintf("dir%d/file%d.go", i/100, i), Size: 600, Mode: 0o644}))
		_, err := w.Write(make([]byte, 600))
		must(b, err)
	}
	must(b, w.Close())
	b.SetBytes(int64(buf.Len()))
	b.ReportAllocs()
	for b.Loop() {
		t := NewTarReader(StreamReader(bytes.NewReader(buf.Bytes()), 512<<10), TarLimits{})
		n := 0
		for {
			_, err := t.Next()
			if err == io.EOF {
				break
			}
			must(b, err)
			n++
		}
		if n != 10_000 {
			b.Fatal(n)
		}
	}
}
