package index_test

import (
	"sync"
	"testing"

	"objectmount/cache"
	"objectmount/index"
	"objectmount/internal/archivetest"
)

// TestThroughCache reads through a real cache, too small for all of the
// stream: during the first pass, after it, and again when everything has been
// closed and opened.
func TestThroughCache(t *testing.T) {
	size := 3 << 20
	if testing.Short() { // the budget is too small for that, too
		size = 5 << 19
	}
	stream := archivetest.Tar(
		archivetest.File("text", string(text(size, 1))), archivetest.File("noise", string(noise(size, 2))),
	)
	for name, data := range map[string][]byte{"gzip": gzipped(t, stream, 6), "plain": stream} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := dir + "/index"
			open := func(layout index.Layout) (*cache.Cache, *cache.Blob) {
				c, err := cache.Open(dir+"/cache", cache.Options{Budget: 4 << 20, FreeFloor: -1})
				must(t, err)
				b, err := c.Blob("object", layout)
				must(t, err)
				return c, b
			}
			g := index.NewGrowing(source(data), index.BuildOptions{Path: path})
			c, b := open(g)
			r := index.NewReader(g, source(data), b, index.ReaderOptions{Memory: 4 << 20})
			ran := make(chan error, 1)
			go func() { ran <- g.Run(bg, b) }()
			readThrough(t, r, stream)
			must(t, <-ran)
			readRandomly(t, r, stream, 1, 20)
			must(t, r.Close())
			must(t, b.Close())
			must(t, c.Close())
			must(t, g.Close())

			x, err := index.Open(path, index.ObjectID{Size: int64(len(data))})
			must(t, err)
			defer x.Close()
			c, b = open(x)
			r = index.NewReader(x, source(data), b, index.ReaderOptions{})
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() { readRandomly(t, r, stream, uint64(10+i), 20) })
			}
			wg.Wait()
			must(t, r.Close())
			if s := r.Stats(); s.Hits == 0 {
				t.Errorf("nothing came from the cache: %+v", s)
			}
			must(t, b.Close())
			must(t, c.Close())
		})
	}
}
