package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"objectmount/agent"
	"objectmount/extract"
	"objectmount/objects"
)

func newMount(a *app, p places) *cobra.Command {
	var (
		m       agent.Mount
		limits  extract.Limits
		network objects.Limits
		cache   cacheFlags
		asJSON  bool
		sync    bool
		lazy    bool
		unpack  bool
		front   bool
	)
	c := &cobra.Command{
		Use:   "mount SOURCE PATH",
		Short: "make one object be there at a path",
		Long: `Fetch SOURCE and leave it at PATH: an archive as a directory of its members, a
.gz as the decompressed file, anything else as it is. SOURCE is an object id, a
download URL (best read from standard input with "-", where no other user can
see it), or a local file.

Nothing appears at PATH before all of it is verified. Mounting the same object
again does nothing, and keeps what was edited.

From --lazy-above on, archives are mounted lazily where that is possible: the
tree is there at once, and bytes are fetched when they are read. It can be
written to like any other; changes are kept, and come back when the same object
is mounted at the same path again. A process stays behind and serves it until
"objectmount unmount" ends it. --lazy does so whatever the size, and with single
files too, which are read-only then; --extract never does.

--prefetch says what a lazy mount fetches before anybody asks for it: none is
nothing but the rest of each piece; auto is also what follows what is read, and
what was read in the first half minute the last time the object was mounted;
all is everything, when nobody asks for anything else, as far as the cache has
room. --prefetch-rate bounds what goes on in the background.

As with tar, the command does not wait for the disk. It leaves a process behind
that does, which keeps the file system in use for a moment; after a power cut
in that moment the next agent or mount command makes the mount again. --sync
waits, for scripts that unmount, snapshot or end the machine right after.`,
		Example: `  objectmount mount obj_31CYd5LLFbBxst8mqnUjO /home/user/data
  objectmount objects url obj_31CYd5LLFbBxst8mqnUjO | objectmount mount - /home/user/data
  objectmount mount ./model.tar.gz /srv/model --owner www-data
  objectmount mount --lazy --read-only obj_31CYd5LLFbBxst8mqnUjO /data/corpus
  objectmount mount --prefetch all --prefetch-rate 20MiB/s obj_31CYd5LLFbBxst8mqnUjO /data/model`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := absPath(args[1])
			if err != nil {
				return err
			}
			m.ObjectPath, m.Required = path, true
			switch {
			case lazy && unpack:
				return usagef("--lazy and --extract exclude each other")
			case unpack && (m.ReadOnly || m.PublishIndex):
				return usagef("--read-only and --publish-index are for lazy mounts")
			case lazy:
				m.Mode = "lazy"
			case unpack:
				m.Mode = "extract"
			}
			if err := a.mountSource(&m, args[0]); err != nil {
				return err
			}
			j, err := a.job(m, limits, network, cache, sync)
			if err != nil {
				return err
			}
			ag, it, err := a.mountHere(cmd.Context(), j, front)
			if errors.Is(err, agent.ErrNeedsServer) {
				it, err = a.mountBehind(cmd.Context(), j)
			}
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(a.out, it)
			} else {
				_, err = fmt.Fprintln(a.out, it.RealPath)
			}
			if front {
				err = errors.Join(err, ag.Serve(cmd.Context()))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&m.Owner, "owner", "", "USER[:GROUP] of what is made (default: the owner of the nearest existing parent)")
	f.StringVar(&m.OnConflict, "on-conflict", "error", "what to do with a non-empty PATH: error, replace or merge")
	f.BoolVar(&m.PreserveOwner, "preserve-owner", false, "keep the archive's own users and groups")
	f.BoolVar(&m.Xattrs, "xattrs", false, "restore the user's extended attributes (user.*)")
	f.StringVar(&m.SHA256, "sha256", "", "refuse the object unless its bytes have this SHA-256")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&sync, "sync", false, "return when everything is on disk")
	f.BoolVar(&lazy, "lazy", false, "fetch what is read when it is read, whatever the size")
	f.BoolVar(&unpack, "extract", false, "never mount lazily")
	f.BoolVar(&m.ReadOnly, "read-only", false, "a lazy mount that cannot be written to")
	f.BoolVar(&m.PublishIndex, "publish-index", false, "publish the index of a lazy mount for the other machines of the account")
	f.BoolVar(&front, "foreground", false, "serve a lazy mount in this process, until it is unmounted or the process is ended")
	cache.add(f, p)
	addLimits(f, &limits)
	addNetwork(f, &network)
	return c
}

// absPath makes a path absolute and keeps a trailing slash, which means "into
// this directory".
func absPath(p string) (string, error) {
	if p == "" {
		return "", usagef("PATH is empty")
	}
	abs, err := filepath.Abs(p)
	if err == nil && strings.HasSuffix(p, "/") && abs != "/" {
		abs += "/"
	}
	return abs, err
}

// mountSource decides what a SOURCE argument is. A local file wins over an
// object id of the same name only when it is written as a path.
func (a *app) mountSource(m *agent.Mount, src string) error {
	switch {
	case src == "-":
		url, err := readLine(a.in)
		if err != nil {
			return fmt.Errorf("read download URL from standard input: %w", err)
		}
		m.DownloadURL = objects.Secret(url)
	case strings.HasPrefix(src, "http://"), strings.HasPrefix(src, "https://"):
		if strings.Contains(src, "?") {
			fmt.Fprintln(a.err, "warning: other users can see this URL in the list of processes; pipe it in with - instead")
		}
		m.DownloadURL = objects.Secret(src)
	case strings.HasPrefix(src, "obj_") && !strings.Contains(src, "/"):
		m.ObjectID = src
	default:
		abs, err := filepath.Abs(src)
		if err != nil {
			return err
		}
		if _, err := os.Stat(abs); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return hinted{err, "SOURCE is an object id (obj_...), an http(s) download URL, or a local file"}
			}
			return err
		}
		m.LocalFile = abs
	}
	return nil
}

// mountHere makes one mount in this process, with progress, under the same
// receipts and locks as the daemon. With serve it can be a lazy one, which the
// agent that is returned serves.
func (a *app) mountHere(ctx context.Context, j *mountJob, serve bool) (ag *agent.Agent, it agent.ItemStatus, err error) {
	m := j.Mount
	cfg, err := a.agentConfig(zap.NewNop())
	if err != nil {
		return nil, it, err
	}
	if m.ObjectID != "" && cfg.Client == nil {
		_, err := a.client()
		return nil, it, err
	}
	cfg.RetryBudget, cfg.Limits, cfg.Network = a.timeout, j.Limits, objects.NewNetwork(j.Network)
	cfg.Serve = serve
	j.Cache.apply(&cfg)
	p := a.newProgress(filepath.Base(m.ObjectPath), -1)
	cfg.Progress = p.mount
	if ag, err = agent.New(cfg); err != nil {
		return nil, it, err
	}
	start := time.Now()
	it, err = ag.Mount(ctx, m)
	p.done()
	switch {
	case err != nil:
	case it.Unflushed && j.Sync:
		err = ag.Flush(ctx)
		it.Unflushed = err != nil
	case it.Unflushed:
		err = a.flushLater(ctx, ag)
	}
	if err != nil {
		return ag, it, err
	}
	if !a.noProgress {
		fmt.Fprintln(a.err, summary(it, p.made, time.Since(start)))
	}
	if it.Note != "" {
		fmt.Fprintln(a.err, printable(it.Note))
	}
	return ag, it, nil
}

func newUnmount(a *app) *cobra.Command {
	var all, keep, remove, lazy bool
	c := &cobra.Command{
		Use:   "unmount PATH... | --all",
		Short: "take mounts down again",
		Long: `Take down what "objectmount mount" or the agent made. Files in which nothing was
edited are removed; a tree with edits is left alone, and said so: --keep forgets
the mount and leaves all files, --delete removes them with their edits.

A lazy mount is detached, and the process that serves it ends. Changes to it are
kept for the next time unless --delete says otherwise. One that is in use stays,
and who uses it is told: --lazy detaches it all the same, and what uses it goes
on until it has closed its files.`,
		Example: `  objectmount unmount /home/user/data
  objectmount unmount --all --keep`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usagef("give paths, or --all alone")
			}
			how := agent.UnmountUnmodified
			switch {
			case keep && remove:
				return usagef("--keep and --delete exclude each other")
			case keep:
				how = agent.UnmountKeep
			case remove:
				how = agent.UnmountDelete
			}
			if lazy {
				how |= agent.UnmountLazily
			}
			cfg, err := a.agentConfig(zap.NewNop())
			if err != nil {
				return err
			}
			ag, err := agent.New(cfg)
			if err != nil {
				return err
			}
			if all {
				if args, err = ag.Paths(); err != nil {
					return err
				}
			}
			var errs []error
			for _, arg := range args {
				path, err := absPath(arg)
				if err == nil {
					err = ag.Unmount(cmd.Context(), path, how)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
	f := c.Flags()
	f.BoolVar(&all, "all", false, "every mount of this state directory")
	f.BoolVar(&keep, "keep", false, "leave the files")
	f.BoolVar(&remove, "delete", false, "remove the files, edited or not")
	f.BoolVar(&lazy, "lazy", false, "detach lazy mounts that are in use")
	return c
}
