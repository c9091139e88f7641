package index_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// TestReadFileNow: what can be had at once is had, and is right; what cannot
// costs neither a request nor time.
func TestReadFileNow(t *testing.T) {
	large := text(3<<20, 1)
	data := archivetest.Gzip(archivetest.Tar(
		archivetest.File("large", string(large)),
		archivetest.File("empty", ""),
		archivetest.Dir("d/"),
		archivetest.File("d/far", string(noise(3<<20, 2))),
	))
	x := build(t, data, index.BuildOptions{})
	row := func(name string) uint32 {
		r, err := x.Lookup(bg, 0, name)
		must(t, err)
		return r
	}
	var requests atomic.Int64
	src := counting{source(data), &requests}
	spans := &forgetful{rnd: rand.New(rand.NewPCG(3, 4))}
	r := index.NewReader(x, src, spans, index.ReaderOptions{ReadAhead: -1, Memory: 1})
	p := make([]byte, 1000)
	if r.ReadFileNow(row("large"), p, 0) || requests.Load() != 0 {
		t.Error("it read what is nowhere")
	}
	if !r.ReadFileNow(row("empty"), nil, 0) {
		t.Error("it cannot read nothing")
	}
	for _, no := range []struct {
		row uint32
		off int64
	}{{row("d"), 0}, {row("empty"), 0}, {row("large"), -1}, {row("large"), int64(len(large)) - 999}, {1 << 30, 0}} {
		if r.ReadFileNow(no.row, p, no.off) {
			t.Errorf("it read 1,000 bytes of row %d at %d", no.row, no.off)
		}
	}

	random, had, reads := rnd(9), 0, 300
	if testing.Short() {
		reads = 60
	}
	for range reads {
		off := random.Int64N(int64(len(large)))
		p := make([]byte, 1+random.Int64N(min(int64(len(large))-off, 1<<(1+random.IntN(21)))))
		before := requests.Load()
		if r.ReadFileNow(row("large"), p, off) {
			had++
			if !bytes.Equal(p, large[off:off+int64(len(p))]) || requests.Load() != before {
				t.Fatalf("%d bytes at %d: wrong, or not had", len(p), off)
			}
			continue
		}
		_, err := r.ReadFileAt(bg, row("large"), p, off)
		must(t, err)
	}
	if had < reads/15 || had > reads-reads/15 {
		t.Errorf("of %d reads %d could be answered at once: the test proves little", reads, had)
	}
	must(t, r.Close())
	if r.ReadFileNow(row("large"), p, 0) {
		t.Error("it reads after Close")
	}
}

// counting counts the reads of a Source.
type counting struct {
	index.Source
	n *atomic.Int64
}

func (c counting) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	c.n.Add(1)
	return c.Source.ReadAtContext(ctx, p, off)
}
