package extract

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// publishing is the last step: what is complete in a stage takes its place.
//
//	sync the stage → wait for a tick → rename → fsync the parent → fingerprint
//
// A rename that is on disk before the files are would, after a power cut,
// show a tree of empty files; so the sync comes first. Or, with
// Options.FlushLater, it comes after, and it is the caller who knows not to
// trust what he finds after a power cut: see the package comment.
type publishing struct {
	stage *stage
	place *place
	root  int // descriptor of what is published
	act   action
	small bool         // few entries: fsync each instead of the whole file system
	later bool         // no sync here
	over  *Fingerprint // what is bound at the place, and may go
	tree  string       // where the files lie, if they were bound
}

// run returns the fingerprint, and whether the place was taken: after that
// nothing may be undone.
func (p *publishing) run() (fp Fingerprint, taken bool, err error) {
	before, err := p.settle()
	if err != nil {
		return fp, false, err
	}
	if p.act == actMerge {
		return p.merge()
	}
	if p.act != actBind {
		err = p.rename()
		if cannotSwap(err) && p.act == actSwap {
			p.act = actBind
		} else if err != nil {
			return fp, false, err
		}
	}
	if p.act == actBind {
		return p.bind()
	}
	after, err := fstat(p.root)
	if err != nil {
		return fp, true, err
	}
	if nanoseconds(after.Ctim) <= nanoseconds(before.Ctim) {
		// A file system that does not count a rename as a change.
		if err := chmod(p.root, after.Mode&0o7777); err != nil {
			return fp, true, err
		}
		if after, err = fstat(p.root); err != nil {
			return fp, true, err
		}
	}
	there, err := lstatat(p.place.parent, p.place.base)
	if err != nil || there.Ino != after.Ino || there.Dev != after.Dev {
		return fp, true, fmt.Errorf("%w: %s was exchanged right after it was published", ErrConflict, quote(p.place.path))
	}
	fp = Fingerprint{Dev: after.Dev, Ino: after.Ino, ChangeTimeNS: nanoseconds(after.Ctim)}
	if after.Mtim != before.Mtim || after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid {
		// Someone was quick enough to change it already: then it is edited.
		fp.ChangeTimeNS = nanoseconds(before.Ctim)
	}
	if p.later {
		return fp, true, nil
	}
	return fp, true, p.syncParent()
}

// settle brings the stage to disk and lets the clock tick, so that whatever
// is changed from now on has a later change time than all we made. (File
// times come from a clock that moves in steps of up to 10 ms.) It returns the
// state of the root.
func (p *publishing) settle() (unix.Stat_t, error) {
	now := time.Now()
	if !p.later {
		if err := p.sync(); err != nil {
			return unix.Stat_t{}, err
		}
	}
	st, err := fstat(p.root)
	if err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	waitTick(now, st.Ctim)
	return st, nil
}

// waitTick waits until the clock that file times come from is past t, and
// shows another time than it did at t in the steps that ctime was taken in.
func waitTick(t time.Time, ctime unix.Timespec) {
	if ctime.Nsec == 0 {
		// A file system that counts in seconds, such as ext4 with small inodes.
		t = t.Truncate(time.Second).Add(time.Second - 1)
	}
	for range 1500 { // a clock that is set back is not ours to wait for
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts) != nil || nanoseconds(ts) > t.UnixNano() {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *publishing) sync() error {
	if inMemory(p.stage.fd) {
		return nil
	}
	if p.small {
		err := syncEach(p.stage.fd)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EACCES) {
			return writeError("sync", p.place.path, err)
		}
		// A file that its owner may not read: sync everything.
	}
	if err := retry(func() error { return unix.Syncfs(p.stage.fd) }); err != nil {
		return writeError("sync", p.place.path, err)
	}
	return nil
}

// syncEach makes everything in and below dir durable, one by one. It is for
// few files: syncfs would also wait for all that others have written.
func syncEach(dir int) error {
	err := eachName(dir, func(name string) error {
		st, err := lstatat(dir, name)
		if err != nil {
			return err
		}
		kind := st.Mode & unix.S_IFMT
		if kind != unix.S_IFREG && kind != unix.S_IFDIR {
			return nil // a symbolic link is in its directory
		}
		fd, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if kind == unix.S_IFDIR {
			return syncEach(fd)
		}
		return fsync(fd)
	})
	if err != nil {
		return err
	}
	return fsync(dir)
}

// cannotSwap says whether a rename failed because of where the place is: on a
// mount point, in a lower layer of an overlay, on a file system without
// exchanging.
func cannotSwap(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL)
}

// rename puts the root in its place.
func (p *publishing) rename() error {
	move := func(flags uint) error {
		err := renameat2(p.stage.fd, staged, p.place.parent, p.place.base, flags)
		if errors.Is(err, unix.EACCES) {
			// Moving a directory changes its "..", so it must be writable for
			// all but root; one that took over an existing mode may not be.
			st, serr := fstat(p.root)
			if serr == nil && chmod(p.root, 0o700) == nil {
				err = renameat2(p.stage.fd, staged, p.place.parent, p.place.base, flags)
				err = errors.Join(err, chmod(p.root, st.Mode&0o7777))
			}
		}
		return err
	}
	var err error
	switch p.act {
	case actPut:
		err = move(unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) {
			err = move(0) // a file system without flags
		}
	case actOver:
		err = move(0)
	case actSwap:
		err = move(unix.RENAME_EXCHANGE)
	}
	what := quote(p.place.path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR):
		return fmt.Errorf("%w: %s appeared or changed while the object was extracted: %w", ErrConflict, what, err)
	case cannotSwap(err):
		return fmt.Errorf("%w: %s is a mount point or belongs to a lower layer, and cannot be exchanged by a rename: "+
			"use another path: %w", ErrConflict, what, err)
	}
	return fmt.Errorf("rename the finished object to %s: %w", what, err)
}

// syncParent makes the rename durable. A parent that we could not open for
// reading is synced with its whole file system.
func (p *publishing) syncParent() error {
	if err := syncParent(p.place.parent, p.root); err != nil {
		return fmt.Errorf("sync the directory of %s: %w", quote(p.place.path), err)
	}
	return nil
}

func syncParent(parent, child int) error {
	err := fsync(parent)
	if errors.Is(err, unix.EBADF) {
		err = retry(func() error { return unix.Syncfs(child) })
	}
	return err
}
