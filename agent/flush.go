package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"objectmount/extract"
)

// Flushing takes longer than all else on a slow disk, and nobody needs to wait
// for it: what is read comes from memory meanwhile. So where a mount replaces
// nothing it is ready as soon as it is renamed into its place, and the flush
// follows in the background:
//
//	intent    on disk before any content: path, inode, and the run of the kernel
//	rename    the mount is ready
//	fresh     what was published; not synced, so it costs nothing
//	flush     syncfs, fsync of the parent
//	durable   on disk: from now on a reboot finds the mount
//
// Whoever finds an intent without a durable record asks which run of the
// kernel wrote it. If it is this one, only processes can have died, and what
// they wrote is all there: it is believed, and flushed. If it is another one,
// the power may have failed, and what is at the path may be a tree of empty
// files: it is distrusted, taken away and made again before anything is told
// to be ready. A clean shutdown waits for the flush.
//
// What users do to a tree is theirs from the moment it is ready, but like all
// that is written it outlives a power cut only when it was synced. A tree that
// is distrusted and was edited is therefore not deleted: it is moved aside, to
// <path>.distrusted-<time>, and stays there until its owner looks at it. The
// edits are told by change times later than the publishing, as always.
//
// A flush that fails (EIO, ENOSPC) cannot be tried again, since the kernel
// drops what it could not write: the tree is distrusted likewise, the mount
// fails, and is made anew.
//
// What replaces something is flushed before the rename: the old must not be
// deleted before the new is safe.

// fresh is what was published and not flushed yet.
type fresh struct {
	BootID    string     `json:"boot_id"`
	StageID   string     `json:"stage_id"`
	Published *published `json:"published"`
}

// freshFile is the second file of a receipt.
func freshFile(name string) string { return strings.TrimSuffix(name, ".json") + ".fresh" }

// readFresh reads the second file of the receipt name, nil if there is none or
// it is of something else: it is never synced, so anything may be in it.
func readFresh(name, stageID string) *fresh {
	b, err := readBounded(freshFile(name))
	f := new(fresh)
	if err != nil || json.Unmarshal(b, f) != nil || f.StageID != stageID || f.Published == nil {
		return nil
	}
	return f
}

// saveFresh writes what was published and is not flushed yet.
func (l *lock) saveFresh(rc *receipt) error {
	b, err := json.Marshal(fresh{bootID(), rc.unflushed.StageID, rc.Published})
	tmp := filepath.Join(l.rs.dir, "."+receiptID(l.path)+".json.fresh") // a name that tidy knows
	if err == nil {
		err = os.WriteFile(tmp, b, 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, freshFile(l.rs.file(l.path)))
	}
	if err != nil {
		return fmt.Errorf("write what was published at %s: %w", l.path, err)
	}
	return nil
}

// lockPatience is how long a flush waits for the lock of its path. Who has it
// so long is replacing what was flushed.
const lockPatience = 30 * time.Second

// flush brings what was published at path to the disk, if it is not there yet,
// and writes that down.
func (a *Agent) flush(ctx context.Context, path string) error {
	rc, err := a.receipts.load(path)
	if err != nil || rc == nil || rc.unflushed == nil {
		return err
	}
	// Without the lock: the flush of a large tree takes minutes, and who wants
	// to make a mount inside of it, or to take it down, need not wait.
	ferr := extract.Flush(rc.Published.at(), rc.Published.Fingerprint)
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	l, err := a.receipts.lock(ctx, path, nil)
	if err != nil {
		return err
	}
	defer l.unlock()
	now, err := l.load()
	if err != nil || now == nil || now.unflushed == nil || now.unflushed.StageID != rc.unflushed.StageID {
		return err // it was replaced, taken down, or flushed by another
	}
	switch {
	case ferr == nil, errors.Is(ferr, fs.ErrNotExist), errors.Is(ferr, extract.ErrConflict):
		// What its owner took away, or put something else in the place of,
		// cannot be lost.
		now.unflushed = nil
		return l.save(now)
	case errors.Is(ferr, unix.EIO), errors.Is(ferr, unix.ENOSPC), errors.Is(ferr, unix.EDQUOT):
		st := now.unflushed
		st.Next, st.BootID = now.Published, ""
		now.Published, now.Staging, now.unflushed = nil, st, nil
		return errors.Join(fmt.Errorf("the disk does not hold what was written: %w", ferr), a.recover(l, now))
	}
	return ferr
}

// flushNow is flush for whoever holds the lock, and is about to replace what
// is there.
func (a *Agent) flushNow(l *lock, rc *receipt) error {
	if rc.unflushed == nil {
		return nil
	}
	if err := extract.Flush(rc.Published.at(), rc.Published.Fingerprint); err != nil {
		return err
	}
	rc.unflushed = nil
	return l.save(rc)
}

// unflushed lists the paths of all mounts that are not known to be on disk.
func (a *Agent) unflushed() (paths []string) {
	for _, rc := range a.have() {
		if rc.unflushed != nil {
			paths = append(paths, rc.Path)
		}
	}
	return paths
}

// Flush waits until every mount of the state directory is on disk, whoever
// made it: until then a power cut means that those which are not are made
// again (see ItemStatus.Unflushed). Run and Once do it by themselves; after a
// Mount it is for the caller to do, now or in another process.
func (a *Agent) Flush(ctx context.Context) error {
	var errs []error
	for _, path := range a.unflushed() {
		if err := a.flush(ctx, path); err != nil {
			errs = append(errs, fmt.Errorf("flush %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// mayBeWrong says whether what came out of a staging may have been destroyed
// by a power cut.
func (st *staging) mayBeWrong() bool {
	return st.Later && (st.BootID == "" || st.BootID != bootID())
}

// distrust takes away what came out of a staging and cannot be believed.
func (a *Agent) distrust(rc *receipt, st *staging, i inode) error {
	p := *st.Next
	p.place(i, p.RealPath)
	p.Fingerprint.ChangeTimeNS = i.published()
	if f := readFresh(a.receipts.file(rc.Path), st.StageID); f != nil {
		p.Fingerprint.ChangeTimeNS = f.Published.Fingerprint.ChangeTimeNS
	}
	root, err := os.Lstat(p.RealPath)
	if err != nil {
		return err
	}
	log := []zap.Field{zap.String("path", rc.Path), zap.String("object_id", st.ObjectID)}
	edited, err := p.edited(rc.Inside, a.unedited)
	if edited || err != nil {
		aside, err := extract.SetAside(p.RealPath, p.Fingerprint, ".distrusted-"+time.Now().UTC().Format("20060102T150405Z"))
		if err != nil {
			return err
		}
		a.log.Error("the power failed before the files were on disk, and some were edited since: all are moved aside and made again",
			append(log, zap.String("aside", aside))...)
	} else if err := extract.Remove(p.RealPath, p.Fingerprint); err != nil {
		return err
	} else {
		a.log.Warn("the power failed before the files were on disk: they are made again", log...)
	}
	if p.Filled {
		return makeLike(p.RealPath, root)
	}
	return nil
}

// makeLike makes an empty directory with the mode and owner of another.
func makeLike(path string, like fs.FileInfo) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	st := like.Sys().(*syscall.Stat_t)
	return errors.Join(os.Lchown(path, int(st.Uid), int(st.Gid)), os.Chmod(path, like.Mode()))
}
