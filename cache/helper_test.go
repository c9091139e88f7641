package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// stream is a test object: bytes that are a function of their offset, cut into
// spans. So every process can tell right bytes from wrong ones.
type stream struct {
	ends []int64 // of the spans; the first begins at 0
	sums []uint32
}

// newStream cuts n spans of about size bytes. With sums, the layout knows what
// their checksums are.
func newStream(seed uint64, n, size int, sums bool) *stream {
	r := rand.New(rand.NewPCG(seed, 1))
	s := &stream{sums: make([]uint32, n)}
	end := int64(0)
	for i := range n {
		k := size/2 + r.IntN(size)
		if r.IntN(10) == 0 {
			k = 1 + r.IntN(6000)
		}
		end += int64(k)
		s.ends = append(s.ends, end)
		if sums {
			s.sums[i] = crc32.Checksum(s.span(i), castagnoli)
		}
	}
	return s
}

func (s *stream) NumSpans() int { return len(s.ends) }

func (s *stream) Span(i int) (off int64, size int, sum uint32) {
	if i > 0 {
		off = s.ends[i-1]
	}
	return off, int(s.ends[i] - off), s.sums[i]
}

func (s *stream) span(i int) []byte {
	off, size, _ := s.Span(i)
	return content(off, size)
}

// content is the bytes [off, off+size) of every stream. Few of them are zero.
func content(off int64, size int) []byte {
	first := off / 8
	b := make([]byte, 0, size+16)
	for k := uint64(first); len(b) < size+8; k++ {
		x := (k + 1) * 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		b = binary.LittleEndian.AppendUint64(b, x^x>>31)
	}
	return b[off%8:][:size]
}

// verify reads a random part of span i and returns an error if that gives
// wrong bytes. It says whether there were any.
func (s *stream) verify(b *Blob, i int) (bool, error) {
	start, size, _ := s.Span(i)
	off := rand.IntN(size)
	p := make([]byte, 1+rand.IntN(size-off))
	if rand.IntN(3) == 0 {
		off, p = 0, make([]byte, size)
	}
	if !b.ReadSpan(i, p, off) {
		return false, nil
	}
	if want := content(start+int64(off), len(p)); !bytes.Equal(p, want) {
		at := 0
		for p[at] == want[at] {
			at++
		}
		return true, fmt.Errorf("span %d (size %d), read [%d, %d): byte %d is %#x, want %#x", i, size, off, off+len(p), off+at, p[at], want[at])
	}
	return true, nil
}

// verifyAll reads every span and returns how many are here.
func (s *stream) verifyAll(t *testing.T, b *Blob) (here int) {
	t.Helper()
	for i := range s.ends {
		ok, err := s.verify(b, i)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			here++
		}
	}
	return here
}

func mustOpen(t testing.TB, dir string, budget int64) *Cache {
	t.Helper()
	c, err := Open(dir, Options{Budget: budget, FreeFloor: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustBlob(t testing.TB, c *Cache, id string, l Layout) *Blob {
	t.Helper()
	b, err := c.Blob(id, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// onDisk is the space that the data files take.
func onDisk(t testing.TB, c *Cache) (n int64) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(c.dir, "*", "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err == nil {
			n += st.Blocks * 512
		}
	}
	return n
}

// newCacheDir is a directory that Open makes.
func newCacheDir(t testing.TB) string { return filepath.Join(t.TempDir(), "cache") }

// parallel runs f n times at once and fails with the first error.
func parallel(t *testing.T, n int, f func(k int) error) {
	t.Helper()
	errs := make([]error, n)
	var wg sync.WaitGroup
	for k := range n {
		wg.Go(func() { errs[k] = f(k) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
}

// noRace skips a test in which the state faults: with the race detector,
// atomic operations are C code, whose faults Go cannot catch.
func noRace(t *testing.T) {
	t.Helper()
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			t.Skip("the race detector cannot stand a fault of the state")
		}
	}
}
