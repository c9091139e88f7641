package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"objectmount/extract"
	"objectmount/objects"
)

// addLimits adds the flags that bound what an object may ask for. Archives
// come from strangers: the defaults let through what a file system can hold.
func addLimits(f *pflag.FlagSet, l *extract.Limits) {
	f.Var(&count{&l.Entries}, "max-entries", "refuse archives with more files, directories and links (default 10000000)")
	f.Var((*byteSize)(&l.Bytes), "max-bytes", "refuse objects with more bytes of files (default: what is free, checked on the way)")
	f.Var((*byteSize)(&l.FileBytes), "max-file-size", "refuse archives with a larger file (default: the file system's size)")
	f.Var((*byteSize)(&l.Reserve), "reserve", "leave this much of the file system free (default 64MiB, or 1 % of a small one)")
	f.Var(&upTo{&l.Path, extract.MostPath}, "max-path", "refuse archives with a longer name, in bytes (default and most 4095)")
	f.Var(&upTo{&l.Component, extract.MostComponent}, "max-component", "refuse archives with a longer component of a name, in bytes (default and most 255)")
	f.Var(&upTo{&l.Depth, extract.MostDepth}, "max-depth", "refuse archives with more components in a name (default 512, at most 2048)")
	f.Var(&upTo{&l.Link, extract.MostPath}, "max-link", "refuse archives with a longer link target, in bytes (default and most 4095)")
	f.Var(&upTo{&l.Header, extract.MostHeader}, "max-header", "refuse archives with a longer extension header (default 1MiB, at most 4MiB)")
	f.Var(&upTo{&l.Fragments, extract.MostFragments}, "max-fragments", "refuse archives with a sparse file of more parts (default and most 1000000)")
}

// addNetwork adds the flags that bound what fetching may use.
func addNetwork(f *pflag.FlagSet, l *objects.Limits) {
	f.Var((*perSecond)(&l.Bandwidth), "bandwidth", "fetch no more than this in a second, all together, such as 50MB/s (default: as fast as it goes)")
	f.Var((*connections)(&l.Connections), "connections", "connections to one host at a time, all together (default: up to 16 for each fetch, as many as help)")
	f.Var((*fetchMemory)(&l.Memory), "fetch-memory", "memory for what was fetched and is not used yet, all together (default 128MiB, at least 4MiB)")
}

// connections is a count that is an int.
type connections int

func (c *connections) String() string {
	n := int64(*c)
	return (&count{&n}).String()
}

func (c *connections) Set(s string) error {
	var n int64
	if err := (&count{&n}).Set(s); err != nil {
		return err
	}
	*c = connections(min(n, 1<<20))
	return nil
}

func (c *connections) Type() string { return "count" }

// perSecond is a flag that takes 50MB/s, 50MB or 50000000.
type perSecond int64

func (b *perSecond) String() string {
	if *b <= 0 {
		return ""
	}
	return (*byteSize)(b).String() + "/s"
}

func (b *perSecond) Set(s string) error {
	if err := (*byteSize)(b).Set(strings.TrimSuffix(s, "/s")); err != nil || *b == 0 {
		return fmt.Errorf("%q is no bandwidth: write 50MB/s, 50MiB/s or 50000000", s)
	}
	return nil
}

func (b *perSecond) Type() string { return "rate" }

// fetchMemory is a size that is not too small to fetch with.
type fetchMemory int64

func (b *fetchMemory) String() string { return (*byteSize)(b).String() }

func (b *fetchMemory) Set(s string) error {
	if err := (*byteSize)(b).Set(s); err != nil {
		return err
	}
	if *b < objects.MinMemory {
		return fmt.Errorf("%q is too little: fetching needs 4MiB", s)
	}
	return nil
}

func (b *fetchMemory) Type() string { return "size" }

// count is a flag that takes a whole number above zero; zero means the default.
type count struct{ n *int64 }

func (c *count) String() string {
	if c.n == nil || *c.n == 0 {
		return ""
	}
	return strconv.FormatInt(*c.n, 10)
}

func (c *count) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number above zero", s)
	}
	*c.n = n
	return nil
}

func (c *count) Type() string { return "count" }

// upTo is a size or count above zero that has a most.
type upTo struct {
	n    *int64
	most int64
}

func (u *upTo) String() string { return (&count{u.n}).String() }

func (u *upTo) Set(s string) error {
	var n byteSize
	if err := n.Set(s); err != nil || n < 1 || int64(n) > u.most {
		return fmt.Errorf("%q is not a number of 1 to %d", s, u.most)
	}
	*u.n = int64(n)
	return nil
}

func (u *upTo) Type() string { return "count" }
