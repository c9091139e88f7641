package main

import (
	"fmt"
	"path/filepath"
	"time"
)

// goTree is the Go source tree, packed once.
func (b *bench) goTree() (*corpus, error) {
	if b.tree1 == nil {
		c, err := b.makeTree(filepath.Join(b.tmp, "tree.tar.gz"))
		if err != nil {
			return nil, err
		}
		b.tree1 = c
	}
	return b.tree1, nil
}

// first measures the time until a file can be read, from the start of the
// command that mounts.
func (b *bench) first() error {
	c, err := b.goTree()
	if err != nil {
		return err
	}
	if err := b.firstCached(c); err != nil {
		return err
	}
	if err := b.firstPublished(c); err != nil {
		return err
	}
	return b.firstPass(c)
}

// firstCached: the index is in the cache, the archive a local file.
func (b *bench) firstCached(c *corpus) error {
	p, err := b.newPlace()
	if err != nil {
		return err
	}
	if err := p.indexed(c); err != nil {
		return err
	}
	var times []float64
	for run := range b.runs {
		b.say("first file, index in the cache: run %d of %d", run+1, b.runs)
		t, err := timed(func() error { return also(p.mount(c.path, "--lazy"), p.read(c.files[0])) })
		if err = also(err, p.unmount()); err != nil {
			return err
		}
		times = append(times, t*1e3)
	}
	b.add("first file of the Go tree, index in the cache", median(times), "ms", 30, "local file; mount command included")
	return p.remove()
}

// firstPublished: nothing is here, the index is published in the far store.
func (b *bench) firstPublished(c *corpus) error {
	id, err := b.upload(c, true)
	if err != nil {
		return err
	}
	for _, what := range []struct{ name, file string }{{"first file", c.files[0]}, {"a file in the middle", c.files[len(c.files)/2]}} {
		var times []float64
		var n counts
		for run := range b.runs {
			b.say("%s, index published: run %d of %d", what.name, run+1, b.runs)
			p, err := b.newPlace()
			if err != nil {
				return err
			}
			if _, err := b.store.counts(); err != nil {
				return err
			}
			t, err := timed(func() error { return also(p.mount(id, "--lazy"), p.read(what.file)) })
			if err != nil {
				return err
			}
			if n, err = b.store.counts(); err != nil {
				return err
			}
			if err := p.remove(); err != nil {
				return err
			}
			times = append(times, t*1e3)
		}
		b.add(what.name+" of the Go tree, index published, nothing cached", median(times), "ms", 300,
			fmt.Sprintf("%d API calls, %d ranges, %.1f MB of %.1f", n.Calls, n.Ranges, float64(n.Bytes)/1e6, float64(c.size)/1e6))
	}
	return nil
}

// firstPass: nothing is here, and there is no index.
func (b *bench) firstPass(c *corpus) error {
	id, err := b.upload(c, false)
	if err != nil {
		return err
	}
	var times, since []float64
	for run := range b.runs {
		b.say("first file, no index: run %d of %d", run+1, b.runs)
		p, err := b.newPlace()
		if err != nil {
			return err
		}
		if _, err := b.store.counts(); err != nil {
			return err
		}
		t, err := timed(func() error { return also(p.mount(id, "--lazy"), p.read(c.files[0])) })
		if err != nil {
			return err
		}
		now := time.Now()
		n, err := b.store.counts()
		if err != nil {
			return err
		}
		if err := p.remove(); err != nil {
			return err
		}
		times = append(times, t*1e3)
		since = append(since, float64(now.UnixNano()-n.FirstNS)/1e6)
	}
	b.add("first file of the Go tree, no index", median(times), "ms", 0, "mount command included")
	b.add("the same, from the first byte of the answer", median(since), "ms", 100, "the object's first byte leaves the store before")
	return nil
}
