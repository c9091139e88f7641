package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"objectmount/objects"
)

func newObjects(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:     "objects",
		Aliases: []string{"object", "obj"},
		Short:   "upload, list, get, download and delete objects",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(newUpload(a), newList(a), newGet(a), newDownload(a), newURL(a), newDelete(a))
	return c
}

func newList(a *app) *cobra.Command {
	var (
		q      objects.ListQuery
		ct     string
		state  string
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "list",
		Short: "list objects, newest first",
		Example: `  objectmount objects list --name dataset
  objectmount objects list --limit 0 --json | jq -r '.[].id'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q.ContentType, q.State = objects.ContentType(ct), objects.State(strings.ToUpper(state))
			if ct != "" && !q.ContentType.Valid() {
				return usagef("--content-type %q: use %s", ct, contentTypes)
			}
			if state != "" && !slices.Contains(states, q.State) {
				return usagef("--state %q: use one of %v", state, states)
			}
			q.NoTotal = true
			limit := q.Limit
			q.Limit = min(max(limit, 0), 1000)
			if limit <= 0 {
				q.Limit = 1000 // everything, in large pages
			}
			list := []objects.Object{} // prints as [], not null
			for o, err := range cl.All(cmd.Context(), q) {
				if err != nil {
					return err
				}
				list = append(list, o)
				if limit > 0 && len(list) == limit {
					break
				}
			}
			if asJSON {
				return printJSON(a.out, list)
			}
			return printObjects(a, list)
		},
	}
	f := c.Flags()
	f.IntVar(&q.Limit, "limit", 20, "how many at most; 0 for all")
	f.StringVar(&q.StartingAfter, "starting-after", "", "only what comes after this object id")
	f.StringVar(&q.Name, "name", "", "only names that contain this")
	f.StringVar(&q.Search, "search", "", "only ids or names that contain this")
	f.StringVar(&ct, "content-type", "", "only this content type: "+contentTypes)
	f.StringVar(&state, "state", "", "only this state: UPLOADING, READ_ONLY, DELETED or ERROR")
	f.BoolVar(&q.Public, "public", false, "public objects of all accounts")
	f.BoolVar(&asJSON, "json", false, "print a JSON array of objects")
	return c
}

// contentTypes are the API's own words, not MIME types.
const contentTypes = "unspecified, text, binary, gzip, tar or tgz"

var states = []objects.State{objects.StateUploading, objects.StateReadOnly, objects.StateDeleted, objects.StateError}

func printObjects(a *app, list []objects.Object) error {
	if len(list) == 0 {
		fmt.Fprintln(a.err, "no objects")
		return nil
	}
	rows := [][]string{{"ID", "NAME", "TYPE", "STATE", "SIZE", "CREATED", "EXPIRES"}}
	for _, o := range list {
		n := int64(-1)
		if o.SizeBytes != nil {
			n = *o.SizeBytes
		}
		expires := "-"
		if o.DeleteAfterTimeMS != nil {
			expires = "in " + age(time.Now().Add(-time.Until(time.UnixMilli(*o.DeleteAfterTimeMS))))
		}
		rows = append(rows, []string{o.ID, o.Name, string(o.ContentType), string(o.State), size(n),
			age(time.UnixMilli(o.CreateTimeMS)) + " ago", expires})
	}
	return table(a.out, rows)
}

func newGet(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "get ID",
		Short:   "show one object",
		Example: "  objectmount objects get obj_31CYd5LLFbBxst8mqnUjO --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			o, err := cl.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, o)
			}
			return printObject(a, o)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// printObject writes one object as "key: value" lines.
func printObject(a *app, o objects.Object) error {
	line := func(key, value string) { fmt.Fprintf(a.out, "%s: %s\n", key, printable(value)) }
	line("id", o.ID)
	line("name", o.Name)
	line("state", string(o.State))
	line("content_type", string(o.ContentType))
	if o.SizeBytes != nil {
		line("size_bytes", fmt.Sprintf("%d (%s)", *o.SizeBytes, size(*o.SizeBytes)))
	}
	line("created", time.UnixMilli(o.CreateTimeMS).UTC().Format(time.RFC3339))
	if o.DeleteAfterTimeMS != nil {
		line("expires", time.UnixMilli(*o.DeleteAfterTimeMS).UTC().Format(time.RFC3339))
	}
	line("is_public", fmt.Sprint(o.IsPublic))
	keys := make([]string, 0, len(o.Metadata))
	for k := range o.Metadata {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		line("metadata."+k, o.Metadata[k])
	}
	return nil
}

func newURL(a *app) *cobra.Command {
	var (
		seconds int
		asJSON  bool
	)
	c := &cobra.Command{
		Use:   "url ID",
		Short: "print a time-limited download URL",
		Long: `Print a download URL that works without a key until it expires. Whoever has it
can read the object, so hand it on by a pipe rather than by an argument.`,
		Example: `  objectmount objects url obj_31CYd5LLFbBxst8mqnUjO --duration-seconds 600`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			u, err := cl.DownloadURL(cmd.Context(), args[0], time.Duration(seconds)*time.Second)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, map[string]string{"download_url": u.URL.Reveal()})
			}
			_, err = fmt.Fprintln(a.out, u.URL.Reveal())
			return err
		},
	}
	c.Flags().IntVar(&seconds, "duration-seconds", 3600, "how long the URL works")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newDelete(a *app) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "delete ID...",
		Short:   "delete objects",
		Example: "  objectmount objects delete obj_31CYd5LLFbBxst8mqnUjO",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			for _, id := range args {
				o, err := cl.Delete(cmd.Context(), id)
				if err != nil {
					return err
				}
				if asJSON {
					err = printJSON(a.out, o)
				} else {
					_, err = fmt.Fprintln(a.out, o.ID)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print each deleted object as JSON")
	return c
}
