package extract

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSharedParents: mounts that need the same missing parents at the same time
// find them or make them, and all belong to the owner of what was there.
func TestSharedParents(t *testing.T) {
	needRoot(t)
	const mounts = 8
	for round := range 40 {
		dir := t.TempDir()
		must(t, os.Chown(dir, 1234, 4321))
		var wg sync.WaitGroup
		start := make(chan bool)
		errs := make([]error, mounts)
		for i := range mounts {
			wg.Go(func() {
				<-start
				w := walker{create: true}
				fd, err := w.open(dir + strings.Repeat("/parent", 20))
				if err == nil {
					unix.Close(fd)
				}
				for _, m := range w.made {
					unix.Close(m.at)
				}
				errs[i] = err
			})
		}
		close(start)
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				t.Fatalf("round %d: mount %d: %v", round, i, err)
			}
		}
		must(t, filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
			if got := ownerOf(t, name); got != (Owner{1234, 4321}) || strings.Contains(name, stageInfix) {
				t.Errorf("round %d: %s of %v", round, name, got)
			}
			return err
		}))
	}
}
