package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestBitFlips flips bits in what one life left, and lets the next one read.
func TestBitFlips(t *testing.T) {
	flips := 1000
	if testing.Short() {
		flips = 100
	}
	s := newStream(8, 300, 32<<10, false) // only the journal knows the checksums
	dir := newCacheDir(t)
	c := mustOpen(t, dir, 1<<30)
	b := mustBlob(t, c, "a", s)
	fill := func() {
		for i := range s.ends {
			b.PutSpan(i, s.span(i))
		}
	}
	fill()
	detected := 0
	const atOnce = 20
	for range flips / atOnce {
		b.Close()
		damaged := map[int]bool{}
		for k := range atOnce {
			name := "data"
			if k%2 == 1 {
				name = "journal"
			}
			damaged[flip(t, c.Path("a", name), s)] = true
		}
		before := c.Stats()
		b = mustBlob(t, c, "a", s)
		for i := range s.ends {
			ok, err := s.verify(b, i)
			if err != nil {
				t.Fatal(err)
			}
			if ok == damaged[i] {
				t.Fatalf("span %d: damaged %v, read %v", i, damaged[i], ok)
			}
		}
		after := c.Stats()
		if got := after.Corrupt - before.Corrupt; got == 0 || after.Errors > 0 {
			t.Fatalf("Stats: %+v", after)
		}
		detected += len(damaged)
		fill()
		if n := s.verifyAll(t, b); n != len(s.ends) {
			t.Fatalf("%d spans are here after putting them again", n)
		}
	}
	t.Logf("%d flips in %d spans: all detected", flips, detected)
}

// flip flips a bit in the file and returns the span that loses by it. In the
// journal, records that later ones replaced are left out.
func flip(t *testing.T, name string, s *stream) (span int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at int64
	if filepath.Base(name) == "data" {
		at = rand.Int64N(s.ends[len(s.ends)-1])
		for s.ends[span] <= at {
			span++
		}
	} else {
		all, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		last := map[uint32]int{}
		for i := 0; i+recordSize <= len(all); i += recordSize {
			if r, ok := decodeRecord(all[i:], nameSum(dirName("a"))); ok {
				last[uint32(r.span)] = i
			}
		}
		for k, i := range last {
			// The record before it shall not come back to life.
			if removeOlder(t, f, all, k, i); rand.IntN(8) == 0 || span == 0 {
				span, at = int(k), int64(i)+rand.Int64N(recordSize)
			}
		}
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << rand.IntN(8)
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	return span
}

// removeOlder removes the records of a span before the last one.
func removeOlder(t *testing.T, f *os.File, all []byte, span uint32, last int) {
	for i := 0; i < last; i += recordSize {
		if binary.LittleEndian.Uint32(all[i:]) == span {
			if _, err := f.WriteAt(make([]byte, recordSize), int64(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestStateFaults takes the state from under a blob, as a failing disk does:
// nothing can be read or put, but the process lives.
func TestStateFaults(t *testing.T) {
	noRace(t)
	s := newStream(9, 20, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), 1<<30)
	b := mustBlob(t, c, "a", s)
	b.PutSpan(0, s.span(0))
	if err := os.Truncate(c.Path("a", "state"), 0); err != nil {
		t.Fatal(err)
	}
	if b.ReadSpan(0, make([]byte, 1), 0) || b.HasSpan(0) {
		t.Error("span 0 is read without a state")
	}
	b.PutSpan(1, s.span(1))
	if _, err := c.Blob("a", s); !errors.Is(err, unix.EIO) {
		t.Errorf("opening it again: %v", err)
	}
	if st := c.Stats(); st.Errors == 0 || st.Dropped != 1 {
		t.Errorf("Stats: %+v", st)
	}
	_ = b.Stats()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	// Another life has another state.
	b = mustBlob(t, c, "a", s)
	if ok, err := s.verify(b, 0); !ok || err != nil {
		t.Errorf("the next life: %v, %v", ok, err)
	}
}

// TestLostWriteback has other bytes on the disk than were put, after they left
// the kernel's memory: a disk that fails to write says so only to those who
// sync. Blob.warm says why not all of them must be noticed.
func TestLostWriteback(t *testing.T) {
	s := newStream(10, 40, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), 1<<30)
	b := mustBlob(t, c, "a", s)
	var damaged []int
	for i := range s.ends {
		b.PutSpan(i, s.span(i))
		if off, size, _ := s.Span(i); size >= 8192 {
			if _, err := b.files.data.WriteAt(make([]byte, 4096), roundUp(off, 4096)); err != nil {
				t.Fatal(err)
			}
			damaged = append(damaged, i)
		}
	}
	var in unix.Cachestat_t
	for try := 0; try == 0 || in.Cache > 0; try++ {
		if try == 100 {
			t.Skip("the kernel does not give up its pages")
		}
		if err := b.files.data.Sync(); err != nil {
			t.Fatal(err)
		}
		_ = unix.Fadvise(b.dataFD, 0, 0, unix.FADV_DONTNEED)
		if err := unix.Cachestat(uint(b.dataFD), &unix.CachestatRange{}, &in, 0); err != nil {
			t.Skip("cachestat: ", err)
		}
	}
	noticed := 0
	for _, i := range damaged {
		_, size, _ := s.Span(i)
		if !b.ReadSpan(i, make([]byte, size), 0) {
			noticed++
			if b.HasSpan(i) {
				t.Errorf("span %d is damaged and still here", i)
			}
		}
	}
	t.Logf("%d of %d noticed", noticed, len(damaged))
	if noticed < len(damaged)/2 || c.Stats().Corrupt != int64(noticed) {
		t.Errorf("%d of %d damaged spans were noticed, %+v", noticed, len(damaged), c.Stats())
	}
}

// TestCompaction lets spans come and go until the journal has been written
// anew many times.
func TestCompaction(t *testing.T) {
	s := newStream(11, 400, 2<<10, true)
	dir := newCacheDir(t)
	c := mustOpen(t, dir, 512<<10)
	b := mustBlob(t, c, "a", s)
	other := mustBlob(t, mustOpen(t, dir, 512<<10), "a", s)
	for k := range 20000 {
		x := b
		if k%2 == 0 {
			x = other
		}
		i := rand.IntN(len(s.ends))
		x.PutSpan(i, s.span(i))
	}
	fi, err := os.Stat(c.Path("a", "journal"))
	if err != nil || fi.Size() > compactFrom+recordSize {
		t.Fatalf("the journal has %d bytes, %v", fi.Size(), err)
	}
	had := s.verifyAll(t, b)
	b.Close()
	other.Close()
	b = mustBlob(t, c, "a", s)
	if n := s.verifyAll(t, b); n != had || n == 0 {
		t.Errorf("%d spans are here, %d were before", n, had)
	}
	if st := c.Stats(); st.Corrupt > 0 || st.Errors > 0 {
		t.Errorf("Stats: %+v", st)
	}
}

// FuzzJournal opens a blob over any journal, and any change of the data.
func FuzzJournal(f *testing.F) {
	s := newStream(12, 12, 6<<10, false)
	name := nameSum(dirName("a"))
	var whole []byte
	for i := range s.ends {
		off, size, _ := s.Span(i)
		var b [recordSize]byte
		record{span: i, size: size, off: off, crc: crc32.Checksum(s.span(i), castagnoli)}.encode(b[:], name)
		whole = append(whole, b[:]...)
	}
	end := int(s.ends[len(s.ends)-1])
	f.Add(whole, 0, 0, byte(0), true)
	f.Add(whole[:len(whole)-7], 100, 3, byte(1), false)
	f.Add(append(append([]byte{}, whole[recordSize:]...), whole...), end/2, 5000, byte(0), false)
	f.Add([]byte{}, 0, end, byte(0xff), true)
	f.Fuzz(func(t *testing.T, journal []byte, at, n int, xor byte, sign bool) {
		if sign { // make the checksums of records right, so that their content is looked at
			journal = append([]byte{}, journal...)
			for b := journal; len(b) >= recordSize; b = b[recordSize:] {
				binary.LittleEndian.PutUint32(b[28:], crc32.Update(name, castagnoli, b[:28]))
			}
		}
		dir := newCacheDir(t)
		c := mustOpen(t, dir, 1<<30)
		if err := c.makeDir(dirName("a"), "a"); err != nil {
			t.Fatal(err)
		}
		data := content(0, end)
		if at >= 0 && at < end && n > 0 {
			for i := at; i < min(end, at+min(n, end)); i++ {
				data[i] ^= xor
			}
		}
		for name, b := range map[string][]byte{"journal": journal, "data": data} {
			if err := os.WriteFile(c.Path("a", name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		b := mustBlob(t, c, "a", s)
		s.verifyAll(t, b)
		for i := range s.ends {
			b.PutSpan(i, s.span(i))
		}
		if n := s.verifyAll(t, b); n != len(s.ends) {
			t.Fatalf("%d of %d spans are here after putting all", n, len(s.ends))
		}
		if err := c.locked(openWait, func() error { return c.evict(int64(end / 2)) }); err != nil {
			t.Fatal(err)
		}
		s.verifyAll(t, b)
		b.Close()
		b = mustBlob(t, c, "a", s)
		s.verifyAll(t, b)
		if st := c.Stats(); st.Errors > 0 {
			t.Fatalf("Stats: %+v", st)
		}
	})
}
