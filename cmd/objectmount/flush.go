package main

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"objectmount/agent"
)

// newFlush is what `objectmount mount` leaves behind: a process that waits for
// the disk, so that the command need not. A person never types it.
func newFlush(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "flush",
		Short:  "bring every finished mount to disk",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Whoever ends what it was started from would make the next boot
			// extract everything again.
			signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
			ag, err := agent.New(agent.Config{StateDir: a.stateDir, RunDir: a.runDir})
			if err != nil {
				return err
			}
			return ag.Flush(context.Background())
		},
	}
}

// flushLater starts that process, and waits for the disk itself if it cannot.
func (a *app) flushLater(ctx context.Context, ag *agent.Agent) error {
	state, err := filepath.Abs(a.stateDir)
	if err != nil {
		return err
	}
	run, err := filepath.Abs(a.runDir)
	if err != nil {
		return err
	}
	c := exec.Command("/proc/self/exe", "flush", "--state-dir", state, "--run-dir", run)
	c.Args[0] = os.Args[0] // what it is called in a list of processes
	c.Dir = "/"            // it is in nobody's way
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "RUNLOOP_") { // it asks no server for anything
			c.Env = append(c.Env, v)
		}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.Start(); err != nil {
		return ag.Flush(ctx)
	}
	return c.Process.Release()
}
