package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"objectmount/extract"
	"objectmount/mount"
)

// lazyState is how the lazy mount at a path answers; "" means that none is
// there.
func lazyState(ctx context.Context, path string) (mount.State, error) {
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return mount.StateAt(ctx, filepath.Join(real, filepath.Base(path)))
}

// detach takes down the lazy mount of a receipt, whichever process serves it,
// and its mount point. Changes stay. With lazily it disappears at once, though
// some still use it.
func (a *Agent) detach(ctx context.Context, rc *receipt, lazily bool) error {
	p := rc.Published
	if s := a.server(rc.Path); s != nil {
		if err := s.unmount(lazily); err != nil {
			return err
		}
		return a.forgetPoint(p)
	}
	state, err := lazyState(ctx, p.RealPath)
	switch {
	case err != nil:
		return err
	case state == mount.Dead:
		_, err = mount.Clean(ctx, p.RealPath)
	case state != "":
		err = mount.Unmount(p.RealPath, lazily || state == mount.Hung)
	}
	if err != nil {
		return err
	}
	if !lazily {
		waitUnused(ctx, a.layerPath(p))
	}
	return a.forgetPoint(p)
}

// unusedWithin is how long the server of a mount that was just unmounted has
// to give up its layer.
const unusedWithin = 5 * time.Second

// waitUnused waits until no server holds a layer: the next mount would find it
// in use, and be read-only.
func waitUnused(ctx context.Context, layer string) {
	f, err := os.Open(layer)
	if err != nil {
		return // there is none
	}
	defer f.Close()
	for deadline := time.Now().Add(unusedWithin); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			return // closing gives it back
		}
	}
}

// forgetPoint takes the mount point away if it was made for the mount.
func (a *Agent) forgetPoint(p *published) error {
	if !p.Lazy.Made {
		return nil
	}
	return extract.RemovePoint(p.RealPath)
}

// layerEdited says whether a layer has changes in it.
func layerEdited(layer string) (bool, error) {
	empty, err := isEmpty(filepath.Join(layer, "upper"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return !empty && err == nil, err
}

// takeDownLazy is the take-down of a lazy mount. Changes to it are not in the
// way: they stay where they are, for when the same object is mounted at the
// same path again, unless they are to be deleted.
func (a *Agent) takeDownLazy(ctx context.Context, rc *receipt, how UnmountMode, lazily bool) error {
	p := rc.Published
	if err := a.detach(ctx, rc, lazily); err != nil {
		return err
	}
	a.forgetSocket(rc.Path)
	layer := a.layerPath(p)
	edited, err := layerEdited(layer)
	if err != nil {
		return fmt.Errorf("look for changes: %w", err)
	}
	switch {
	case edited && how != UnmountDelete:
		a.log.Info("changes are kept, and come back with the mount", zap.String("path", rc.Path), zap.String("changes", layer))
	case lazily: // it may still be in use
	default:
		if err := os.RemoveAll(layer); err != nil {
			return fmt.Errorf("remove the layer of changes: %w", err)
		}
	}
	return nil
}
