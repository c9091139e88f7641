package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"hash"
	"io"

	"objectmount/objects"
)

// cat is our client's process: a stream in order, whose bytes are thrown away
// where the decoder would be, or a download to a file.
func cat(args []string) error {
	f := flag.NewFlagSet("cat", flag.ExitOnError)
	memory := f.Int64("memory", 0, "bytes of buffers; 0 = the default")
	to := f.String("to", "", "download to this file")
	sum := f.Bool("sum", false, "print the SHA-256 of the stream")
	f.Parse(args)
	ctx := context.Background()
	opts := objects.ReaderOptions{Network: objects.NewNetwork(objects.Limits{Memory: *memory})}
	r, err := objects.Open(ctx, objects.FixedURL(objects.Secret(f.Arg(0))), opts)
	if err != nil {
		return err
	}
	defer r.Close()
	if *to != "" {
		return r.Download(ctx, *to, nil)
	}
	s, err := r.Stream(ctx, 0)
	if err != nil {
		return err
	}
	defer s.Close()
	var h hash.Hash
	if *sum {
		h = sha256.New()
	}
	// As extraction reads it: slices of the buffers themselves.
	slices := s.(interface{ Next() ([]byte, error) })
	var n int64
	for {
		b, err := slices.Next()
		n += int64(len(b))
		if h != nil {
			h.Write(b)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if n != r.Size() {
		return fmt.Errorf("%d bytes of %d", n, r.Size())
	}
	if h != nil {
		fmt.Println(hex.EncodeToString(h.Sum(nil)))
	}
	return nil
}
