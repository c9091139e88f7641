package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"objectmount/extract"
	"objectmount/objects"
)

// downloaded is what download --json prints.
type downloaded struct {
	ID        string `json:"id"`
	Path      string `json:"path"`
	SizeBytes int64  `json:"size_bytes"`
	Extracted bool   `json:"extracted"`
}

func newDownload(a *app) *cobra.Command {
	var (
		seconds int
		unpack  bool
		force   bool
		asJSON  bool
		network objects.Limits
	)
	c := &cobra.Command{
		Use:   "download ID [PATH]",
		Short: "download an object",
		Long: `Download an object to PATH (default: its name, here) and print that path alone.
"-" is standard output. An interrupted download goes on where it stopped. With
--extract an archive becomes a directory, a .gz the decompressed file.`,
		Example: `  objectmount objects download obj_31CYd5LLFbBxst8mqnUjO model.bin
  objectmount objects download obj_31CYd5LLFbBxst8mqnUjO - | tar xz
  objectmount objects download obj_31CYd5LLFbBxst8mqnUjO ./src --extract`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			ctx, id := cmd.Context(), args[0]
			o, err := cl.Get(ctx, id)
			if err != nil {
				return err
			}
			path := localName(o, unpack)
			if len(args) == 2 {
				path = args[1]
			}
			if path == "-" && unpack {
				return usagef("--extract needs a PATH, not standard output")
			}
			if path == "-" && isTerminal(a.out) && o.ContentType != objects.ContentText {
				return hinted{usagef("will not write binary data to a terminal"), "redirect standard output, or name a file"}
			}
			if _, err := os.Lstat(path); err == nil && path != "-" && !unpack && !force {
				return hinted{fmt.Errorf("%s is there already: %w", path, extract.ErrConflict), "--force replaces it"}
			}
			r, err := objects.Open(ctx, cl.Minter(id, time.Duration(seconds)*time.Second), objects.ReaderOptions{
				Size: o.SizeBytes, RetryBudget: a.timeout, Network: objects.NewNetwork(network),
			})
			if err != nil {
				return err
			}
			defer r.Close()
			p := a.newProgress("download "+o.Name, r.Size())
			err = a.save(ctx, r, o, path, unpack, force, p)
			p.done()
			if err != nil {
				return err
			}
			res := downloaded{ID: id, Path: path, SizeBytes: r.Size(), Extracted: unpack}
			switch {
			case asJSON && path == "-":
				return printJSON(a.err, res)
			case asJSON:
				return printJSON(a.out, res)
			case path != "-":
				_, err = fmt.Fprintln(a.out, path)
			}
			return err
		},
	}
	f := c.Flags()
	f.IntVar(&seconds, "duration-seconds", 3600, "life of the download URL; it is renewed when needed")
	f.BoolVar(&unpack, "extract", false, "extract what was downloaded")
	f.BoolVar(&force, "force", false, "replace what is at PATH")
	addNetwork(f, &network)
	f.BoolVar(&asJSON, "json", false, "print JSON (on standard error when PATH is -)")
	return c
}

// save writes the object where it should go.
func (a *app) save(ctx context.Context, r *objects.Reader, o objects.Object, path string, unpack, force bool, p *progress) error {
	if path != "-" && !unpack {
		return r.Download(ctx, path, p.update)
	}
	body, err := r.Stream(ctx, 0)
	if err != nil {
		return err
	}
	defer body.Close()
	counting := countingReader{r: body, tell: func(n int64) { p.update(n, r.Size()) }}
	var counted io.Reader = &counting
	if l, ok := body.(lender); ok {
		counted = &lendingReader{counting, l}
	}
	if path == "-" {
		_, err := io.Copy(a.out, counted)
		return err
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if strings.HasSuffix(path, "/") {
		abs += "/"
	}
	opts := extract.Options{Name: o.Name, ContentType: string(o.ContentType), Size: r.Size()}
	if force {
		opts.OnConflict = extract.ConflictReplace
	}
	if _, err = extract.Extract(ctx, counted, abs, opts); err != nil {
		return fmt.Errorf("extract to %s: %w", path, err)
	}
	return nil
}

// localName is the file name of an object without a PATH: its name's last
// component, with the ending its content type calls for when it has none.
func localName(o objects.Object, unpack bool) string {
	name := filepath.Base(filepath.Clean("/" + o.Name))
	if name == "/" || name == "." {
		name = o.ID
	}
	if unpack {
		for _, end := range []string{".tar.gz", ".tgz", ".tar", ".gz"} {
			if s, ok := strings.CutSuffix(name, end); ok && s != "" {
				return s
			}
		}
		return name
	}
	if filepath.Ext(name) != "" {
		return name
	}
	switch o.ContentType {
	case objects.ContentText:
		return name + ".txt"
	case objects.ContentGzip:
		return name + ".gz"
	case objects.ContentTar:
		return name + ".tar"
	case objects.ContentTgz:
		return name + ".tgz"
	}
	return name
}

// lender lends its own buffers, as the streams of package objects do.
type lender interface{ Next() ([]byte, error) }

// lendingReader is a countingReader of a lender.
type lendingReader struct {
	countingReader
	lender lender
}

// countingReader tells how many bytes have passed.
type countingReader struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

// Next lends the next bytes until the next call, as extract likes them best.
func (c *lendingReader) Next() ([]byte, error) {
	p, err := c.lender.Next()
	c.n += int64(len(p))
	c.tell(c.n)
	return p, err
}

// maxLine bounds a URL read from standard input.
const maxLine = 64 << 10

// readLine reads the first line.
func readLine(r io.Reader) (string, error) {
	s, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if s = strings.TrimSpace(s); s == "" {
		return "", io.ErrUnexpectedEOF
	}
	return s, nil
}
