package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/mount"
)

// A mount can be lazy: its tree is there at once, and bytes are fetched when
// somebody reads them. This chapter decides which mounts are, and brings them
// up; lazyindex.go finds the index that a tree is made of; lazyserver.go keeps
// what is served; lazydown.go takes it down.
//
//	receipt       process        at the path
//	published ──▶ server ──────▶ mount        bringing up, in this order
//	published     -              dead mount   the process died: made again
//	published     -              -            a reboot: made again, and as the
//	                                          receipt pins the object, without
//	                                          a request if the index is here
//
// The receipt comes before the mount, so that no mount is ever without one.

// lazyMount is what the receipt says of a lazy mount beyond what it says of
// every other.
type lazyMount struct {
	Blob        string `json:"blob"`                   // under which the cache keeps index and spans
	Name        string `json:"name,omitempty"`         // of the object
	ContentType string `json:"content_type,omitempty"` // likewise
	ReadOnly    bool   `json:"read_only,omitempty"`    // as was asked for
	Layer       string `json:"layer,omitempty"`        // where changes are kept; "": it cannot be written to
	Made        bool   `json:"made,omitempty"`         // the mount point was made for it
}

// ErrNeedsServer: the mount is a lazy one, which a process has to serve for as
// long as it is there, and the caller of Mount does not (Config.Serve).
// Nothing was done.
var ErrNeedsServer = errors.New("a lazy mount needs a process that serves it")

// errNobodyServes: Once found a lazy mount that is down.
var errNobodyServes = errors.New("it is a lazy mount, and nobody stays to serve it")

// notLazy says why a mount cannot be lazy after all, so that it is extracted.
type notLazy struct{ why string }

func (e notLazy) Error() string { return e.why }

// lazily decides whether a new mount is lazy. why says what speaks against it
// where it was wanted.
func (b *bringing) lazily(src *source) (yes bool, why string) {
	m, a := b.m, b.a
	wanted := m.Mode == "lazy" || (m.Mode != "extract" && (m.ReadOnly || a.cfg.LazyAbove >= 0 && src.identity.Size >= a.cfg.LazyAbove))
	if !wanted {
		return false, ""
	}
	why = b.unlazy(src)
	return why == "", why
}

// unlazy is what speaks against a lazy mount, "" for nothing.
func (b *bringing) unlazy(src *source) string {
	m, a := b.m, b.a
	if b.how.once {
		return "nobody stays to serve it"
	}
	if m.OnConflict == string(extract.ConflictMerge) {
		return "on_conflict is merge"
	}
	if m.SHA256 != "" && m.Mode != "lazy" {
		return "its sha256 is known only when all of it is read"
	}
	if !src.ranged() {
		return "the server does not serve ranges of it"
	}
	if in := a.wantedInside(m.Path()); in != "" {
		return "the mount " + in + " lies inside of it"
	}
	if err := mount.Check(); err != nil {
		return err.Error()
	}
	if _, err := a.lazyCache(); err != nil {
		return errorText(err)
	}
	return ""
}

// wantedInside is a mount in this agent's care that lies inside a path, "" for
// none.
func (a *Agent) wantedInside(path string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for p := range a.items {
		if inside(p, path) {
			return p
		}
	}
	return ""
}

// insideLazy refuses a path inside a lazy mount: this process would have to use
// a mount that it serves itself.
func (b *bringing) insideLazy() error {
	outer := b.outer()
	if outer == "" {
		return nil
	}
	rc, err := b.a.receipts.load(outer)
	if err != nil || rc == nil || rc.Published == nil || rc.Published.Lazy == nil {
		return err
	}
	return fmt.Errorf("%w: it lies inside the lazy mount %s; give that one the mode extract", extract.ErrConflict, outer)
}

// mountLazy brings a mount up lazily that was not there. If the error is a
// notLazy, nothing was done, and it is to be extracted.
func (b *bringing) mountLazy(ctx context.Context, src *source, opts extract.Options) error {
	if !b.how.serve {
		return ErrNeedsServer
	}
	b.it.enter(StateIndexing, "looking for the index")
	sv, err := b.a.newServer(ctx, b.m, src)
	if err != nil {
		return err
	}
	root, err := sv.table.Attr(0)
	if err == nil && root.Type == index.TypeFile && b.m.Mode != "lazy" && !b.m.ReadOnly {
		err = notLazy{"a single file that is mounted lazily cannot be written to"}
	}
	if err != nil {
		sv.close()
		return err
	}
	if old := b.rc.Published; old != nil {
		if err := b.a.removeTree(b.rc, true); err != nil {
			sv.close()
			return err
		}
		b.rc.Published = nil
		opts.OnConflict = extract.OnConflict(b.m.OnConflict)
	}
	next := &published{wanted: b.want, Identity: src.identity, Kind: extract.KindTree, Format: sv.format(), Time: time.Now().UTC(),
		Lazy: &lazyMount{Blob: sv.blobID, Name: src.name, ContentType: src.contentType, ReadOnly: b.m.ReadOnly}}
	if root.Type == index.TypeFile {
		next.Kind = extract.KindFile
	}
	b.rc.Origin, b.rc.Spec = b.origin, ""
	if b.origin == OriginSpec {
		b.rc.Spec = b.a.cfg.SpecPath
	}
	return b.show(ctx, sv, next, opts)
}

// remount brings a lazy mount up again as the receipt describes it. Nothing is
// asked of the network if the index is in the cache; if it is not, the error
// is a notLazy.
func (b *bringing) remount(ctx context.Context) error {
	p := b.rc.Published
	if b.how.once {
		return errNobodyServes
	}
	if !b.how.serve {
		return ErrNeedsServer
	}
	b.it.enter(StateIndexing, "opening the index")
	src, err := b.a.pinned(ctx, b.m, p)
	if err != nil {
		return err
	}
	sv, err := b.a.cachedServer(b.m, src)
	if err != nil {
		src.close()
		return err
	}
	opts, err := b.options()
	if err != nil {
		sv.close()
		return err
	}
	opts.Name, opts.ContentType, opts.Size = src.name, src.contentType, src.identity.Size
	next := *p
	lazy := *p.Lazy
	next.wanted, next.Lazy = b.want, &lazy
	return b.show(ctx, sv, &next, opts)
}

// show mounts what a server has, and writes it down. The server is closed if
// that fails.
func (b *bringing) show(ctx context.Context, sv *server, next *published, opts extract.Options) (err error) {
	a := b.a
	defer func() {
		if err != nil {
			sv.close()
		}
	}()
	if err := b.noteInside(ctx); err != nil {
		return err
	}
	// A dead mount at the path would answer every look at it with ENOTCONN.
	if _, err := mount.Clean(ctx, b.m.Path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return lazyConflict(err)
	}
	pt, err := extract.MakePoint(b.m.target(), next.Format, next.Kind == extract.KindFile, opts)
	if err != nil {
		return err
	}
	before := b.rc.Published
	next.RealPath, next.BootID = pt.Path, bootID()
	next.Lazy.Made = next.Lazy.Made || pt.Made
	next.Entries = int64(max(sv.table.NumRows()-1, 0))
	b.rc.Published = next
	if err := b.l.save(b.rc); err != nil {
		return err
	}
	if err := sv.mount(ctx, b.m, next, pt.Owner); err != nil {
		if before == nil {
			// As if it had not been tried; an earlier mount is still to be
			// made again.
			b.rc.Published = nil
			err = errors.Join(lazyConflict(err), a.forgetPoint(next))
			if len(b.rc.Inside) > 0 {
				return errors.Join(err, b.l.save(b.rc))
			}
			return errors.Join(err, b.l.remove())
		}
		return lazyConflict(err)
	}
	info := sv.fs.Info()
	next.Lazy.Layer = info.Layer
	if err := b.l.save(b.rc); err != nil {
		a.log.Warn("where changes are kept is not written down", zap.String("path", b.m.Path()), zap.String("error", errorText(err)))
	}
	if info.WhyReadOnly != nil && !b.m.ReadOnly {
		a.log.Warn("mount is read-only", zap.String("path", b.m.Path()), zap.String("why", errorText(info.WhyReadOnly)))
	}
	for _, note := range info.Notes {
		a.log.Debug("mount", zap.String("path", b.m.Path()), zap.String("note", note))
	}
	a.keepServer(sv, b.m)
	b.it.ready(b.rc)
	return nil
}

// lazyConflict makes a living mount at the path one of the things in the way.
func lazyConflict(err error) error {
	if errors.Is(err, mount.ErrMounted) {
		return fmt.Errorf("%w: %w", extract.ErrConflict, err)
	}
	return err
}

// resume deals with a path at which a lazy mount was made before: it is kept,
// made again, or taken down because something else is wanted. done is false
// when what is wanted has to be made like something new.
func (b *bringing) resume(ctx context.Context) (done, made bool, err error) {
	p, a := b.rc.Published, b.a
	if sv := a.server(b.m.Path()); sv != nil && sv.failed() != nil {
		// What was seen of a stream that failed is not to be believed; those
		// who use it find the new mount when they look again.
		if err := sv.unmount(true); err != nil {
			return true, false, err
		}
		waitUnused(ctx, a.layerPath(p)) // else the new one would be read-only
	}
	there, err := p.isThere()
	if err != nil {
		return true, false, err
	}
	same := p.same(b.want)
	if !there && same && b.how.outer == "" {
		err := b.remount(ctx)
		var not notLazy
		if !errors.As(err, &not) {
			return true, err == nil, err
		}
		a.log.Info("lazy mount is made from the beginning", zap.String("path", b.m.Path()), zap.String("why", not.why))
	}
	if there && (same || p.Options == b.want.Options && p.sameStore(b.want) && p.shownAs(b.want)) {
		if sv := a.server(b.m.Path()); sv != nil {
			sv.setPrefetch(a.prefetchOf(b.m))
		}
		return true, false, b.keep()
	}
	if b.how.outer != "" {
		return true, false, fmt.Errorf("%w: %s", errOuter, b.how.outer)
	}
	if b.how.once && same {
		return true, false, errNobodyServes
	}
	if !same {
		if err := b.mayReplace(""); err != nil {
			return true, false, err
		}
	}
	if err := a.detach(ctx, b.rc, false); err != nil {
		return true, false, err
	}
	b.rc.Published = nil
	return false, false, nil
}

// layers is where the changes to lazy mounts are kept.
func (a *Agent) layers() string { return filepath.Join(a.cfg.StateDir, "layers") }

// blobID names the bytes of an object and the way they are cut into spans, for
// the cache.
func (a *Agent) blobID(m *Mount, src *source) string {
	where := "url " + m.Source()
	switch {
	case m.ObjectID != "":
		where = "object " + a.store() + " " + m.ObjectID
	case m.LocalFile != "":
		where = "file " + m.LocalFile
	}
	id := src.identity
	return strings.Join([]string{where, fmt.Sprint(id.Size), id.ETag, id.LastModified, "1"}, "\n")
}

// lazyOrNot mounts lazily what is to be lazy and can be. made is false if it is
// to be extracted.
func (b *bringing) lazyOrNot(ctx context.Context, src *source, opts extract.Options) (made bool, err error) {
	yes, why := b.lazily(src)
	if yes {
		err := b.mountLazy(ctx, src, opts)
		var not notLazy
		var no *mount.UnavailableError
		switch {
		case errors.As(err, &not):
			why = not.why
		case errors.As(err, &no) && (b.m.Mode != "lazy" || b.origin == OriginSpec):
			why = errorText(no)
		default:
			return err == nil, err
		}
	}
	if why == "" {
		return false, nil
	}
	if b.m.Mode == "lazy" && b.origin == OriginManual {
		// Whoever types it wants to know, and can type something else.
		if err := mount.Check(); err != nil {
			return false, err
		}
		return false, fmt.Errorf("it cannot be mounted lazily: %s", why)
	}
	b.lesser = why
	b.a.log.Info("extracted, not mounted lazily", zap.String("path", b.m.Path()), zap.String("why", why))
	return false, nil
}
