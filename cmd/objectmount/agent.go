package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"objectmount/agent"
	"objectmount/extract"
	"objectmount/objects"
	"objectmount/systemd"
)

func newAgent(a *app, p places) *cobra.Command {
	var (
		spec     string
		once     bool
		asJSON   bool
		parallel int
		valid    time.Duration
		budget   time.Duration
		limits   extract.Limits
		network  objects.Limits
		cache    cacheFlags
	)
	c := &cobra.Command{
		Use:   "agent",
		Short: "make this machine match the spec, and keep it so",
		Long: `Read the spec of object mounts and make every mount of it. The daemon then
watches the spec: a changed one is applied within two seconds, a wrong one
changes nothing and is reported by "objectmount status". With --once it makes
every mount, then exits: with 0, or with 3 if some failed.

The spec is a file of mounts, as in the create request of a Devbox:

  {"mounts": [{"type": "object_mount", "object_id": "obj_...",
               "object_path": "/home/user/data"}]}

Optional keys of a mount: mode (auto, lazy, extract), read_only, publish_index,
prefetch (none, auto, all), owner, required, on_conflict, sha256, download_url, preserve_owner, xattrs. A
directory as --spec means all its *.json files.

Archives from --lazy-above on are mounted lazily where that is possible: their
tree is there at once, and bytes are fetched when they are read. The daemon
serves them, and takes them down when it ends; --once extracts everything.
--prefetch is for mounts that do not say it: see objectmount mount --help.`,
		Example: `  objectmount agent --once --spec mounts.json
  objectmount agent                  # as objectmount.service runs it`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			defer log.Sync() //nolint:errcheck // standard error may be a pipe that cannot sync
			cfg, err := a.agentConfig(log)
			if err != nil {
				return err
			}
			cfg.SpecPath, cfg.Parallel, cfg.URLValid, cfg.RetryBudget = spec, parallel, valid, budget
			cache.apply(&cfg)
			cfg.Limits, cfg.Network, cfg.Notifier = limits, objects.NewNetwork(network), systemd.NewNotifier()
			if once {
				return runOnce(cmd.Context(), a, cfg, asJSON)
			}
			ag, err := agent.New(cfg)
			if err != nil {
				return err
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			go func() {
				for {
					select {
					case <-reload:
						ag.Reload()
					case <-cmd.Context().Done():
						return
					}
				}
			}()
			return ag.Run(cmd.Context())
		},
	}
	f := c.Flags()
	f.StringVar(&spec, "spec", filepath.Join(p.config, "mounts.json"), "spec file (with drop-ins in the directory of its name less .json, plus .d), or a directory of spec files")
	f.BoolVar(&once, "once", false, "make every mount, then exit")
	f.BoolVar(&asJSON, "json", false, "with --once: print the final status as JSON")
	f.IntVar(&parallel, "parallel", 4, "mounts made at the same time")
	f.DurationVar(&valid, "url-valid", time.Hour, "life of the download URLs asked for")
	f.DurationVar(&budget, "retry-budget", 15*time.Minute, "how long one fetch may go without progress before it fails")
	cache.add(f, p)
	addLimits(f, &limits)
	addNetwork(f, &network)
	return c
}

// agentConfig is the configuration every command that makes mounts starts
// from. A missing key is no error here: local files and download URLs need none.
func (a *app) agentConfig(log *zap.Logger) (agent.Config, error) {
	cl, err := a.client()
	if err != nil && !errors.Is(err, objects.ErrCredentials) {
		return agent.Config{}, err
	}
	return agent.Config{
		StateDir: a.stateDir, RunDir: a.runDir, Client: cl, Log: log, Version: version(),
	}, nil
}

// runOnce makes every mount of the spec and prints what became of each.
func runOnce(ctx context.Context, a *app, cfg agent.Config, asJSON bool) error {
	ag, err := agent.New(cfg)
	if err != nil {
		return err
	}
	st, err := ag.Once(ctx)
	if err != nil {
		return err
	}
	if err := printStatus(a, st, asJSON); err != nil {
		return err
	}
	failed := 0
	for _, it := range st.Items {
		if it.State != agent.StateReady {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d mounts failed: %w", failed, errSomeFailed)
	}
	return nil
}
