package extract

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/internal/archivetest"
)

// FuzzExtract extracts anything, with the laws as the oracle: nothing around
// the target changes, a refusal has a sentinel and leaves nothing, what is
// published holds only files, directories and symbolic links without special
// bits, is not edited, extracts the same a second time, and goes away whole.
//
// The bytes are taken as they are, as a tar whose checksums are put right
// (else the fuzzer would never get past them), and that in a gzip.
func FuzzExtract(f *testing.F) {
	for _, c := range append(archivetest.Cases("/outside"), archivetest.CVEs("/outside")...) {
		if len(c.Data) <= 64<<10 {
			f.Add(c.Data, c.Object, byte(0))
		}
	}
	s := newSandbox(f) // one for all: each input leaves it as it was, or fails
	f.Fuzz(func(t *testing.T, data []byte, name string, how byte) {
		if len(data) > 1<<20 {
			return
		}
		if how&1 != 0 {
			data = fixChecksums(data)
		}
		if how&2 != 0 {
			data = archivetest.Gzip(data)
		}
		before := s.around(t)
		opts := Options{
			Name: name, PreserveOwner: how&4 != 0, Xattrs: how&8 != 0,
			Limits: Limits{Entries: 2000, Bytes: 8 << 20},
		}
		run := func() (Result, error) {
			return Extract(context.Background(), bytes.NewReader(data), s.target, opts)
		}
		res, err := run()
		if diff := cmp.Diff(before, s.around(t)); diff != "" {
			t.Fatalf("something around the target changed:\n%s", diff)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsafe) && !errors.Is(err, ErrLimit) {
				t.Fatalf("refused without a reason: %v", err)
			}
			if exists(s.target) {
				t.Fatal("refused, but something is there")
			}
			return
		}
		if edited, err := Edited(res.Path, res.Fingerprint); edited || err != nil {
			t.Fatalf("Edited = %v, %v", edited, err)
		}
		first := fuzzList(t, s, res, opts)
		must(t, Remove(res.Path, res.Fingerprint))
		if diff := cmp.Diff(before, s.around(t)); diff != "" || exists(s.target) {
			t.Fatalf("Remove left something:\n%s", diff)
		}
		res, err = run()
		must(t, err)
		if diff := cmp.Diff(first, fuzzList(t, s, res, opts)); diff != "" {
			t.Fatalf("the second time another tree:\n%s", diff)
		}
		must(t, Remove(res.Path, res.Fingerprint))
	})
}

// fuzzList checks what was published and lists it without the times that come
// from the clock.
func fuzzList(t *testing.T, s sandbox, res Result, opts Options) string {
	err := filepath.WalkDir(s.target, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch info.Mode().Type() {
		case 0, fs.ModeDir, fs.ModeSymlink:
		default:
			t.Errorf("%s is %v", path, info.Mode())
		}
		if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 || (!d.IsDir() && info.Mode()&fs.ModeSticky != 0) {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if !opts.Xattrs || info.Mode().Type() == fs.ModeSymlink {
			if got := xattrsOf(t, path); len(got) > 0 {
				t.Errorf("%s has attributes: %v", path, got)
			}
		} else {
			for name := range xattrsOf(t, path) {
				if !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
					t.Errorf("%s has attribute %q", path, name)
				}
			}
		}
		if st := info.Sys().(*syscall.Stat_t); st.Dev != res.Fingerprint.Dev {
			t.Errorf("%s is on another device", path)
		}
		return nil
	})
	must(t, err)
	if res.Kind == KindFile {
		b, err := os.ReadFile(s.target)
		must(t, err)
		return string(b)
	}
	tree := s.list(t)
	return tree.Timeless().String()
}

// fixChecksums puts right the checksum of every block that could be a header.
func fixChecksums(data []byte) []byte {
	data = bytes.Clone(data)
	for off := 0; off+blockSize <= len(data); off += blockSize {
		block := data[off : off+blockSize]
		if !allZero(block) && (bytes.Equal(block[257:262], []byte("ustar")) || block[154] == 0 && block[155] == ' ') {
			archivetest.Checksum(block)
		}
	}
	return data
}
