package extract

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Extract reads one object from r and leaves it at objectPath, an absolute
// path that is cleaned lexically:
//
//   - An archive becomes a directory with the archive's members. An existing
//     empty directory is filled and keeps its mode and owner. The archive's
//     own entry for its root ("./") is not applied.
//   - Anything else becomes a file with mode 0644, decompressed if it is a
//     gzip. If objectPath ends in a slash or is a directory, the file goes
//     into it under Options.Name, less ".gz" if it was decompressed.
//   - Missing parents are made with mode 0755.
//   - Something else in the way gives ErrConflict, unless OnConflict says
//     what to do with it.
//
// A symbolic link on the way to objectPath is followed if root or this
// process made it, or if it leads to a directory of the link's owner. At
// objectPath itself none is followed.
//
// When Extract returns without error, r was read to its end, all checksums
// were right and the result is on disk (but see Options.FlushLater). When it
// returns an error, nothing at objectPath has changed (but see ConflictMerge),
// and the stage and the parents it made are gone. Errors wrap one of the
// sentinels of this package, or the error of r, or ctx.Err().
//
// Extract writes in the calling goroutine and two of its own, and reads r in
// another, all of which have ended when it returns. ctx is looked at before
// every read; r's Read should itself end when ctx does. If r has a method
// Next() ([]byte, error) that lends the next bytes until the next call, as the
// streams of package objects have, they are decoded where they are. Concurrent
// calls are fine; of two for one path, one gets ErrConflict or ErrBusy.
func Extract(ctx context.Context, r io.Reader, objectPath string, opts Options) (Result, error) {
	start := time.Now()
	res, err := extract(ctx, r, objectPath, opts)
	res.Took = time.Since(start)
	if err != nil {
		return Result{}, err // the caller knows the path, and says it
	}
	return res, nil
}

func extract(ctx context.Context, r io.Reader, objectPath string, opts Options) (res Result, err error) {
	if opts, err = opts.withDefaults(); err != nil {
		return res, err
	}
	if _, _, err := parsePath(objectPath); err != nil {
		return res, err
	}
	src := newSource(ctx, r, opts.Size)
	in, err := open(src, opts)
	if err != nil {
		return res, err
	}
	defer in.close()
	p, act, s, err := enter(objectPath, in, opts)
	if err != nil {
		return res, err
	}
	j := job{ctx: ctx, opts: opts, src: src, in: in, place: p, stage: s, act: act, root: -1}
	res, taken, err := j.run()
	if j.root >= 0 {
		unix.Close(j.root)
	}
	if rerr := s.remove(); rerr != nil && err == nil {
		res.Leftover = path.Join(path.Dir(p.path), s.name)
	} else if rerr != nil {
		err = errors.Join(err, rerr)
	}
	if err != nil && !taken {
		placing.Lock()
		p.undo()
		placing.Unlock()
	} else {
		p.close()
	}
	return res, err
}

// placing is held while parents are made or taken away again, so that of two
// extractions into one new directory neither sees it half made, or loses it
// because the other failed. It is short work.
var placing sync.Mutex

// enter finds the place of an object, with its parents made, and the stage
// beside it. That keeps the parents from being taken away by anybody else.
func enter(objectPath string, in *body, opts Options) (*place, action, *stage, error) {
	placing.Lock()
	defer placing.Unlock()
	file := !in.tree
	for try := 1; ; try++ {
		p, err := find(objectPath, file, targetName(opts.Name, in.format), opts, true)
		if err != nil {
			return nil, 0, nil, err
		}
		act, err := p.decide(file, opts.OnConflict)
		if err != nil {
			p.undo()
			return nil, 0, nil, err
		}
		s, err := newStage(p.parent, p.base, opts.StageID)
		if err == nil {
			return p, act, s, nil
		}
		p.undo()
		// Another process may have taken the parent away in this very moment.
		if !errors.Is(err, unix.ENOENT) || try == 3 {
			return nil, 0, nil, err
		}
	}
}

// targetName is the name of a file that was made of the object name.
func targetName(name, format string) string {
	if format == "gz" && len(name) > 3 && strings.EqualFold(name[len(name)-3:], ".gz") {
		return name[:len(name)-3]
	}
	return name
}

// job is one extraction after everything has been looked at and the stage is
// there.
type job struct {
	ctx    context.Context
	opts   Options
	src    *source
	in     *body
	place  *place
	stage  *stage
	act    action
	root   int // descriptor of what will be published, -1 before it is made
	budget *budget
	tree   *tree
	told   time.Time // of the last progress
}

// run fills the stage and publishes it. taken says that objectPath changed.
func (j *job) run() (res Result, taken bool, err error) {
	if j.budget, err = newBudget(j.stage.fd, j.opts.Limits); err != nil {
		return res, false, err
	}
	j.budget.holdable = j.holdable()
	res = Result{Kind: KindFile, Format: j.in.format, Path: j.place.path}
	if j.in.tree {
		res.Kind = KindTree
		err = j.makeTree()
	} else {
		err = j.makeFile()
	}
	j.in.close() // nobody reads the object from here on
	if err != nil {
		return res, false, j.in.explain(err)
	}
	if err = j.ctx.Err(); err == nil {
		err = j.budget.look(0) // the last time: until now the stage could still go
	}
	if err == nil && j.opts.MayPublish != nil {
		err = j.opts.MayPublish()
	}
	if err != nil {
		return res, false, err
	}
	res.Entries, res.Bytes, res.BytesIn, res.Skipped = j.budget.entries, j.budget.bytes, j.src.n.Load(), j.tree.skipped()
	pub := publishing{stage: j.stage, place: j.place, root: j.root, act: j.act, small: res.Entries <= 64, later: j.later(), over: j.opts.Over}
	res.Fingerprint, taken, err = pub.run()
	res.Unflushed, res.Tree = pub.later, pub.tree
	if err == nil {
		j.tell(true)
	}
	return res, taken, err
}

// makeTree makes the members of an archive in the stage.
func (j *job) makeTree() (err error) {
	if err := retry(func() error { return unix.Mkdirat(j.stage.fd, staged, 0o700) }); err != nil {
		return writeError("make directory", j.place.path, err)
	}
	if j.root, err = openat(j.stage.fd, staged, openDirFlags, 0); err != nil {
		return err
	}
	if err := j.tellStaged(); err != nil {
		return err
	}
	if err := j.newTree(); err != nil {
		return err
	}
	defer j.tree.close()
	m := newMembers(j.in.feed, j.opts.Limits)
	if err := j.tree.fill(j.ctx, m); err != nil {
		return err
	}
	if err := m.finish(); err != nil {
		return err
	}
	if err := j.tree.finish(j.ctx); err != nil {
		return err
	}
	mode, owner := uint32(0o755), j.tree.owner
	if j.act == actOver { // an existing directory: it stays what it was
		mode = j.place.st.Mode & 0o7777
		owner = &Owner{int(j.place.st.Uid), int(j.place.st.Gid)}
	}
	return j.dressRoot(mode, owner)
}

// makeFile makes a plain or decompressed file in the stage.
func (j *job) makeFile() (err error) {
	j.root, err = openat(j.stage.fd, staged, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return writeError("create", j.place.path, err)
	}
	if err := j.tellStaged(); err != nil {
		return err
	}
	if err := j.newTree(); err != nil {
		return err
	}
	defer j.tree.close()
	if err := j.budget.entry(); err != nil {
		return err
	}
	if j.in.format == "other" && j.opts.Size > 0 {
		if err := j.budget.look(j.opts.Size); err != nil {
			return err
		}
		if err := j.budget.reserveBlocks(j.root, j.opts.Size); err != nil {
			return writeError("allocate", j.place.path, err)
		}
	}
	var off int64
	for {
		p, err := j.in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := j.budget.grow(int64(len(p))); err != nil {
			return err
		}
		if err := pwrite(j.root, p, off); err != nil {
			return writeError("write", j.place.path, err)
		}
		if err := j.budget.wrote(len(p)); err != nil {
			return err
		}
		off += int64(len(p))
		j.tell(false)
	}
	return j.dressRoot(0o644, j.tree.owner)
}

// newTree makes the tree, or the part of one that a file needs. Its owner is
// nil when what we make belongs to the right one anyway, and when we are not
// root and nobody asked for an owner.
func (j *job) newTree() error {
	st, err := fstat(j.root)
	if err != nil {
		return err
	}
	owner := j.opts.Owner
	if owner == nil && geteuid() == 0 {
		owner = &j.place.owner
	}
	if owner != nil && *owner == (Owner{int(st.Uid), int(st.Gid)}) {
		owner = nil
	}
	dir := j.root
	if !j.in.tree {
		dir = j.stage.fd
	}
	j.tree, err = newTree(dir, j.stage.fd, j.budget, owner, j.opts)
	if err == nil {
		j.tree.progress = func() { j.tell(false) }
	}
	return err
}

// dressRoot gives the root its mode, owner and a time of modification that is
// earlier than its publishing, which Edited relies on.
func (j *job) dressRoot(mode uint32, owner *Owner) error {
	err := j.tree.dress(j.root, mode, owner)
	if err == nil {
		now := time.Now()
		err = setTimes(j.root, unix.Timespec{Sec: now.Unix(), Nsec: int64(now.Nanosecond())})
	}
	if err != nil {
		return writeError("set mode, owner and time of", j.place.path, err)
	}
	return nil
}

// tell reports progress, not too often.
func (j *job) tell(last bool) {
	if j.opts.Progress == nil {
		return
	}
	if now := time.Now(); last || now.Sub(j.told) >= 100*time.Millisecond {
		j.told = now
		j.opts.Progress(Progress{BytesIn: j.src.n.Load(), Bytes: j.budget.bytes, Entries: j.budget.entries})
	}
}

// CheckPath makes the cheap checks of Extract before anything is downloaded:
// that objectPath makes sense, that the way to it leads through directories,
// and that what is there is no conflict as far as name and content type tell
// whether the object is an archive. It changes nothing, and nil is no promise.
func CheckPath(objectPath string, opts Options) error {
	opts, err := opts.withDefaults()
	if err == nil {
		err = checkPath(objectPath, opts)
	}
	return err
}

func checkPath(objectPath string, opts Options) error {
	tar, _ := declared(opts.Name, opts.ContentType)
	clean, inside, err := parsePath(objectPath)
	if err != nil {
		return err
	}
	if inside && !tar { // a file that goes into the directory, which may be a link to one
		parent, err := (&walker{within: opts.Within}).open(clean)
		unix.Close(parent)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}
	p, err := find(objectPath, false, "", opts, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.close()
	switch {
	case tar:
		_, err = p.decide(false, opts.OnConflict)
	case p.there == aFile:
		_, err = p.decide(true, opts.OnConflict)
	}
	// Else it may be a file that goes into the directory, or an archive that
	// does not say so: the bytes will tell.
	return err
}
