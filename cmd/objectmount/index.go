package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/objects"
)

func newIndex(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "index",
		Short: "build, show and verify indexes of archives",
		Long: `An index says where in an archive everything is, so that any byte of it can be
read without what comes before: a small file, made by reading the archive once.
Published beside its object, it lets every machine of the account mount a large
archive at once.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newIndexBuild(a), newIndexShow(a), newIndexVerify(a))
	return c
}

// indexSuffix is that of an index file beside what it is of.
const indexSuffix = ".objectmount-index"

// indexReport is what the index commands print.
type indexReport struct {
	Source      string  `json:"source"`
	File        string  `json:"file,omitempty"`      // where the index is, if it stays on this machine
	Published   string  `json:"published,omitempty"` // the published index's object id
	Format      string  `json:"format"`
	ObjectID    string  `json:"object_id,omitempty"`
	ETag        string  `json:"etag,omitempty"`
	SHA256      string  `json:"sha256,omitempty"`
	ObjectSize  int64   `json:"object_size_bytes"`
	StreamSize  int64   `json:"stream_size_bytes"`
	Entries     int     `json:"entries"` // rows, the root included
	Spans       int     `json:"spans"`
	SpanSums    bool    `json:"span_checksums"`
	IndexSize   int64   `json:"index_size_bytes"`
	OverPercent float64 `json:"overhead_percent"` // of the stream
	Digest      string  `json:"digest"`
}

func reportIndex(x *index.Index, source string) indexReport {
	id := x.Object()
	r := indexReport{
		Source: source, Format: x.Format(), ObjectID: id.ID, ETag: id.ETag, SHA256: id.SHA256, ObjectSize: id.Size,
		StreamSize: x.StreamSize(), Entries: x.NumRows(), Spans: x.NumSpans(), SpanSums: x.HasSums(),
		IndexSize: x.Size(), Digest: x.Digest(),
	}
	if r.StreamSize > 0 {
		r.OverPercent = 100 * float64(r.IndexSize) / float64(r.StreamSize)
	}
	return r
}

func printIndex(a *app, r indexReport) error {
	object := size(r.ObjectSize)
	if r.ObjectID != "" {
		object += ", " + r.ObjectID
	}
	spans := "none"
	if r.Spans > 0 {
		spans = fmt.Sprintf("%d of %s on average", r.Spans, size(r.StreamSize/int64(r.Spans)))
		if !r.SpanSums {
			spans += ", without checksums"
		}
	}
	rows := [][]string{
		{"SOURCE", r.Source}, {"FORMAT", r.Format}, {"OBJECT", object}, {"ETAG", r.ETag}, {"SHA-256", r.SHA256},
		{"STREAM", size(r.StreamSize)}, {"ENTRIES", fmt.Sprint(r.Entries)}, {"SPANS", spans},
		{"INDEX", fmt.Sprintf("%s, %.2f%% of the stream", size(r.IndexSize), r.OverPercent)},
		{"FILE", r.File}, {"PUBLISHED", r.Published}, {"DIGEST", r.Digest},
	}
	kept := rows[:0]
	for _, row := range rows {
		if row[1] != "" {
			kept = append(kept, row)
		}
	}
	return table(a.out, kept)
}

func newIndexBuild(a *app) *cobra.Command {
	var (
		output  string
		publish bool
		skim    bool
		asJSON  bool
		network objects.Limits
	)
	c := &cobra.Command{
		Use:   "build SOURCE",
		Short: "read an archive once and index it",
		Long: `Read SOURCE once (an object id, a download URL read from standard input with
"-", or a local file) and write its index: to --output, or beside a local file,
or for an object, with --publish, to the account, where mounts find it.

--skim reads of a plain .tar the headers alone, with few requests. Such an index
has no checksums of the content.`,
		Example: `  objectmount index build ./dataset.tar.gz
  objectmount index build obj_31CYd5LLFbBxst8mqnUjO --publish`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			s, err := a.openIndexed(ctx, args[0], network)
			if err != nil {
				return err
			}
			defer s.close()
			switch {
			case publish && s.id.ID == "":
				return usagef("--publish needs an object id as SOURCE: what has no id has no account")
			case output == "" && s.file != "":
				output = s.file + indexSuffix
			case output == "" && !publish:
				return hinted{usagef("where is the index to go?"), "--publish puts it beside the object, --output into a file"}
			}
			x, err := a.buildIndex(ctx, s, output, skim)
			if err != nil {
				return err
			}
			defer x.Close()
			r := reportIndex(x, s.name)
			r.File = output
			if publish {
				p := a.newProgress("publish index", -1)
				o, made, err := agent.PublishIndex(ctx, s.client, s.object, x, p.update)
				p.done()
				if err != nil {
					return err
				}
				if r.Published = o.ID; !made {
					fmt.Fprintln(a.err, "it was published already")
				}
			}
			if asJSON {
				return printJSON(a.out, r)
			}
			return printIndex(a, r)
		},
	}
	f := c.Flags()
	f.StringVarP(&output, "output", "o", "", "index file (default for a local file: its name with "+indexSuffix+")")
	f.BoolVar(&publish, "publish", false, "publish the index as an object beside SOURCE")
	f.BoolVar(&skim, "skim", false, "of a plain .tar read the headers only")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	addNetwork(f, &network)
	return c
}

func newIndexShow(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show SOURCE",
		Short: "what an index says of itself",
		Long: `Show the index of SOURCE: the published one of an object id, the one beside a
local archive, or an index file itself.`,
		Example: `  objectmount index show obj_31CYd5LLFbBxst8mqnUjO
  objectmount index show ./dataset.tar.gz --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			x, r, err := a.findIndex(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer x.Close()
			if asJSON {
				return printJSON(a.out, r)
			}
			return printIndex(a, r)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newIndexVerify(a *app) *cobra.Command {
	var (
		file    string
		network objects.Limits
	)
	c := &cobra.Command{
		Use:   "verify SOURCE",
		Short: "read the archive again and compare its index",
		Long: `Read SOURCE as index build does, and compare the result with the index there is:
the published one of an object id, or the file beside a local archive. An index
depends on the object's bytes alone, so the two must be equal to the byte.`,
		Example: `  objectmount index verify obj_31CYd5LLFbBxst8mqnUjO
  objectmount index verify ./dataset.tar.gz --index /backup/dataset.index`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			where := args[0]
			if file != "" {
				where = file
			}
			have, r, err := a.findIndex(ctx, where)
			if err != nil {
				return err
			}
			defer have.Close()
			if err := have.Verify(); err != nil {
				return err
			}
			s, err := a.openIndexed(ctx, args[0], network)
			if err != nil {
				return err
			}
			defer s.close()
			if err := s.id.Match(have.Object()); err != nil {
				return hinted{err, "build it again: objectmount index build " + args[0]}
			}
			s.id = have.Object() // what the index knows more of it
			now, err := a.buildIndex(ctx, s, "", !have.HasSums())
			if err != nil {
				return err
			}
			defer now.Close()
			if now.Digest() != have.Digest() {
				return hinted{
					fmt.Errorf("%w: built again it has the digest %s, not %s", index.ErrDamaged, now.Digest(), have.Digest()),
					"build it again: objectmount index build " + args[0],
				}
			}
			_, err = fmt.Fprintf(a.out, "%s: the index is right (%d entries, %d spans, digest %s)\n", printable(args[0]), r.Entries, r.Spans, r.Digest)
			return err
		},
	}
	c.Flags().StringVar(&file, "index", "", "the index file to compare with")
	addNetwork(c.Flags(), &network)
	return c
}

// findIndex opens the index that there is of SOURCE.
func (a *app) findIndex(ctx context.Context, source string) (*index.Index, indexReport, error) {
	if isObjectID(source) {
		return a.publishedIndex(ctx, source)
	}
	name := source
	if !strings.HasSuffix(source, indexSuffix) {
		if _, err := os.Stat(source + indexSuffix); err == nil {
			name = source + indexSuffix
		}
	}
	x, err := index.Open(name, index.ObjectID{Size: -1})
	if errors.Is(err, index.ErrDamaged) && name == source {
		err = hinted{err, "if it is an archive, build its index first: objectmount index build " + source}
	}
	if err != nil {
		return nil, indexReport{}, err
	}
	r := reportIndex(x, source)
	r.File = name
	return x, r, nil
}

// publishedIndex fetches the published index of an object.
func (a *app) publishedIndex(ctx context.Context, id string) (*index.Index, indexReport, error) {
	cl, err := a.client()
	if err != nil {
		return nil, indexReport{}, err
	}
	obj, err := cl.Get(ctx, id)
	if err != nil {
		return nil, indexReport{}, err
	}
	want := index.ObjectID{ID: id, Size: -1}
	if obj.SizeBytes != nil {
		want.Size = *obj.SizeBytes
	}
	o, err := agent.FindIndex(ctx, cl, want)
	if err != nil {
		return nil, indexReport{}, hinted{err, "publish one: objectmount index build " + id + " --publish"}
	}
	dir, err := os.MkdirTemp("", "objectmount-index-")
	if err != nil {
		return nil, indexReport{}, err
	}
	defer os.RemoveAll(dir) // it stays mapped
	x, err := agent.FetchIndex(ctx, cl, o, filepath.Join(dir, "index"), want, objects.ReaderOptions{RetryBudget: a.timeout})
	if err != nil {
		return nil, indexReport{}, err
	}
	r := reportIndex(x, id)
	r.Published = o.ID
	return x, r, nil
}

// isObjectID tells an object id from a path, as mount does.
func isObjectID(s string) bool { return strings.HasPrefix(s, "obj_") && !strings.Contains(s, "/") }
