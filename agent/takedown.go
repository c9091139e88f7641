package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"go.uber.org/zap"

	"objectmount/extract"
)

// UnmountMode says what Unmount does with the files.
type UnmountMode int

// The modes of Unmount.
const (
	UnmountUnmodified UnmountMode = iota // remove them if nothing was edited since publishing, else refuse
	UnmountKeep                          // leave them and forget the mount
	UnmountDelete                        // remove them with their edits
)

// UnmountLazily can be added to a mode: a lazy mount that is in use disappears
// for everybody else, and ends when its last user is gone.
const UnmountLazily UnmountMode = 1 << 8

// ErrNotMounted: the path is not a mount that this state directory knows.
var ErrNotMounted = errors.New("not a mount of this agent")

// KeptError says that files were not removed, because some of them are not
// as they were published, or are not ours alone. Unmount gives it; the daemon
// leaves such files where they are and forgets the mount.
type KeptError struct {
	Path string
	Why  string
}

// Error says which files were kept and why.
func (e *KeptError) Error() string { return fmt.Sprintf("%s is kept: %s", e.Path, e.Why) }

// Unmount takes the mount at path down, whoever made it. It waits for another
// process that works on the path, until ctx ends. A path that is no mount is
// ErrNotMounted; files that are not removed are a *KeptError.
//
// A lazy mount is unmounted, whichever process serves it; one that is in use
// stays (a *mount.BusyError) unless UnmountLazily is added. Changes to it are
// kept for the next time, but for UnmountDelete.
//
// A mount that is still in the spec comes back when the daemon reads the spec
// again: take it out of the spec first.
func (a *Agent) Unmount(ctx context.Context, path string, how UnmountMode) error {
	path = filepath.Clean(path)
	if err := a.takeDown(ctx, path, how, func() {}); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}

// takeDown removes what the receipt of a clean path says, and the receipt.
func (a *Agent) takeDown(ctx context.Context, path string, how UnmountMode, waiting func()) error {
	l, err := a.receipts.lock(ctx, path, waiting)
	if err != nil {
		return err
	}
	defer l.unlock()
	rc, err := l.load()
	if err != nil {
		return err
	}
	if rc == nil {
		return ErrNotMounted
	}
	if err := a.recover(l, rc); err != nil {
		return err
	}
	lazily := how&UnmountLazily != 0
	how &^= UnmountLazily
	switch p := rc.Published; {
	case p == nil:
	case p.Lazy != nil:
		if err := a.takeDownLazy(ctx, rc, how, lazily); err != nil {
			return err
		}
	case how != UnmountKeep:
		if err := a.removeTree(rc, how == UnmountDelete); err != nil {
			return err
		}
	case p.Tree != "":
		if err := a.release(p); err != nil {
			return err
		}
	}
	return l.remove()
}

// release moves a bound tree to where it is found without its mount.
func (a *Agent) release(p *published) error {
	there, err := p.isThereAgain()
	if err != nil || !there {
		return err
	}
	kept, err := extract.ReleaseBound(p.RealPath, p.Tree, p.Fingerprint)
	if err == nil {
		a.log.Warn("files are kept beside the path that they were bound to", zap.String("path", p.RealPath), zap.String("kept", kept))
	}
	return err
}

// removeTree removes what is published, if it is still there. What is at its
// place instead belongs to somebody else.
func (a *Agent) removeTree(rc *receipt, edits bool) error {
	p := rc.Published
	if p.Lazy != nil {
		return a.detach(context.Background(), rc, false)
	}
	there, err := p.isThereAgain()
	if err != nil || !there {
		return err
	}
	for _, in := range rc.Inside {
		if inside(in, p.RealPath) && a.isMounted(in) {
			return &KeptError{p.RealPath, fmt.Sprintf("the mount %s lies inside of it", in)}
		}
	}
	if p.Fingerprint.Merged {
		return &KeptError{p.RealPath, "it was merged with files that were there before, and cannot be told from them"}
	}
	if !edits {
		edited, err := p.edited(rc.Inside, a.isMounted)
		if err != nil {
			return err
		}
		if edited {
			return &KeptError{p.RealPath, "files in it were edited since it was mounted"}
		}
	}
	if p.Tree != "" {
		if err := extract.Unbind(p.RealPath, p.Fingerprint); err != nil {
			return err
		}
		if err := extract.RemoveBound(p.Tree); err != nil {
			return err
		}
	} else if err := extract.Remove(p.RealPath, p.Fingerprint); err != nil {
		return err
	}
	a.log.Debug("files removed", zap.String("path", p.RealPath))
	return nil
}

// isMounted says whether a path is a mount with files of ours.
func (a *Agent) isMounted(path string) bool {
	rc, err := a.receipts.load(path)
	if err != nil {
		return true // what cannot be understood is better left alone
	}
	if rc == nil || rc.Published == nil {
		return false
	}
	there, err := rc.Published.isThere()
	return there || err != nil
}
