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

func newMount(a *app) *cobra.Command {
	var (
		m       agent.Mount
		limits  extract.Limits
		network objects.Limits
		asJSON  bool
		sync    bool
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

As with tar, the command does not wait for the disk. It leaves a process behind
that does, which keeps the file system in use for a moment; after a power cut
in that moment the next agent or mount command makes the mount again. --sync
waits, for scripts that unmount, snapshot or end the machine right after.`,
		Example: `  objectmount mount obj_31CYd5LLFbBxst8mqnUjO /home/user/data
  objectmount objects url obj_31CYd5LLFbBxst8mqnUjO | objectmount mount - /home/user/data
  objectmount mount ./model.tar.gz /srv/model --owner www-data`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := absPath(args[1])
			if err != nil {
				return err
			}
			m.ObjectPath, m.Required = path, true
			if err := a.mountSource(&m, args[0]); err != nil {
				return err
			}
			it, err := a.mountNow(cmd.Context(), m, limits, network, sync)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, it)
			}
			_, err = fmt.Fprintln(a.out, it.RealPath)
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

// mountNow makes one mount in this process, with progress, under the same
// receipts and locks as the daemon.
func (a *app) mountNow(ctx context.Context, m agent.Mount, limits extract.Limits, network objects.Limits, sync bool) (agent.ItemStatus, error) {
	cfg, err := a.agentConfig(zap.NewNop())
	if err != nil {
		return agent.ItemStatus{}, err
	}
	if m.ObjectID != "" && cfg.Client == nil {
		_, err := a.client()
		return agent.ItemStatus{}, err
	}
	cfg.RetryBudget, cfg.Limits, cfg.Network = a.timeout, limits, objects.NewNetwork(network)
	p := a.newProgress(filepath.Base(m.ObjectPath), -1)
	cfg.Progress = p.mount
	ag, err := agent.New(cfg)
	if err != nil {
		return agent.ItemStatus{}, err
	}
	start := time.Now()
	it, err := ag.Mount(ctx, m)
	p.done()
	switch {
	case err != nil:
	case it.Unflushed && sync:
		err = ag.Flush(ctx)
		it.Unflushed = err != nil
	case it.Unflushed:
		err = a.flushLater(ctx, ag)
	}
	if err != nil {
		return it, err
	}
	if !a.noProgress {
		fmt.Fprintln(a.err, summary(it, p.made, time.Since(start)))
	}
	return it, nil
}

func newUnmount(a *app) *cobra.Command {
	var all, keep, remove bool
	c := &cobra.Command{
		Use:   "unmount PATH... | --all",
		Short: "take mounts down again",
		Long: `Take down what "objectmount mount" or the agent made. Files in which nothing was
edited are removed; a tree with edits is left alone, and said so: --keep forgets
the mount and leaves all files, --delete removes them with their edits.`,
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
	return c
}
