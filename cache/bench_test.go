package cache

import (
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// The cost of a warm read, beside the pread that it cannot do without.

func warmBlob(b *testing.B) (*Blob, *stream) {
	s := newStream(1, 64, 1<<20, true)
	blob := mustBlob(b, mustOpen(b, newCacheDir(b), 1<<30), "a", s)
	for i := range s.ends {
		blob.PutSpan(i, s.span(i))
		if !blob.HasSpan(i) {
			b.Fatal("not kept")
		}
	}
	return blob, s
}

func benchReads(b *testing.B, size int, read func(blob *Blob, s *stream, i int, p []byte, off int) bool) {
	blob, s := warmBlob(b)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		p := make([]byte, size)
		r := rand.New(rand.NewPCG(1, 1))
		for pb.Next() {
			i := r.IntN(len(s.ends))
			_, n, _ := s.Span(i)
			if n < size {
				continue
			}
			if !read(blob, s, i, p, r.IntN(n-size+1)) {
				b.Error("not here")
				return
			}
		}
	})
}

func readSpan(blob *Blob, s *stream, i int, p []byte, off int) bool { return blob.ReadSpan(i, p, off) }

func pread(blob *Blob, s *stream, i int, p []byte, off int) bool {
	start, _, _ := s.Span(i)
	n, err := unix.Pread(blob.dataFD, p, start+int64(off))
	return n == len(p) && err == nil
}

func BenchmarkReadSpanWarm(b *testing.B)     { benchReads(b, 4<<10, readSpan) }
func BenchmarkPread(b *testing.B)            { benchReads(b, 4<<10, pread) }
func BenchmarkReadSpanWarm128K(b *testing.B) { benchReads(b, 128<<10, readSpan) }
func BenchmarkPread128K(b *testing.B)        { benchReads(b, 128<<10, pread) }

func BenchmarkPut(b *testing.B) {
	s := newStream(1, 512, 1<<20, false)
	blob := mustBlob(b, mustOpen(b, newCacheDir(b), 128<<20), "a", s)
	p := content(0, 2<<20)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	b.ResetTimer()
	for k := range b.N {
		i := k % len(s.ends)
		_, n, _ := s.Span(i)
		blob.PutSpan(i, p[:n])
	}
	b.StopTimer()
	if st := blob.Stats(); st.Dropped > 0 {
		b.Errorf("%+v", st)
	}
}

func BenchmarkFirstRead(b *testing.B) {
	blob, s := warmBlob(b)
	p := make([]byte, 4<<10)
	b.SetBytes(1 << 20)
	b.ResetTimer()
	for k := range b.N {
		i := k % len(s.ends)
		sl := &blob.files.state.slots[i]
		sl.flag(sl.word.Load(), 0, flagChecked)
		if _, n, _ := s.Span(i); n >= len(p) && !blob.ReadSpan(i, p, 0) {
			b.Fatal("not here")
		}
	}
}
