package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"objectmount/agent"
)

// pollEvery is how often --wait asks the agent again.
const pollEvery = 100 * time.Millisecond

func newStatus(a *app) *cobra.Command {
	var (
		asJSON bool
		wait   time.Duration
	)
	c := &cobra.Command{
		Use:   "status [PATH...]",
		Short: "what is mounted, and how far the rest has got",
		Long: `Ask the running agent for its mounts: state, progress, and the last error with
what to do about it; of lazy mounts also how many of their pieces are in the
cache, what was fetched, how often a read found its piece there, and what is
prefetched. With paths, only those. With --wait, wait until all of them are
ready; the exit code is then 0, or 3 if some are not in time.

Where no agent runs, mounts that were made by hand tell how they do all the
same; the exit code is 10 then, unless they are asked for by their paths.`,
		Example: `  objectmount status
  objectmount status --wait 60s /home/user/data
  objectmount status --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			for i, p := range args {
				abs, err := filepath.Abs(p)
				if err != nil {
					return err
				}
				args[i] = abs
			}
			st, err := waitStatus(cmd.Context(), a.runDir, args, wait)
			if err != nil && wait == 0 {
				st, err = a.withoutAgent(err, args)
			}
			if err != nil && len(st.Items)+len(st.Kept) == 0 {
				return err
			}
			if err := errors.Join(printStatus(a, st, asJSON), err); err != nil {
				return err
			}
			if len(args) > len(st.Items) {
				return hinted{usagef("%d of the given paths are not mounts of this agent", len(args)-len(st.Items)), "objectmount status lists them"}
			}
			if wait > 0 && !allReady(st) {
				return fmt.Errorf("not ready after %s: %w", wait, errSomeFailed)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().DurationVar(&wait, "wait", 0, "wait this long for everything to be ready")
	return c
}

// waitStatus asks until everything asked for is ready or the time is over. An
// agent that is not up yet is waited for too: at boot it may be starting.
func waitStatus(ctx context.Context, runDir string, paths []string, wait time.Duration) (agent.Status, error) {
	deadline := time.Now().Add(wait)
	for {
		st, err := agent.QueryStatus(ctx, runDir)
		late := !time.Now().Before(deadline)
		if err != nil {
			if late || !errors.Is(err, agent.ErrNotRunning) {
				return st, err
			}
		} else {
			if len(paths) > 0 {
				st.Items = slices.DeleteFunc(st.Items, func(it agent.ItemStatus) bool { return !slices.Contains(paths, it.Path) })
			}
			if late || (allReady(st) && len(st.Items) >= len(paths)) {
				return st, nil
			}
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return st, ctx.Err()
		}
	}
}

// allReady is true when the agent has read its spec and made all of it.
func allReady(st agent.Status) bool {
	return st.Ready && st.SpecError == nil && !slices.ContainsFunc(st.Items, func(it agent.ItemStatus) bool { return it.State != agent.StateReady })
}

// printStatus writes the table of mounts, and under it each error and hint.
func printStatus(a *app, st agent.Status, asJSON bool) error {
	if asJSON {
		return printJSON(a.out, st)
	}
	rows := [][]string{{"PATH", "STATE", "SIZE", "ENTRIES", "SINCE", "SOURCE"}}
	for _, it := range st.Items {
		state := string(it.State)
		if it.Percent > 0 && it.Percent < 100 {
			state = fmt.Sprintf("%s %.0f%%", state, it.Percent)
		}
		if it.Lazy != nil {
			state += ", lazy"
			if it.State == agent.StateReady && it.Phase != "" {
				state += " (" + it.Phase + ")"
			}
		}
		if it.Bound {
			state += ", bind mount"
		}
		entries := "-"
		if it.Entries > 0 {
			entries = fmt.Sprint(it.Entries)
		}
		rows = append(rows, []string{it.Path, state, size(it.Bytes), entries, age(it.Since), source(it)})
	}
	if len(st.Items) > 0 {
		if err := errors.Join(table(a.out, rows), printLazy(a, st.Items)); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.err, "no mounts")
	}
	if st.SpecError != nil {
		fmt.Fprintf(a.err, "\nspec not applied: %v\n", st.SpecError)
	}
	for _, it := range st.Items {
		if it.Note != "" {
			fmt.Fprintf(a.err, "\n%s: %s\n", printable(it.Path), printable(it.Note))
			if it.Error == "" && it.Hint != "" {
				fmt.Fprintf(a.err, "  hint: %s\n", it.Hint)
			}
		}
		printTrouble(a, it)
		if it.Error == "" {
			continue
		}
		fmt.Fprintf(a.err, "\n%s: %s\n", printable(it.Path), printable(it.Error))
		if it.Hint != "" {
			fmt.Fprintf(a.err, "  hint: %s\n", it.Hint)
		}
		if it.NextTry != nil {
			fmt.Fprintf(a.err, "  next try in %s\n", took(time.Until(*it.NextTry)))
		}
	}
	printKept(a, st.Kept)
	return nil
}

// source says where a mount's bytes come from, in one word.
func source(it agent.ItemStatus) string {
	if it.ObjectID != "" {
		return it.ObjectID
	}
	return it.Source
}
