package main

import (
	"time"

	"github.com/spf13/cobra"
)

// app is what every command shares: the streams and the global flags.
type app struct {
	stdio
	baseURL    string
	keyFile    string
	timeout    time.Duration
	stateDir   string
	runDir     string
	logLevel   string
	noProgress bool
}

const rootLong = `objectmount makes Storage Objects be there on this machine.

It reads a spec of object mounts, fetches each object through a time-limited
download URL and leaves it at its path: .tar, .tar.gz, .tgz and .gz extracted,
anything else as it is. The same binary is a command line for objects and a
Storage Objects API server for one machine.`

const rootExample = `  # The whole story on this machine, in a temporary directory
  objectmount demo

  # A server of your own, and an object in it
  objectmount serve --data-dir ./data &
  export RUNLOOP_BASE_URL=http://127.0.0.1:8817 RUNLOOP_API_KEY=...
  id=$(objectmount objects upload ./dataset)

  # The object at a path, by hand and by spec
  objectmount mount $id /home/user/dataset
  objectmount agent --once --spec mounts.json`

// newRoot builds the command tree over the given streams.
func newRoot(std stdio) *cobra.Command {
	a := &app{stdio: std}
	p := defaultPlaces()
	root := &cobra.Command{
		Use:           "objectmount",
		Short:         "make Storage Objects be there on this machine",
		Long:          rootLong,
		Example:       rootExample,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return applyEnv(cmd)
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return hinted{usagef("unknown command %q", args[0]), "objectmount --help lists the commands"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hinted{usageError{err}, cmd.CommandPath() + " --help lists its flags"}
	})
	f := root.PersistentFlags()
	f.StringVar(&a.baseURL, "base-url", "", "Storage Objects API (else $RUNLOOP_BASE_URL, else https://api.runloop.ai)")
	f.StringVar(&a.keyFile, "api-key-file", "", "file with the API key (else $RUNLOOP_API_KEY, else "+p.config+"/api-key)")
	f.DurationVar(&a.timeout, "timeout", 60*time.Second, "longest wait for the API or the network while nothing moves")
	f.StringVar(&a.stateDir, "state-dir", p.state, "where receipts of finished mounts are kept")
	f.StringVar(&a.runDir, "run-dir", p.run, "where the agent's socket is")
	f.StringVar(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&a.noProgress, "no-progress", false, "no progress on standard error")

	root.AddGroup(&cobra.Group{ID: "mounts", Title: "Mounts:"}, &cobra.Group{ID: "objects", Title: "Objects:"})
	for _, c := range []*cobra.Command{newAgent(a, p), newMount(a, p), newUnmount(a), newStatus(a)} {
		c.GroupID = "mounts"
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newObjects(a), newIndex(a), newServe(a, p), newDemo(a)} {
		c.GroupID = "objects"
		root.AddCommand(c)
	}
	root.AddCommand(newDoctor(a, p), newVersion(a), newFlush(a), newServeLazily(a))
	root.SetUsageTemplate(root.UsageTemplate() + "\nExit codes:\n" + exitHelp() +
		"\nEach flag can be set by its variable: --state-dir by OBJECTMOUNT_STATE_DIR.\n")
	wrapArgs(root)
	return root
}

// wrapArgs makes every complaint about arguments a usage error with a hint.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil && cmd.HasParent() {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return hinted{usageError{err}, "usage: " + c.UseLine()}
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		wrapArgs(c)
	}
}
