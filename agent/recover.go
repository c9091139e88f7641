package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"objectmount/extract"
)

// tidy clears away what dead processes left, also at paths that nobody asks
// for any more. What a living one is at work on it leaves alone.
func (a *Agent) tidy() {
	a.receipts.tidy()
	a.sweepLayers()
	// Inner mounts first: one that goes is no edit of the one around it.
	for _, rc := range slices.Backward(a.have()) {
		if rc.Staging == nil {
			continue
		}
		if l, ok := a.receipts.lockNow(rc.Path); ok {
			a.tidyPath(l)
			l.unlock()
		}
	}
}

func (a *Agent) tidyPath(l *lock) {
	rc, err := l.load()
	if err == nil && rc != nil {
		err = a.recover(l, rc)
	}
	if err != nil {
		a.log.Warn("not cleared away", zap.String("path", l.path), zap.String("error", errorText(err)))
	}
}

// recover brings a receipt back to rest after its process died: what was
// published is taken as published, or taken away if a power cut may have
// destroyed it; what was not is swept. With nothing left to know, the receipt
// goes. The lock is held, so the process is dead indeed.
//
//	staging says        at the path        this run of the kernel   another one
//	no intent           -                  sweep                    sweep
//	intent              another inode      sweep                    sweep
//	intent, flushed     the inode          published                published
//	intent, later       the inode          published, to be flushed distrust, sweep
func (a *Agent) recover(l *lock, rc *receipt) error {
	st := rc.Staging
	if st == nil {
		return nil
	}
	i, real, out := st.cameOut(rc.Path)
	switch {
	case out && st.mayBeWrong():
		st.Next.RealPath = real
		if err := a.distrust(rc, st, i); err != nil {
			return fmt.Errorf("take away what a power cut may have destroyed: %w", err)
		}
	case out:
		old := rc.Published
		st.Next.place(i, real)
		st.Next.Fingerprint.ChangeTimeNS = i.published()
		if tree := extract.BoundTree(st.Root); real == rc.Path && extract.IsBound(real, st.Next.Fingerprint) && tree != "" {
			st.Next.Tree = tree
		}
		rc.Published = st.Next
		rc.Origin, rc.Spec = st.Origin, st.Spec
		if err := a.settle(rc, old, st.StageID); err != nil {
			return err
		}
		if st.Later {
			rc.unflushed = st
		}
		a.log.Info("took over what a process published right before it died", zap.String("path", rc.Path))
	}
	if err := extract.Sweep(rc.Path, st.StageID); err != nil {
		return fmt.Errorf("clear away what a dead process left: %w", err)
	}
	rc.Staging = nil
	if rc.Published == nil {
		rc.Inside = slices.DeleteFunc(rc.Inside, func(in string) bool {
			rc, err := a.receipts.load(in)
			return rc == nil && err == nil
		})
	}
	if rc.Published == nil && len(rc.Inside) == 0 {
		return l.remove()
	}
	return l.save(rc)
}

// cameOut says whether what was staged has been published, and where it is. It
// is known by its inode, which is written down before it has any content.
func (st *staging) cameOut(path string) (i inode, real string, ok bool) {
	if st.Next == nil || st.Next.Fingerprint.Ino == 0 {
		return i, "", false
	}
	for _, real := range []string{st.Next.RealPath, path} {
		i, err := lookAt(real)
		if err == nil && i.ino == st.Next.Fingerprint.Ino && i.birth == st.Next.BirthNS {
			return i, real, true
		}
	}
	return i, "", false
}

// place says what is, or will be, at a path.
func (p *published) place(i inode, real string) {
	p.RealPath, p.BirthNS = real, i.birth
	p.Kind = extract.KindFile
	if i.dir {
		p.Kind = extract.KindTree
	}
	p.Fingerprint = extract.Fingerprint{Dev: i.dev, Ino: i.ino, ChangeTimeNS: i.changed}
	p.BootID, p.Time = bootID(), time.Now().UTC()
}

// settle deals with what publishing leaves to be done: a tree that was bound
// to the path before is deleted; and when the object was a tree and the new
// one is a file, which therefore went into the tree, it takes the tree's place
// in one step.
func (a *Agent) settle(rc *receipt, old *published, stageID string) error {
	p := rc.Published
	if old != nil && old.Tree != "" && old.Tree != p.Tree {
		if err := extract.RemoveBound(old.Tree); err != nil {
			return err
		}
	}
	if old == nil || old.RealPath != rc.Path || old.Kind != extract.KindTree || !inside(p.RealPath, rc.Path) {
		return nil
	}
	// By way of the stage, so that a crash at any point leaves either what is
	// known by its inode or what is swept.
	stage := filepath.Join(filepath.Dir(rc.Path), "."+filepath.Base(rc.Path)+".stage-"+stageID)
	if err := os.Mkdir(stage, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	aside := filepath.Join(stage, "new")
	if err := os.Rename(p.RealPath, aside); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, aside, unix.AT_FDCWD, rc.Path, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("put the file in the place of %s: %w", rc.Path, err)
	}
	p.RealPath = rc.Path
	i, err := lookAt(rc.Path)
	if err != nil {
		return err
	}
	p.Fingerprint.ChangeTimeNS = i.changed
	if err := extract.Sweep(rc.Path, stageID); err != nil { // the old tree
		return err
	}
	return syncDir(filepath.Dir(rc.Path))
}
