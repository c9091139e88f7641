package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"objectmount/agent"
	"objectmount/extract"
	"objectmount/objects"
)

// A lazy mount lives as long as the process that serves it. So `objectmount
// mount` starts another one, which does all of the work and stays:
//
//	mount                                  serve-lazily
//	  │ start ───────────────────────────▶   │
//	  │ the job, by a pipe ──────────────▶   │ mounts; talks to the same
//	  │ (the pipe stays open: its end        │ standard error
//	  │  tells that the command was ended)   │
//	  │ ◀────────────── the mount's status   │ lets go of standard error
//	prints it, exits                         serves until it is unmounted
//
// If it fails, its message and exit code are the command's. The job goes by a
// pipe because there may be a signed URL in it, and arguments can be read by
// everyone.

// cacheFlags are those of every command that can make lazy mounts.
type cacheFlags struct {
	Dir      string
	Size     int64
	Above    int64
	Prefetch agent.Prefetch
	FillRate int64 // bytes per second
}

// prefetchValue is a policy on the command line.
type prefetchValue agent.Prefetch

func (v *prefetchValue) String() string { return string(*v) }
func (v *prefetchValue) Type() string   { return "policy" }
func (v *prefetchValue) Set(text string) error {
	p, err := agent.ParsePrefetch(text)
	if err == nil {
		*v = prefetchValue(p)
	}
	return err
}

func (c *cacheFlags) add(f *pflag.FlagSet, p places) {
	c.Above, c.Prefetch = 128<<20, agent.PrefetchAuto
	f.StringVar(&c.Dir, "cache-dir", p.cache, "where indexes and fetched pieces of lazy mounts are kept")
	f.Var((*byteSize)(&c.Size), "cache-size", "keep no more than this of fetched pieces (default: a quarter of the file system)")
	f.Var((*byteSize)(&c.Above), "lazy-above", "mount objects lazily from this size on, unless told otherwise")
	f.Var((*prefetchValue)(&c.Prefetch), "prefetch", "what lazy mounts fetch before it is asked for: none, auto or all")
	f.Var((*perSecond)(&c.FillRate), "prefetch-rate", "fetch no more than this in the background (default: as fast as the link is when nobody else waits)")
}

func (c *cacheFlags) apply(cfg *agent.Config) {
	cfg.CacheDir, cfg.CacheSize, cfg.LazyAbove = c.Dir, c.Size, c.Above
	cfg.Prefetch, cfg.FillRate = c.Prefetch, c.FillRate
	if c.Above == 0 {
		cfg.LazyAbove = 1 // zero would mean the default
	}
}

// mountJob is one `objectmount mount`, as it goes to another process.
type mountJob struct {
	Mount                              agent.Mount
	URL                                string // Mount.DownloadURL, which does not show itself
	Limits                             extract.Limits
	Network                            objects.Limits
	Sync                               bool
	Cache                              cacheFlags
	BaseURL, KeyFile, StateDir, RunDir string
	Timeout                            time.Duration
	NoProgress                         bool
}

// job is what there is to do for a mount command.
func (a *app) job(m agent.Mount, limits extract.Limits, network objects.Limits, c cacheFlags, sync bool) (*mountJob, error) {
	j := &mountJob{Mount: m, URL: m.DownloadURL.Reveal(), Limits: limits, Network: network, Sync: sync,
		BaseURL: a.baseURL, KeyFile: a.keyFile, StateDir: a.stateDir, RunDir: a.runDir, Timeout: a.timeout, NoProgress: a.noProgress}
	j.Cache = c
	// The other process is in another directory.
	for _, dir := range []*string{&j.StateDir, &j.RunDir, &j.Cache.Dir, &j.KeyFile} {
		if *dir == "" {
			continue
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	return j, nil
}

// maxJob bounds what is read from the pipes, in bytes.
const maxJob = 1 << 20

// mountBehind has another process do the job, and stay.
func (a *app) mountBehind(ctx context.Context, j *mountJob) (it agent.ItemStatus, err error) {
	jobR, jobW, err := os.Pipe()
	if err != nil {
		return it, err
	}
	defer jobW.Close()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		jobR.Close()
		return it, err
	}
	defer statusR.Close()
	c := exec.Command("/proc/self/exe", "serve-lazily", j.Mount.Path())
	c.Args[0] = os.Args[0] // what it is called in a list of processes
	c.Dir = "/"            // it is in nobody's way
	c.Stderr = a.err
	c.ExtraFiles = []*os.File{jobR, statusW} // descriptors 3 and 4
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = c.Start()
	jobR.Close()
	statusW.Close()
	if err != nil {
		return it, fmt.Errorf("start the process that serves the mount: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { jobW.Close() })
	defer stop()
	if err := json.NewEncoder(jobW).Encode(j); err == nil {
		err = json.NewDecoder(io.LimitReader(statusR, maxJob)).Decode(&it)
		if err == nil && it.Lazy != nil {
			return it, c.Process.Release()
		}
	}
	jobW.Close()
	err = c.Wait()
	var ee *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return it, context.Cause(ctx)
	case errors.As(err, &ee) && ee.ExitCode() > 0:
		return it, quietError{ee.ExitCode()} // it has said why
	}
	return it, err // nil: it was extracted after all
}

// newServeLazily is the process behind a lazy mount. A person never types it.
func newServeLazily(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "serve-lazily PATH",
		Short:  "serve a lazy mount",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, out := os.NewFile(3, "job"), os.NewFile(4, "status")
			if in == nil || out == nil {
				return usagef("this command is started by objectmount mount")
			}
			unix.CloseOnExec(3)
			unix.CloseOnExec(4)
			j := new(mountJob)
			if err := json.NewDecoder(io.LimitReader(in, maxJob)).Decode(j); err != nil {
				return fmt.Errorf("read what to mount: %w", err)
			}
			return a.serveBehind(cmd.Context(), j, in, out)
		},
	}
}

// serveBehind does a job as if the command did it, and then serves.
func (a *app) serveBehind(ctx context.Context, j *mountJob, in, out *os.File) error {
	defer out.Close()
	a.baseURL, a.keyFile, a.stateDir, a.runDir = j.BaseURL, j.KeyFile, j.StateDir, j.RunDir
	a.timeout, a.noProgress = j.Timeout, j.NoProgress
	j.Mount.DownloadURL = objects.Secret(j.URL)

	mounting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		// Until the mount is live this process ends with the command.
		_, _ = io.Copy(io.Discard, in)
		stop(signalError{syscall.SIGTERM})
	}()
	ag, it, err := a.mountHere(mounting, j, true)
	if err != nil {
		return err
	}
	if it.Lazy != nil {
		if err := letGo(); err != nil {
			return errors.Join(err, ag.Unmount(ctx, it.Path, agent.UnmountUnmodified))
		}
	}
	if err := json.NewEncoder(out).Encode(it); err != nil && it.Lazy != nil {
		// The command is gone, as if it had been ended a moment earlier.
		return errors.Join(err, ag.Unmount(ctx, it.Path, agent.UnmountUnmodified))
	}
	out.Close()
	return ag.Serve(ctx)
}

// letGo gives the standard streams back, for which somebody may wait.
func letGo() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return os.NewSyscallError("dup3", err)
		}
	}
	return nil
}
