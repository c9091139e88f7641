package index_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/internal/archivetest"
)

// FuzzIndexFile opens anything as an index, with its checksums made right if
// seal says so, and uses all of it. Whatever it is, that ends, does not panic,
// and gives no error but those that the documentation names.
func FuzzIndexFile(f *testing.F) {
	var objects [2][]byte // the stream, and it in a gzip
	for i, gzip := range []bool{false, true} {
		data, file := damageable(f, gzip)
		objects[i] = data
		f.Add(file, true, gzip)
		f.Add(file, false, gzip)
		f.Add(file[:len(file)*2/3], true, gzip)
	}
	for _, c := range archivetest.Cases("/outside") {
		if x, err := index.Build(bg, source(c.Data), options(c)); err == nil && len(c.Data) < 8<<10 {
			f.Add(x.Bytes(), true, false)
		}
	}
	f.Fuzz(func(t *testing.T, file []byte, seal, gzip bool) {
		if seal {
			file = reseal(file)
		}
		data := objects[0]
		if gzip {
			data = objects[1]
		}
		x, err := index.Parse(file, index.ObjectID{Size: -1})
		if err != nil {
			if !errors.Is(err, index.ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		x.Verify()
		must(t, notForged(x, data, objects[0]))
		_, err = survey(x, data)
		for _, known := range []error{index.ErrDamaged, index.ErrCorrupt, io.ErrUnexpectedEOF} {
			if err == nil || errors.Is(err, known) {
				return
			}
		}
		t.Fatal(err)
	})
}

// FuzzBuild indexes anything and extracts it, too: both refuse it, or both make
// the same of it. The bytes are taken as they are, as a
// tar whose checksums are put right, and that in a gzip.
func FuzzBuild(f *testing.F) {
	for _, c := range archivetest.Cases("/outside") {
		if len(c.Data) <= 16<<10 {
			f.Add(c.Data, c.Object, byte(0))
			f.Add(c.Data, c.Object, byte(3))
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte, name string, how byte) {
		if len(data) > 256<<10 {
			return
		}
		if how&1 != 0 {
			data = mend(data)
		}
		if how&2 != 0 {
			data = archivetest.Gzip(data)
		}
		opt := index.BuildOptions{Name: name, Limits: index.Limits{Entries: 2000, Bytes: 8 << 20}}
		x, err := index.Build(bg, source(data), opt)
		target := filepath.Join(dir, "target")
		res, extractErr := extract.Extract(bg, bytes.NewReader(data), target, extract.Options{
			Name: name, Limits: extract.Limits{Entries: 2000, Bytes: 8 << 20},
		})
		if extractErr == nil {
			defer func() { must(t, extract.Remove(target, res.Fingerprint)) }()
		}
		// Of an archive with two faults each may find another first.
		if a, b := outcome(err), extractOutcome(extractErr); (a == archivetest.Accept) != (b == archivetest.Accept) || len(a+b) > 20 {
			t.Fatalf("index: %s (%v), extraction: %s (%v)", a, err, b, extractErr)
		}
		if err != nil {
			return
		}
		r := index.NewReader(x, source(data), nil, index.ReaderOptions{})
		defer r.Close()
		if res.Kind == extract.KindFile {
			a, err := x.Attr(0)
			must(t, err)
			b, err := os.ReadFile(target)
			must(t, err)
			if got := content(t, x, r, 0, a); got != archivetest.Reg(0, string(b)).Content {
				t.Fatal("another file")
			}
			return
		}
		want, err := archivetest.List(target, testStart)
		must(t, err)
		// Times that a file system cannot hold are its own.
		if diff := cmp.Diff(want.Timeless(), list(t, x, r).Timeless()); diff != "" {
			t.Fatalf("another tree (-extracted +index):\n%s", diff)
		}
	})
}

func extractOutcome(err error) archivetest.Outcome {
	switch {
	case err == nil:
		return archivetest.Accept
	case errors.Is(err, extract.ErrUnsafe):
		return archivetest.Unsafe
	case errors.Is(err, extract.ErrLimit):
		return archivetest.Limit
	case errors.Is(err, extract.ErrCorrupt):
		return archivetest.Corrupt
	}
	return archivetest.Outcome(err.Error())
}

// mend puts right the checksum of every block that could be a header.
func mend(data []byte) []byte {
	data = bytes.Clone(data)
	for off := 0; off+512 <= len(data); off += 512 {
		block := data[off : off+512]
		if bytes.Equal(block[257:262], []byte("ustar")) || block[154] == 0 && block[155] == ' ' {
			archivetest.Checksum(block)
		}
	}
	return data
}

// TestAsExtracted compares trees with extraction's on disk, times and links
// included: for every case of archivetest, while it grows.
func TestAsExtracted(t *testing.T) {
	for _, c := range archivetest.Cases("/nowhere") {
		if c.Want != archivetest.Accept || c.File {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "target")
			_, err := extract.Extract(bg, bytes.NewReader(c.Data), target, extract.Options{Name: c.Object, ContentType: c.Type})
			must(t, err)
			want, err := archivetest.List(target, testStart)
			must(t, err)
			g := index.NewGrowing(source(c.Data), options(c))
			r := index.NewReader(g, source(c.Data), nil, index.ReaderOptions{})
			go g.Run(bg, nil)
			got := list(t, g, r) // waits for the end
			if os.Geteuid() != 0 {
				return // it may not read all of it
			}
			if diff := cmp.Diff(want.Forget(got), got.Forget(want)); diff != "" {
				t.Errorf("another tree (-extracted +index):\n%s", diff)
			}
			must(t, r.Close())
			must(t, g.Close())
			filepath.WalkDir(target, func(path string, d os.DirEntry, _ error) error {
				if d != nil && d.IsDir() {
					os.Chmod(path, 0o700)
				}
				return nil
			})
		})
	}
}
