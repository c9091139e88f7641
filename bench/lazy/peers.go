package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"time"
)

const ours = "objectmount"

// patience is how long a peer may take to read a whole tree.
const patience = 20 * time.Second

// peers compares lazy mounts of the Go tree from a local file, without an
// index: ours, and those of others that are installed.
func (b *bench) peers() error {
	c, err := b.goTree()
	if err != nil {
		return err
	}
	late := c.files[len(c.files)*95/100]
	type peer struct {
		name  string
		mount func(p *place) error
		down  func(p *place) error
	}
	fuse := func(name string, args ...string) peer {
		return peer{name, func(p *place) error {
			if err := os.Mkdir(p.mnt, 0o755); err != nil {
				return err
			}
			return run(p.dir, name, append(args, c.path, p.mnt)...)
		}, func(p *place) error {
			return sh(context.Background(), "fusermount3 -u '"+p.mnt+"' && rmdir '"+p.mnt+"'")
		}}
	}
	all := []peer{{ours, func(p *place) error { return p.mount(c.path, "--lazy") }, (*place).unmount}}
	for _, name := range []string{"archivemount", "fuse-archive", "ratarmount"} {
		if _, err := exec.LookPath(name); err != nil {
			fmt.Fprintf(os.Stderr, "%s is not installed: its rows are left out\n", name)
			continue
		}
		all = append(all, fuse(name))
	}
	steps := []struct {
		what string
		f    func(ctx context.Context, p *place) error
	}{
		{"first file", func(_ context.Context, p *place) error { return p.read(c.files[0]) }},
		{"a late file", func(_ context.Context, p *place) error { return p.read(late) }},
		{"find", func(_ context.Context, p *place) error { return run(p.mnt, "find", ".") }},
		{"ls -lR", func(_ context.Context, p *place) error { return run(p.mnt, "ls", "-lR", ".") }},
		{"all files", func(ctx context.Context, p *place) error { return readTree(ctx, p.mnt, c.files, 1) }},
	}
	times, failed := map[string][]float64{}, map[string]bool{}
	for r := range b.runs {
		for _, peer := range all {
			p, err := b.newPlace()
			if err != nil {
				return err
			}
			// The time to the first file is that of the mount command, too.
			total, err := timed(func() error { return peer.mount(p) })
			if err != nil {
				return fmt.Errorf("%s: %w", peer.name, err)
			}
			for i, s := range steps {
				b.say("%s: %s: run %d of %d", peer.name, s.what, r+1, b.runs)
				ctx, cancel := context.WithTimeout(b.ctx, patience)
				t, err := timed(func() error { return s.f(ctx, p) })
				over := ctx.Err() != nil
				cancel()
				if err != nil && !over {
					if i == 0 || peer.name == ours {
						return fmt.Errorf("%s: %s: %w", peer.name, s.what, err)
					}
					failed[peer.name+": "+s.what] = true
				}
				if i == 0 {
					t += total
				}
				name := peer.name + ": " + s.what
				times[name] = append(times[name], t)
			}
			if err := also(peer.down(p), p.gone()); err != nil {
				return err
			}
		}
	}
	for _, s := range steps {
		for _, peer := range all {
			t := median(times[peer.name+": "+s.what])
			note := "Go tree from a local file, no index"
			if t >= patience.Seconds() {
				note = "stopped by then"
			} else if failed[peer.name+": "+s.what] {
				note = "with errors"
			}
			b.add(s.what+", "+peer.name, t, "s", 0, note)
		}
	}
	return nil
}
