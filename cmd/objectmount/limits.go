package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/pflag"

	"objectmount/extract"
)

// addLimits adds the flags that bound what an object may ask for. Archives
// come from strangers: the defaults let through what a file system can hold.
func addLimits(f *pflag.FlagSet, l *extract.Limits) {
	f.Var(&count{&l.Entries}, "max-entries", "refuse archives with more files, directories and links (default 10000000)")
	f.Var((*byteSize)(&l.Bytes), "max-bytes", "refuse objects with more bytes of files (default: what is free, checked on the way)")
	f.Var((*byteSize)(&l.FileBytes), "max-file-size", "refuse archives with a larger file (default: the file system's size)")
	f.Var((*byteSize)(&l.Reserve), "reserve", "leave this much of the file system free (default 64MiB, or 1 % of a small one)")
}

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
