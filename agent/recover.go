package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"objectmount/extract"
)

// tidy clears away what dead processes left, also at paths that nobody asks
// for any more. What a living one is at work on it leaves alone.
func (a *Agent) tidy() {
	a.receipts.tidy()
	for _, rc := range a.have() {
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
// published is taken as published, what was not is swept. With nothing left
// to know, the receipt goes. The lock is held, so the process is dead indeed.
func (a *Agent) recover(l *lock, rc *receipt) error {
	st := rc.Staging
	if st == nil {
		return nil
	}
	if i, real, ok := st.cameOut(rc.Path, rc.Published); ok {
		old := rc.Published
		st.Next.place(i, real)
		rc.Published = st.Next
		rc.Origin, rc.Spec = st.Origin, st.Spec
		if err := a.settle(rc, old, st.StageID); err != nil {
			return err
		}
		a.log.Info("took over what a process published right before it died", zap.String("path", rc.Path))
	}
	if err := extract.Sweep(rc.Path, st.StageID); err != nil {
		return fmt.Errorf("clear away what a dead process left: %w", err)
	}
	rc.Staging = nil
	if rc.Published == nil && len(rc.Inside) == 0 {
		return l.remove()
	}
	return l.save(rc)
}

// cameOut says whether what was staged has been published, and where it is.
// old is what was published before, if anything.
//
// The rename takes it out of the stage, so: what is in the stage is not it
// (there is nothing, or the old one, exchanged), and what is at the path is
// it. Where its inode was noted, that is known; where not, it is what was born
// after the staging began.
func (st *staging) cameOut(path string, old *published) (i inode, real string, ok bool) {
	if st.Next == nil {
		return i, "", false // the stream had not ended
	}
	isIt := func(i inode) bool {
		if old != nil && i.ino == old.Fingerprint.Ino {
			return false
		}
		if known := st.Next.Fingerprint.Ino; known != 0 {
			return i.ino == known && i.birth == st.Next.BirthNS
		}
		return i.birth != 0 && i.birth >= st.BeganNS
	}
	if s, ok := findStaged(path, st.StageID, st.Name); ok && isIt(s.inode) {
		return i, "", false
	}
	places := []string{st.Next.RealPath, path}
	if st.Next.RealPath == "" {
		// The file in the directory first: the directory may have been made
		// for it, and be as new.
		places = nil
		for _, name := range fileNames(st.Name) {
			places = append(places, filepath.Join(path, name))
		}
		places = append(places, path)
	}
	for _, real := range places {
		if i, err := lookAt(real); err == nil && isIt(i) {
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

// staged is what is in a stage.
type staged struct {
	inode
	stage string // the staging directory
	real  string // where publishing will put it
}

// findStaged finds what is in a stage. name is that of the object, which names
// a file in a directory.
func findStaged(path, stageID, name string) (s staged, ok bool) {
	suffix := ".stage-" + stageID
	// A file that goes into a directory has its stage there.
	for _, dir := range []string{filepath.Dir(path), path} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // not there, or a file
		}
		for _, e := range entries {
			base, ok := strings.CutSuffix(e.Name(), suffix)
			if !ok || !strings.HasPrefix(base, ".") {
				continue
			}
			s = staged{stage: filepath.Join(dir, e.Name()), real: path}
			if dir == path {
				for _, name := range fileNames(name) {
					if s.real == path || name == base[1:] {
						s.real = filepath.Join(path, name)
					}
				}
			}
			s.inode, err = lookAt(filepath.Join(s.stage, "new"))
			return s, err == nil
		}
	}
	return s, false
}

// fileNames lists the names that an object's file may have in a directory.
func fileNames(object string) []string {
	switch short := strings.TrimSuffix(object, ".gz"); {
	case object == "" || strings.Contains(object, "/"):
		return nil // it goes into no directory
	case short == object || short == "":
		return []string{object}
	default:
		return []string{object, short}
	}
}

// settle deals with the one case in which publishing is not all: the object
// was a tree and the new one is a file, which therefore went into the tree.
// It takes the tree's place in one step.
func (a *Agent) settle(rc *receipt, old *published, stageID string) error {
	p := rc.Published
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
