package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/objects"
)

func newUpload(a *app) *cobra.Command {
	var (
		req      objects.CreateRequest
		ct       string
		metadata []string
		ttl      time.Duration
		withIdx  bool
		asJSON   bool
	)
	c := &cobra.Command{
		Use:   "upload PATH",
		Short: "upload a file, a directory or standard input",
		Long: `Upload PATH and print the new object's id alone. A directory is packed as a
.tgz on the way, without what its .dockerignore names; "-" reads standard input
and needs --name. Nothing is held in memory, whatever the size.

--index makes the index of an archive while it is uploaded and publishes it
beside the object, so that mounts of it need not read all of it first.`,
		Example: `  id=$(objectmount objects upload ./dataset --metadata stage=raw)
  objectmount objects upload ./corpus.tar.gz --index
  tar cz src | objectmount objects upload - --name src.tgz --ttl 24h`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if req.Metadata, err = keyValues(metadata); err != nil {
				return err
			}
			if ttl < 0 {
				return usagef("--ttl must be positive")
			}
			if ttl > 0 {
				ms := ttl.Milliseconds()
				req.TTLMS = &ms
			}
			body, err := uploadBody(cmd.Context(), a.in, args[0], &req)
			if err != nil {
				return err
			}
			if ct != "" {
				req.ContentType = objects.ContentType(ct)
			}
			if !req.ContentType.Valid() {
				return usagef("--content-type %q: use %s", ct, contentTypes)
			}
			idx := &uploadIndex{ctx: cmd.Context(), opt: index.BuildOptions{Name: req.Name, ContentType: string(req.ContentType)}}
			if withIdx {
				body = idx.body(body)
			}
			p := a.newProgress("upload "+req.Name, body.Size)
			o, err := cl.Upload(cmd.Context(), req, body, func(sent int64) { p.update(sent, body.Size) })
			p.done()
			if err != nil {
				idx.abandon()
				return err
			}
			if asJSON {
				err = printJSON(a.out, o)
			} else {
				_, err = fmt.Fprintln(a.out, o.ID)
			}
			if err == nil && withIdx {
				if err = idx.publish(a, cl, o); err != nil {
					err = hinted{fmt.Errorf("object %s is uploaded, but has no index: %w", o.ID, err), "try again: objectmount index build " + o.ID + " --publish"}
				}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&req.Name, "name", "", "the object's name (default: the file's, or the directory's with .tar.gz)")
	f.StringVar(&ct, "content-type", "", "content type, if not as the name says: "+contentTypes)
	f.StringArrayVar(&metadata, "metadata", nil, "key=value, any number of times")
	f.DurationVar(&ttl, "ttl", 0, "delete the object after this long")
	f.BoolVar(&withIdx, "index", false, "publish the index of the archive, too")
	f.BoolVar(&req.IsPublic, "public", false, "let every account read it")
	f.BoolVar(&asJSON, "json", false, "print the object as JSON")
	return c
}

// uploadBody opens what is uploaded, and fills name and content type in.
func uploadBody(ctx context.Context, stdin io.Reader, path string, req *objects.CreateRequest) (objects.Body, error) {
	if path == "-" {
		if req.Name == "" {
			return objects.Body{}, usagef("standard input has no name: give one with --name")
		}
		req.ContentType = objects.DetectContentType(req.Name)
		// Standard input can be read once only: Upload is told by the error
		// that there is no second attempt.
		opened := false
		return objects.Body{Size: -1, Open: func() (io.ReadCloser, error) {
			if opened {
				return nil, fmt.Errorf("standard input cannot be read twice")
			}
			opened = true
			return io.NopCloser(stdin), nil
		}}, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return objects.Body{}, err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return objects.Body{}, err
	}
	if req.Name == "" {
		req.Name = filepath.Base(abs)
		if st.IsDir() {
			req.Name += ".tar.gz"
		}
	}
	switch {
	case st.IsDir():
		req.ContentType = objects.ContentTgz
		return objects.Body{Size: -1, Open: func() (io.ReadCloser, error) { return packReader(ctx, abs), nil }}, nil
	case st.Mode().IsRegular():
		req.ContentType = objects.DetectContentType(filepath.Base(abs))
		return objects.Body{Size: st.Size(), Open: func() (io.ReadCloser, error) { return os.Open(abs) }}, nil
	}
	return objects.Body{}, usagef("%s is neither a file nor a directory; pipe it in with -", path)
}

// packReader gives the directory's archive as a stream. Closing it early ends
// the packing.
func packReader(ctx context.Context, dir string) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(extract.Pack(ctx, dir, pw, extract.PackOptions{})) }()
	return pr
}

// keyValues reads key=value arguments.
func keyValues(args []string) (map[string]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(args))
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok || k == "" {
			return nil, usagef("--metadata %q: write key=value", arg)
		}
		m[k] = v
	}
	return m, nil
}
