package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// readers is how many read a tree at a time.
const readers = 2

// tree measures what it costs to read everything while the first pass goes on,
// beside an extraction: the Go tree, where a file is 16 KB, and an archive with
// files of 170 KiB on average.
func (b *bench) tree() error {
	c, err := b.goTree()
	if err != nil {
		return err
	}
	if err := b.whole("Go tree", c); err != nil {
		return err
	}
	if c, err = makeSized(filepath.Join(b.tmp, "mixed.tar.gz"), min(256, b.maxMiB)<<20); err != nil {
		return err
	}
	return b.whole("larger files", c)
}

func (b *bench) whole(what string, c *corpus) error {
	id, err := b.upload(c, false)
	if err != nil {
		return err
	}
	for _, from := range []struct{ name, source string }{{"local", c.path}, {"far", id}} {
		var extract, lazy, ratio []float64
		for run := range b.runs {
			b.say("%s, %s: run %d of %d", what, from.name, run+1, b.runs)
			e, err := b.inPlace(func(p *place) error { return p.mount(from.source, "--extract") })
			if err != nil {
				return err
			}
			l, err := b.inPlace(func(p *place) error {
				return also(p.mount(from.source, "--lazy"), readTree(b.ctx, p.mnt, c.files, readers))
			})
			if err != nil {
				return err
			}
			extract, lazy, ratio = append(extract, e), append(lazy, l), append(ratio, l/e)
		}
		b.add(what+" extracted, "+from.name, median(extract), "s", 0, "the mount command alone; nothing is read")
		b.add(what+" read during the first pass, "+from.name, median(lazy), "s", 0, fmt.Sprintf("%d files, %d readers, in the archive's order", len(c.files), readers))
		b.add("the same, of the extraction", median(ratio), "x", 1.3, "")
	}
	return nil
}

// inPlace times f in a new place, which is removed.
func (b *bench) inPlace(f func(*place) error) (float64, error) {
	p, err := b.newPlace()
	if err != nil {
		return 0, err
	}
	t, err := timed(func() error { return f(p) })
	return t, also(err, p.remove())
}

// many measures metadata: 50,000 files in 100 directories.
func (b *bench) many() error {
	c, err := makeMany(filepath.Join(b.tmp, "many.tar.gz"))
	if err != nil {
		return err
	}
	native, err := b.newPlace()
	if err != nil {
		return err
	}
	if err := also(native.mount(c.path, "--extract"), b.alone()); err != nil {
		return err
	}
	p, err := b.newPlace()
	if err != nil {
		return err
	}
	if err := p.indexed(c); err != nil {
		return err
	}
	find := func(p *place) (float64, error) { return timed(func() error { return run(p.mnt, "find", ".") }) }
	ls := func(p *place) (float64, error) { return timed(func() error { return run(p.mnt, "ls", "-lR", ".") }) }
	stat := func(p *place) (float64, error) {
		return timed(func() error {
			for _, name := range c.files {
				if _, err := os.Lstat(filepath.Join(p.mnt, name)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	open := func(p *place) (float64, error) {
		return timed(func() error { return readTree(b.ctx, p.mnt, c.files, 1) })
	}
	all := []struct {
		what      string
		f         func(*place) (float64, error)
		cold, bar float64 // bars: seconds, and ratio to native when warm
	}{
		{"find", find, 0.2, 0},
		{"ls -lR", ls, 0.3, 0},
		{"stat of each", stat, 0, 1.3},
		{"open, read, close of each", open, 0, 1.3},
	}
	for _, m := range all {
		if _, err := m.f(native); err != nil {
			return err
		}
		for _, view := range []struct{ name, flag string }{{"", "--lazy"}, {", read-only", "--read-only"}} {
			var cold, warm, ratio []float64
			for i := range b.runs {
				b.say("50,000 files: %s%s: run %d of %d", m.what, view.name, i+1, b.runs)
				if err := p.mount(c.path, view.flag); err != nil {
					return err
				}
				first, err := m.f(p)
				if err != nil {
					return err
				}
				again, err := m.f(p)
				if err != nil {
					return err
				}
				n, err := m.f(native)
				if err = also(err, p.unmount()); err != nil {
					return err
				}
				cold, warm, ratio = append(cold, first), append(warm, again), append(ratio, again/n)
			}
			what := "50,000 files: " + m.what + view.name
			b.add(what+", cold", median(cold), "s", m.cold, "just mounted")
			b.add(what+", warm", median(warm), "s", 0, "")
			b.add(what+", warm, of an extracted tree", median(ratio), "x", m.bar, "")
		}
	}
	return also(p.remove(), native.remove())
}

// large measures how fast one file of 512 MiB is read, front to back.
func (b *bench) large() error {
	c, err := makeLarge(filepath.Join(b.tmp, "large.tar.gz"))
	if err != nil {
		return err
	}
	native, err := b.newPlace()
	if err != nil {
		return err
	}
	if err := also(native.mount(c.path, "--extract"), b.alone()); err != nil {
		return err
	}
	p, err := b.newPlace()
	if err != nil {
		return err
	}
	if err := p.indexed(c); err != nil {
		return err
	}
	read := func(p *place) (float64, error) { return timed(func() error { return p.read("large") }) }
	if _, err := read(native); err != nil {
		return err
	}
	var cold, warm, coldSpeed []float64
	for i := range b.runs {
		b.say("512 MiB in order: run %d of %d", i+1, b.runs)
		if err := p.mount(c.path, "--lazy"); err != nil {
			return err
		}
		first, err := read(p)
		if err != nil {
			return err
		}
		again, err := read(p)
		if err != nil {
			return err
		}
		n, err := read(native)
		if err = also(err, p.unmount()); err != nil {
			return err
		}
		cold, warm, coldSpeed = append(cold, n/first), append(warm, n/again), append(coldSpeed, (512<<20)/1e6/first)
	}
	b.add("512 MiB in order, in the cache, just mounted", median(coldSpeed), "MB/s", 0, "")
	b.addLeast("the same, of the speed of an extracted file", median(cold), "x", 0.3, "which is in the page cache")
	b.addLeast("512 MiB in order, warm, of the speed of an extracted file", median(warm), "x", 0.7, "both in the page cache")
	return also(p.remove(), native.remove())
}

// run runs a program in a directory; what it prints goes nowhere.
func run(dir string, name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Dir = dir
	if _, err := c.Output(); err != nil {
		return fmt.Errorf("%s: %w", name, stderr(err))
	}
	return nil
}
