package mount

import (
	"context"
	"os"
	"sync"
	"testing"

	"objectmount/index"
)

// growTree is a memTree whose rows are seen one after the other.
type growTree struct {
	*memTree
	mu   sync.Mutex
	seen int           // rows that have been seen
	tick chan struct{} // closed when something has changed
	out  int64
	err  error // of the pass
	over bool
}

func grow(t *memTree) *growTree { return &growTree{memTree: t, seen: 1, tick: make(chan struct{})} }

// change does something to the tree and wakes all who wait.
func (g *growTree) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.tick)
	g.tick = make(chan struct{})
}

// wait waits until ok, asked with the lock held.
func (g *growTree) wait(ctx context.Context, ok func() bool) error {
	for {
		g.mu.Lock()
		done, err, tick := ok(), g.err, g.tick
		g.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-tick:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *growTree) Complete() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.over
}

func (g *growTree) Progress() (in, out int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.out, g.out
}

func (g *growTree) Lookup(ctx context.Context, dir uint32, name string) (uint32, error) {
	row, err := g.memTree.Lookup(ctx, dir, name)
	werr := g.wait(ctx, func() bool { return g.over || err == nil && int(row) < g.seen })
	if werr != nil {
		return 0, werr
	}
	return row, err
}

func (g *growTree) Children(ctx context.Context, dir uint32, from int, yield func(int, index.Child) bool) error {
	if err := g.wait(ctx, func() bool { return g.over }); err != nil {
		return err
	}
	return g.memTree.Children(ctx, dir, from, yield)
}

func showGrowing(t *testing.T, g *growTree, opt Options) (string, *FS) {
	t.Helper()
	dir := t.TempDir() + "/mnt"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fs, err := Mount(t.Context(), dir, g, g.memTree, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fs.Unmount(true)
		fs.Wait()
		detachAll(dir)
	})
	return dir, fs
}
