package main

import (
	"fmt"
	"path/filepath"
)

// point is one archive, mounted one way, until one of its files is read.
type point struct {
	How     string  `json:"how"`
	File    string  `json:"file"`    // first or middle
	Size    int64   `json:"size"`    // of the object, bytes
	Seconds float64 `json:"seconds"` // from the start of the command until the file is read
	Bytes   int64   `json:"bytes"`   // of content that the store had sent by then
	Calls   int64   `json:"calls"`   // of the API
	Ranges  int64   `json:"ranges"`
}

// The ways of the plots.
const (
	howIndex   = "lazy, with a published index"
	howNoIndex = "lazy, without an index"
	howExtract = "extracted"
)

// scale measures how time and traffic grow with the archive: until its first
// file is read, and until one in its middle is.
func (b *bench) scale() error {
	for mib := int64(4); mib <= b.maxMiB; mib *= 4 {
		c, err := makeSized(filepath.Join(b.tmp, fmt.Sprintf("sized-%d.tar.gz", mib)), mib<<20)
		if err != nil {
			return err
		}
		with, err := b.upload(c, true)
		if err != nil {
			return err
		}
		without, err := b.upload(c, false)
		if err != nil {
			return err
		}
		ways := []struct{ how, id, flag string }{{howIndex, with, "--lazy"}, {howNoIndex, without, "--lazy"}, {howExtract, without, "--extract"}}
		files := []struct{ which, name string }{{"first", c.files[0]}, {"middle", c.files[len(c.files)/2]}}
		for _, file := range files {
			times := make([][]float64, len(ways))
			n := make([]counts, len(ways))
			for run := range b.runs {
				for i, way := range ways {
					b.say("%d MiB, %s, %s file: run %d of %d", mib, way.how, file.which, run+1, b.runs)
					if _, err := b.store.counts(); err != nil {
						return err
					}
					var t float64
					_, err := b.inPlace(func(p *place) (err error) {
						if t, err = timed(func() error { return also(p.mount(way.id, way.flag), p.read(file.name)) }); err != nil {
							return err
						}
						n[i], err = b.store.counts()
						return err
					})
					if err != nil {
						return err
					}
					times[i] = append(times[i], t)
				}
			}
			for i, way := range ways {
				b.rep.Scale = append(b.rep.Scale, point{How: way.how, File: file.which, Size: c.size, Seconds: median(times[i]),
					Bytes: n[i].Bytes, Calls: n[i].Calls, Ranges: n[i].Ranges})
			}
		}
	}
	return nil
}
