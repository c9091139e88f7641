package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"objectmount/extract"
	"objectmount/objects"
)

// maxRestarts is how often one try begins again; see beginAgain.
const maxRestarts = 3

// bringHow says who wants a mount, and whether it may be made now.
type bringHow struct {
	origin Origin
	outer  string // the mount around it that is not there: only what is there already will do
	serve  bool   // lazy mounts can be made: this process stays
	once   bool   // no process will ever serve it: what would be lazy is extracted
	again  bool   // a lazy mount went away: make it again, unless it was unmounted for good
}

// bringUp makes one mount be there, whatever the state of its path: it
// finishes or clears away what a dead process left, does nothing if what is
// wanted is there, replaces what is ours and unedited, and else extracts. It
// says whether it published anything.
//
// It may be called any number of times, by any process; the lock of the path
// makes them take turns.
func (a *Agent) bringUp(ctx context.Context, m *Mount, how bringHow, it *item) (made bool, err error) {
	path := m.Path()
	if err := a.apart(path); err != nil {
		return false, err
	}
	l, err := a.receipts.lock(ctx, path, func() { it.enter(StatePending, "another process works on it") })
	if err != nil {
		return false, err
	}
	defer l.unlock()
	rc, err := l.load()
	if err != nil {
		return false, err
	}
	if rc == nil && how.again {
		return false, errByHand
	}
	if rc == nil {
		rc = &receipt{Path: path, Origin: how.origin}
	}
	if err := a.recover(l, rc); err != nil {
		return false, err
	}
	b := &bringing{a: a, m: m, it: it, l: l, rc: rc, origin: how.origin, how: how}
	if b.want, err = a.wantedNow(m); err != nil {
		return false, err
	}
	if rc.Published != nil {
		b.before = *rc.Published
	}
	if rc.Published != nil && rc.Published.Lazy != nil {
		if done, made, err := b.resume(ctx); done {
			return made, err
		}
	}
	if rc.Published != nil {
		there, err := rc.Published.isThereAgain()
		if err != nil {
			return false, err
		}
		if !there {
			a.log.Info("files are gone", zap.String("path", path))
			rc.Published, rc.unflushed = nil, nil
		}
	}
	if rc.Published != nil && rc.Published.same(b.want) {
		return false, b.keep()
	}
	if err := a.flushNow(l, rc); err != nil {
		return false, err
	}
	if how.outer != "" {
		return false, fmt.Errorf("%w: %s", errOuter, how.outer)
	}
	if err := b.insideLazy(); err != nil {
		return false, err
	}
	for try := 1; ; try++ {
		made, err = b.extract(ctx)
		if !beginAgain(err, try) {
			return made, err
		}
		a.log.Warn("beginning again with the first byte", zap.String("path", path), zap.Int("try", try), zap.String("error", errorText(err)))
	}
}

// beginAgain says whether a transfer that failed is worth another one from the
// start, at once: the object was replaced while it was read, or the server
// cannot go on in the middle. Bytes with a wrong checksum are fetched a second
// time, because they may have been damaged on the way.
func beginAgain(err error, try int) bool {
	switch {
	case errors.Is(err, objects.ErrChecksum):
		return try == 1
	case errors.Is(err, objects.ErrChanged), errors.Is(err, objects.ErrNoRanges), errors.Is(err, objects.ErrNoValidator):
		return try < maxRestarts
	}
	return false
}

// wantedNow is what the mount wants now: of a local file, its present state.
func (a *Agent) wantedNow(m *Mount) (wanted, error) {
	if m.LocalFile == "" {
		return m.wanted(nil, a.store()), nil
	}
	st, err := os.Stat(m.LocalFile)
	if err != nil {
		return wanted{}, err
	}
	return m.wanted(st, ""), nil
}

// store is the server whose objects ids are of, "" if there is no key for one.
func (a *Agent) store() string {
	if a.cfg.Client == nil {
		return ""
	}
	return a.cfg.Client.Origin()
}

// apart refuses a path that overlaps with the agent's own files.
func (a *Agent) apart(path string) error {
	for _, own := range []string{a.cfg.StateDir, a.cfg.RunDir, a.cfg.CacheDir} {
		if related(path, own) {
			return fmt.Errorf("%w: %s overlaps with %s, where the agent keeps its own files", extract.ErrConflict, path, own)
		}
	}
	return nil
}

// bringing is one try to bring a mount up. The lock of its path is held.
type bringing struct {
	a      *Agent
	m      *Mount
	it     *item
	l      *lock
	rc     *receipt
	origin Origin
	how    bringHow
	want   wanted
	lesser string    // why it is extracted although it should have been lazy
	merge  bool      // what comes is to be merged with what is there
	before published // as the receipt said it, when it said something
}

// keep takes over what is there. An edit of the spec that does not concern the
// files, or another asker, is only noted.
func (b *bringing) keep() error {
	p := b.rc.Published
	before, origin, spec := b.before, b.rc.Origin, b.rc.Spec
	if b.origin == OriginSpec {
		b.rc.Origin, b.rc.Spec = OriginSpec, b.a.cfg.SpecPath
	}
	store := cmp.Or(b.want.Store, p.Store)
	p.wanted = b.want
	p.Store = store
	p.BootID = bootID()
	if b.rc.Origin != origin || b.rc.Spec != spec || *p != before {
		if err := b.l.save(b.rc); err != nil {
			return err
		}
	}
	b.it.ready(b.rc)
	return nil
}

// extract fetches the object and publishes it.
func (b *bringing) extract(ctx context.Context) (made bool, err error) {
	opts, err := b.options()
	if err != nil {
		return false, err
	}
	if b.rc.Published != nil {
		// It is ours, so it is replaced. A merge is for what is not, or no
		// longer.
		b.merge = opts.OnConflict == extract.ConflictMerge && (b.rc.Origin != b.origin || b.changed("") != nil)
		if !b.merge {
			opts.OnConflict = extract.ConflictReplace
		}
	}
	// A URL is signed anew each time: whether it leads to the same object can
	// be seen only there.
	maybeSame := b.rc.Published != nil && b.rc.Published.Options == b.want.Options && b.rc.Published.sameStore(b.want)
	if !maybeSame {
		if err := b.mayReplace(""); err != nil {
			return false, err
		}
	}
	if err := extract.CheckPath(b.m.target(), opts); err != nil {
		return false, err
	}
	if b.m.Mode == "lazy" && !b.how.serve && !b.how.once {
		return false, ErrNeedsServer // who will serve it asks for the object, too
	}
	b.it.enter(StateFetching, "asking for the object")
	src, err := b.a.openSource(ctx, b.m)
	if err != nil {
		return false, err
	}
	defer func() {
		if !src.kept {
			src.close()
		}
	}()
	if maybeSame && b.rc.Published.shownAs(b.want) {
		if b.rc.Published.Identity == src.identity && src.identity.ETag != "" {
			return false, b.keep()
		}
		if err := b.mayReplace(""); err != nil {
			return false, err
		}
	}
	opts.Name, opts.ContentType, opts.Size = src.name, src.contentType, src.identity.Size
	if made, err := b.lazyOrNot(ctx, src, opts); made || err != nil {
		return made, err
	}
	if err := b.noteInside(ctx); err != nil {
		return false, err
	}
	return b.stage(ctx, src, opts)
}

// options are the extraction's, without what the source will add.
func (b *bringing) options() (extract.Options, error) {
	opts := extract.Options{
		StageID:       receiptID(b.m.Path())[:12] + "-" + strings.ToLower(rand.Text()),
		PreserveOwner: b.m.PreserveOwner,
		Xattrs:        b.m.Xattrs,
		OnConflict:    extract.OnConflict(b.m.OnConflict),
		Limits:        b.a.cfg.Limits,
		Within:        b.outer(),
	}
	if b.m.Owner != "" {
		owner, err := findOwner(b.m.Owner)
		if err != nil {
			return opts, err
		}
		opts.Owner = &owner
	}
	return opts, nil
}

// outer is the innermost mount that this one lies inside of, "" for none.
func (b *bringing) outer() string {
	for dir := filepath.Dir(b.m.Path()); dir != "/"; dir = filepath.Dir(dir) {
		if b.a.isMounted(dir) {
			return dir
		}
	}
	return ""
}

// noteInside tells the outer mount that what appears below it is no edit. It
// is done before anything appears.
func (b *bringing) noteInside(ctx context.Context) error {
	outer := b.outer()
	if outer == "" {
		return nil
	}
	// Locks are taken from the inside out, by everyone, so no two wait for
	// each other.
	l, err := b.a.receipts.lock(ctx, outer, func() { b.it.enter(StatePending, "another process works on "+outer) })
	if err != nil {
		return err
	}
	defer l.unlock()
	rc, err := l.load()
	if err != nil || rc == nil {
		return err
	}
	for _, in := range rc.Inside {
		if in == b.m.Path() {
			return nil
		}
	}
	rc.Inside = append(rc.Inside, b.m.Path())
	return l.save(rc)
}

// stage extracts with a receipt that always knows how far it has got.
func (b *bringing) stage(ctx context.Context, src *source, opts extract.Options) (made bool, err error) {
	old := b.rc.Published
	if old != nil && old.RealPath != b.m.Path() {
		// It is a file in the directory of the path, and what comes may be the
		// directory: the file goes first.
		if err := b.a.removeTree(b.rc, true); err != nil {
			return false, err
		}
		old, b.rc.Published = nil, nil
		opts.OnConflict = extract.OnConflict(b.m.OnConflict)
	}
	next := &published{wanted: b.want, Identity: src.identity, Lesser: b.lesser}
	st := &staging{wanted: b.want, Origin: b.origin, StageID: opts.StageID, BootID: bootID(), Time: time.Now().UTC()}
	if b.origin == OriginSpec {
		st.Spec = b.a.cfg.SpecPath
	}
	if old == nil {
		b.rc.Origin, b.rc.Spec = st.Origin, st.Spec
	}
	b.rc.Staging = st
	if err := b.l.save(b.rc); err != nil {
		return false, err
	}
	b.it.tell(func(s *ItemStatus) { s.TotalBytes = src.identity.Size })
	b.it.enter(StateExtracting, "")
	opts.Progress = b.it.progress
	opts.FlushLater = old == nil
	if old != nil && old.Tree != "" {
		opts.Over = &old.Fingerprint
	}
	opts.Staged = func(s extract.Staged) error { return b.intend(s, next) }
	// The last moment to look once more whether anything was edited meanwhile.
	opts.MayPublish = func() error { return b.mayReplace(filepath.Dir(st.Root)) }

	res, err := b.unpack(ctx, src, opts)
	if err != nil {
		return false, b.giveUp(err)
	}
	if err := b.finish(next, old, res); err != nil {
		return true, err
	}
	b.a.noteResult(b.m, res)
	b.it.ready(b.rc)
	return true, nil
}

// intend writes down what is about to appear, before it has any content: then
// the record costs nothing, while later it would have to wait for all that was
// written (100 to 300 ms for the Go source tree on ext4).
func (b *bringing) intend(s extract.Staged, next *published) error {
	i, err := lookAt(s.Root)
	if err != nil {
		return err
	}
	next.place(i, s.Path)
	next.Filled = s.Fills
	st := b.rc.Staging
	st.Next, st.Root, st.Later = next, s.Root, s.Later
	return b.l.save(b.rc)
}

// giveUp puts the receipt back as it was before a try that failed. That is
// what would be done after a crash, and for the same reason: the very last
// step of publishing, a sync, may have failed after the rename.
func (b *bringing) giveUp(cause error) error {
	if err := b.a.recover(b.l, b.rc); err != nil {
		b.a.log.Warn("receipt not put back", zap.String("path", b.m.Path()), zap.String("error", errorText(err)))
	}
	return cause
}

// finish writes down what was published.
func (b *bringing) finish(next, old *published, res extract.Result) error {
	next.Kind, next.Format, next.RealPath = res.Kind, res.Format, res.Path
	next.Entries, next.Bytes, next.Skipped = res.Entries, res.Bytes, res.Skipped
	next.Fingerprint, next.Tree = res.Fingerprint, res.Tree
	next.BootID, next.Time = bootID(), time.Now().UTC()
	if i, err := lookAt(res.Path); err == nil {
		next.BirthNS = i.birth
	}
	b.rc.Published = next
	st := b.rc.Staging
	b.rc.Origin, b.rc.Spec = st.Origin, st.Spec
	if err := b.a.settle(b.rc, old, st.StageID); err != nil {
		return err
	}
	b.rc.Staging = nil
	if res.Unflushed {
		b.rc.unflushed = st // on disk it is the intent that stays
		return b.l.saveFresh(b.rc)
	}
	return b.l.save(b.rc)
}

// bombRatio is how many bytes of files from one byte of an object are worth a
// line in the log. Code has 4, logs have 20, zeros in a gzip 1030.
const bombRatio = 200

// noteResult logs what is worth knowing about an extraction that went well.
func (a *Agent) noteResult(m *Mount, res extract.Result) {
	if res.Skipped.Owners > 0 {
		a.log.Warn("the owner of some entries could not be set", zap.String("path", m.Path()), zap.Int64("entries", res.Skipped.Owners))
	}
	if s := res.Skipped; s.Xattrs > 0 || s.SetIDs > 0 {
		a.log.Info("parts of the archive were left out", zap.String("path", m.Path()),
			zap.Int64("extended_attributes", s.Xattrs), zap.Int64("set_id_bits", s.SetIDs))
	}
	if res.BytesIn > 0 && res.Bytes/res.BytesIn >= bombRatio {
		// Zeros and sparse files are honest, so this is no reason to refuse.
		a.log.Warn("the object grew very much", zap.String("path", m.Path()), zap.Int64("from", res.BytesIn), zap.Int64("to", res.Bytes))
	}
	if res.Leftover != "" {
		a.log.Warn("what was replaced could not be deleted", zap.String("path", m.Path()), zap.String("leftover", res.Leftover))
	}
}
