package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.uber.org/zap"

	"objectmount/agent"
)

// What status says of lazy mounts beyond the table of all.

// printLazy writes a table of the lazy mounts whose servers have answered.
func printLazy(a *app, items []agent.ItemStatus) error {
	rows := [][]string{{"LAZY MOUNT", "PIECES", "FETCHED", "HIT RATE", "PENDING", "FAILED", "PREFETCH", "PREFETCHED"}}
	for _, it := range items {
		l := it.Lazy
		if l == nil || !l.Served {
			continue
		}
		pieces := fmt.Sprintf("%d of %d", l.Present, l.Spans)
		if !l.Complete {
			pieces += " so far"
		}
		rate, policy, ahead := "-", "-", "-"
		if l.Hits+l.Misses > 0 {
			rate = fmt.Sprintf("%.0f%%", 100*l.HitRate)
		}
		if p := l.Prefetch; p != nil {
			policy, ahead = string(p.Policy)+", "+p.State, fmt.Sprintf("%d (%s)", p.Spans, size(p.Bytes))
			if p.State == string(agent.PrefetchNone) || p.Policy == agent.PrefetchNone {
				policy = string(p.Policy)
			}
		}
		rows = append(rows, []string{it.Path, pieces, size(l.Fetched), rate, fmt.Sprint(l.Pending), fmt.Sprint(l.Failed), policy, ahead})
	}
	if len(rows) == 1 {
		return nil
	}
	fmt.Fprintln(a.out)
	return table(a.out, rows)
}

// printKept tells of changes that nobody sees, and how to see them again.
func printKept(a *app, kept []agent.KeptLayer) {
	for _, k := range kept {
		of := k.Object
		if of == "" {
			of = "the same object"
		}
		fmt.Fprintf(a.err, "\n%s: changes to a lazy mount are kept in %s, last used %s ago\n  hint: mount %s there to see them, or remove that directory with them\n",
			printable(k.Path), printable(k.Changes), age(k.Used), printable(of))
	}
}

// printTrouble tells of requests that failed, and of what failed in the
// background.
func printTrouble(a *app, it agent.ItemStatus) {
	l := it.Lazy
	if l == nil {
		return
	}
	if l.Failed > 0 && l.LastError != "" && l.Gone == "" {
		when := ""
		if l.LastAt != nil {
			when = ", " + age(*l.LastAt) + " ago"
		}
		fmt.Fprintf(a.err, "\n%s: %d reads failed, the last one%s: %s\n", printable(it.Path), l.Failed, when, printable(l.LastError))
	}
	if p := l.Prefetch; p != nil && p.Error != "" && l.Gone == "" && !strings.Contains(it.Error, p.Error) {
		fmt.Fprintf(a.err, "\n%s: %d tries to prefetch failed, the last one: %s\n", printable(it.Path), p.Failed, printable(p.Error))
	}
}

// withoutAgent is the status where no agent answers: mounts made by hand need
// none, and their receipts and servers tell of them. The error is the one
// given, unless only such mounts are asked for by name.
func (a *app) withoutAgent(err error, paths []string) (agent.Status, error) {
	cfg, cerr := a.agentConfig(zap.NewNop())
	if !errors.Is(err, agent.ErrNotRunning) || cerr != nil {
		return agent.Status{}, err
	}
	ag, nerr := agent.New(cfg)
	if nerr != nil {
		return agent.Status{}, err
	}
	st := ag.Status()
	st.PID, st.Ready = 0, true // nobody has a spec to be ready with
	if len(paths) > 0 {
		st.Items = slices.DeleteFunc(st.Items, func(it agent.ItemStatus) bool { return !slices.Contains(paths, it.Path) })
	}
	for _, path := range paths {
		if !slices.ContainsFunc(st.Items, func(it agent.ItemStatus) bool { return it.Path == path && it.Origin == agent.OriginManual }) {
			return st, err
		}
	}
	if len(paths) == 0 {
		return st, err
	}
	return st, nil
}

// keptCheck is doctor's look at changes that nobody sees. They take room, and
// are nothing wrong.
func (d *doctor) keptCheck() check {
	const name = "kept changes"
	cfg, err := d.a.agentConfig(zap.NewNop())
	if err != nil {
		return trouble(name, verdictWarning, err, "")
	}
	ag, err := agent.New(cfg)
	if err != nil {
		return trouble(name, verdictWarning, err, "")
	}
	kept := ag.KeptLayers()
	if len(kept) == 0 {
		return ok(name, "none: every layer of changes belongs to a mount")
	}
	c := ok(name, "%d lazy mounts are gone and have left changes in %s", len(kept), filepath.Dir(kept[0].Changes))
	c.Fix = "Mount the same object at the same path to see them, or remove their directories: objectmount status lists both."
	return c
}
