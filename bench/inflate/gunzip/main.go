// Command gunzip decodes one gzip file to nowhere, so that decoders can be
// compared as whole processes: gunzip [-with ours|klauspost|std] FILE.
package main

import (
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"

	kgzip "github.com/klauspost/compress/gzip"

	"objectmount/internal/inflate"
)

func main() {
	with := flag.String("with", "ours", "decoder: ours, points (ours, recording points each MiB), klauspost or std")
	out := flag.Bool("c", false, "write the output to stdout")
	flag.Parse()
	if err := run(*with, flag.Arg(0), *out); err != nil {
		fmt.Fprintln(os.Stderr, "gunzip:", err)
		os.Exit(1)
	}
}

func run(with, name string, stdout bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader
	switch with {
	case "ours", "points":
		var opt inflate.Options
		if with == "points" {
			opt.OnPoint = func(inflate.Point) error { return nil }
		}
		r = inflate.NewReader(inflate.FromReader(f), opt)
	case "klauspost":
		r, err = kgzip.NewReader(f)
	case "std":
		r, err = gzip.NewReader(f)
	default:
		err = fmt.Errorf("no decoder named %q", with)
	}
	if err != nil {
		return err
	}
	w := io.Discard
	if stdout {
		w = os.Stdout
	}
	_, err = io.Copy(w, r)
	return err
}
