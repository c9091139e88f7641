package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"objectmount/cache"
	"objectmount/extract"
	"objectmount/index"
	"objectmount/mount"
)

// server is a lazy mount that this process serves, and all that belongs to it.
// Everything is closed when the kernel has let go of the mount, whoever
// unmounted it.
type server struct {
	a       *Agent
	path    string // of the mount
	blobID  string
	from    string // where the index came from
	src     *source
	table   index.Table
	growing *index.Growing // of a first pass; nil if there was none
	index   *index.Index   // nil if there was a first pass
	blob    *cache.Blob    // nil: nothing is kept
	reader  *index.Reader
	fs      *mount.FS // set by mount

	ctx      context.Context // of the first pass and of publishing
	cancel   context.CancelFunc
	work     sync.WaitGroup
	stopping atomic.Bool
	passErr  atomic.Pointer[error]
	passed   chan struct{} // closed when the first pass is over; nil if there was none
	gone     chan struct{} // closed when all is closed

	background prefetching
	lost       atomic.Pointer[lostObject]
	listener   io.Closer // answers for the mount; nil: the daemon does

	traceMu    sync.Mutex // guards the rest
	traceKnown bool       // trace is what there is
	traceSaved bool
	trace      []int // what was read the last time
}

// newServer gets an index from wherever it is, or begins a first pass. The
// source becomes the server's when it has mounted.
func (a *Agent) newServer(ctx context.Context, m *Mount, src *source) (*server, error) {
	c, err := a.lazyCache()
	if err != nil {
		return nil, notLazy{errorText(err)}
	}
	id, want := a.blobID(m, src), m.indexed(src)
	x, err := a.cachedIndex(c, id, want)
	from := indexCached
	if errors.Is(err, fs.ErrNotExist) {
		from = indexPublished
		if x, err = a.publishedIndex(ctx, c, id, want); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("published index is of no use: a first pass is made", zap.String("path", m.Path()), zap.String("error", errorText(err)))
		}
	}
	if ctx.Err() != nil {
		if x != nil {
			x.Close()
		}
		return nil, context.Cause(ctx)
	}
	if err == nil {
		return a.serverOf(m, src, id, x, from, c), nil
	}
	return a.firstPass(ctx, m, src, id, c)
}

// cachedServer is newServer for an index that must be in the cache.
func (a *Agent) cachedServer(m *Mount, src *source) (*server, error) {
	c, err := a.lazyCache()
	if err != nil {
		return nil, notLazy{errorText(err)}
	}
	id := a.blobID(m, src)
	x, err := a.cachedIndex(c, id, m.indexed(src))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notLazy{"its index is not in the cache"}
	}
	if err != nil {
		return nil, err
	}
	return a.serverOf(m, src, id, x, indexCached, c), nil
}

func (a *Agent) emptyServer(m *Mount, src *source, id, from string) *server {
	s := &server{a: a, path: m.Path(), blobID: id, from: from, src: src, gone: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// openBlob opens the spans. Without them everything works, slowly.
func (s *server) openBlob(c *cache.Cache) index.Spans {
	b, err := c.Blob(s.blobID, s.table)
	if err != nil {
		s.a.log.Warn("nothing of the object is kept", zap.String("path", s.path), zap.String("error", errorText(err)))
		return nil
	}
	s.blob = b
	return b
}

func (a *Agent) serverOf(m *Mount, src *source, id string, x *index.Index, from string, c *cache.Cache) *server {
	s := a.emptyServer(m, src, id, from)
	s.index, s.table = x, x
	s.reader = index.NewReader(x, src.ranges, s.openBlob(c), a.readerOptions())
	s.work.Go(func() { a.publish(s.ctx, m, x) })
	return s
}

// firstPass begins to read the object from its first byte on, and returns when
// it is known what it is.
func (a *Agent) firstPass(ctx context.Context, m *Mount, src *source, id string, c *cache.Cache) (*server, error) {
	s := a.emptyServer(m, src, id, indexFirstPass)
	opt := index.BuildOptions{Object: m.indexed(src), Name: src.name, ContentType: src.contentType,
		Limits: indexLimits(a.cfg.Limits), Path: c.Path(id, indexFile), Skim: m.SHA256 == ""}
	s.growing = index.NewGrowing(src.ranges, opt)
	s.table = s.growing
	spans := s.openBlob(c)
	if spans == nil {
		// The directory of the index is the blob's.
		opt.Path = ""
		s.growing = index.NewGrowing(src.ranges, opt)
		s.table = s.growing
	}
	s.reader = index.NewReader(s.table, src.ranges, spans, a.readerOptions())
	s.passed = make(chan struct{})
	s.work.Go(func() {
		defer close(s.passed)
		start := time.Now()
		err := s.growing.Run(s.ctx, spans)
		switch {
		case s.ctx.Err() != nil:
		case err != nil:
			s.passErr.Store(&err)
			a.log.Error("first pass failed", zap.String("path", s.path), zap.String("error", errorText(err)))
			a.lostMount(s.path)
		default:
			a.log.Info("index complete", zap.String("path", s.path), zap.Int("entries", s.growing.NumRows()-1),
				zap.Int64("bytes", src.identity.Size), zap.Duration("after", time.Since(start)))
			a.publish(s.ctx, m, s.growing.Index())
		}
	})
	if err := s.growing.Ready(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (a *Agent) readerOptions() index.ReaderOptions {
	return index.ReaderOptions{Record: max(a.cfg.TraceFor, 0), Traffic: &a.traffic}
}

// complete is the finished index; nil while the first pass runs, or if it
// failed.
func (s *server) complete() *index.Index {
	if s.growing != nil {
		return s.growing.Index()
	}
	return s.index
}

// format is what the object is, as extraction would say it.
func (s *server) format() string {
	if x := s.complete(); x != nil {
		return x.Format()
	}
	// While the first pass runs only the kind is known: what is not an archive
	// and ends in .gz is told to be one by its own bytes later; the name alone
	// decides about the name.
	if at, err := s.table.Attr(0); err == nil && at.Type == index.TypeFile {
		if strings.HasSuffix(strings.ToLower(s.src.name), ".gz") {
			return "gz"
		}
		return "other"
	}
	return "tar.gz"
}

// failed is why the first pass failed, nil if it did not.
func (s *server) failed() error {
	if err := s.passErr.Load(); err != nil {
		return *err
	}
	return nil
}

// mount shows the server's tree at a point. From then on it closes itself.
func (s *server) mount(ctx context.Context, m *Mount, p *published, owner extract.Owner) error {
	opt := mount.Options{Identity: s.blobID, Time: p.Time, Log: zap.NewStdLog(s.a.log)}
	if !m.ReadOnly {
		opt.StateDir = s.a.layers()
	}
	if !m.PreserveOwner {
		opt.Owner = &mount.Owner{UID: uint32(owner.UID), GID: uint32(owner.GID)}
	}
	tree := index.Tree(s.table)
	if !m.Xattrs {
		tree = s.withoutXattrs()
	}
	fs, err := mount.Mount(ctx, p.RealPath, tree, content{s}, opt)
	if err != nil {
		return cmp.Or(errors.Unwrap(err), err) // whoever asked says what was mounted where
	}
	s.fs = fs
	return nil
}

// withoutXattrs hides extended attributes, as an extraction leaves them out
// unless it is told otherwise.
func (s *server) withoutXattrs() index.Tree {
	if s.growing != nil {
		return plainGrowing{s.growing}
	}
	return plainTable{s.table}
}

type plainTable struct{ index.Table }

func (t plainTable) Attr(row uint32) (index.Attr, error) {
	at, err := t.Table.Attr(row)
	at.Xattrs = false
	return at, err
}
func (plainTable) Xattrs(uint32) ([]index.Xattr, error) { return nil, nil }

type plainGrowing struct{ *index.Growing }

func (t plainGrowing) Attr(row uint32) (index.Attr, error) {
	at, err := t.Growing.Attr(row)
	at.Xattrs = false
	return at, err
}
func (plainGrowing) Xattrs(uint32) ([]index.Xattr, error) { return nil, nil }

// close gives back everything. The mount, if there is one, is gone.
func (s *server) close() {
	s.cancel()
	s.work.Wait()
	if s.reader != nil {
		_ = s.reader.Close()
		s.saveTrace()
	}
	if s.listener != nil {
		_ = s.listener.Close()
	}
	if s.blob != nil {
		_ = s.blob.Close()
	}
	if s.growing != nil {
		_ = s.growing.Close()
	}
	if s.index != nil {
		_ = s.index.Close()
	}
	if s.src.kept {
		_ = s.src.close()
	}
	close(s.gone)
}

// keepServer remembers a server that has mounted, until its mount is gone, and
// begins what it does in the background.
func (a *Agent) keepServer(s *server, m *Mount) {
	a.mu.Lock()
	a.servers[s.path] = s
	s.src.kept = true
	a.mu.Unlock()
	s.setPrefetch(a.prefetchOf(m))
	s.work.Go(s.prefetch)
	s.work.Go(func() { s.keepTrace(m) })
	if a.cfg.Serve {
		s.answer()
	}
	go func() {
		s.fs.Wait()
		a.mu.Lock()
		if a.servers[s.path] == s {
			delete(a.servers, s.path)
		}
		a.mu.Unlock()
		s.close()
		if !s.stopping.Load() {
			a.log.Warn("mount is gone: somebody unmounted it", zap.String("path", s.path))
			a.lostMount(s.path)
		}
	}()
}

// server is the one that this process has for a path; nil: none.
func (a *Agent) server(path string) *server {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.servers[path]
}

// unmount takes the mount down and waits until everything of it is closed. A
// lazy one disappears at once, and is closed when its last user is gone.
func (s *server) unmount(lazy bool) error {
	s.stopping.Store(true)
	if err := s.fs.Unmount(lazy); err != nil {
		s.stopping.Store(false)
		return err
	}
	s.a.mu.Lock()
	if s.a.servers[s.path] == s {
		delete(s.a.servers, s.path)
	}
	s.a.mu.Unlock()
	if !lazy {
		<-s.gone
	}
	return nil
}

// lostMount tells the daemon that a mount is not what it was.
func (a *Agent) lostMount(path string) {
	select {
	case a.lost <- path:
	default: // nobody listens, or he has a thousand to look after
	}
}

// served lists all servers, inner paths before outer ones.
func (a *Agent) served() []*server {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := make([]*server, 0, len(a.servers))
	for _, s := range a.servers {
		list = append(list, s)
	}
	slices.SortFunc(list, func(x, y *server) int { return cmp.Compare(y.path, x.path) })
	return list
}

// Serve serves the lazy mounts that Mount made until somebody has unmounted
// all of them, or ctx ends: then it takes them down.
func (a *Agent) Serve(ctx context.Context) error {
	for {
		list := a.served()
		if len(list) == 0 {
			a.closeCache()
			return nil
		}
		select {
		case <-list[0].gone:
		case <-ctx.Done():
			a.stopServing()
			return context.Cause(ctx)
		}
	}
}

// stopServing takes down every mount that this process serves: without it they
// would answer ENOTCONN. Receipts and changes stay, so that the next process
// makes them again.
func (a *Agent) stopServing() {
	for _, s := range a.served() {
		err := s.unmount(false)
		if busy := new(*mount.BusyError); errors.As(err, busy) {
			a.log.Warn("mount is detached although it is in use", zap.String("path", s.path), zap.String("error", errorText(err)))
			err = s.unmount(true)
		}
		if err != nil {
			a.log.Error("mount not taken down", zap.String("path", s.path), zap.String("error", errorText(err)))
		}
	}
	a.closeCache()
}

// layerPath is where the changes to a mount are, whether or not it is up.
func (a *Agent) layerPath(p *published) string {
	return cmp.Or(p.Lazy.Layer, mount.LayerPath(a.layers(), filepath.Clean(p.RealPath), p.Lazy.Blob))
}
