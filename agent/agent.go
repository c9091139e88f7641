package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
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
	"objectmount/objects"
	"objectmount/systemd"
)

// Config of an Agent. The zero value of a field means its default.
type Config struct {
	SpecPath    string            // see LoadSpec; default /etc/objectmount/mounts.json
	StateDir    string            // receipts; default /var/lib/objectmount
	RunDir      string            // control socket; default /run/objectmount
	CacheDir    string            // indexes and spans of lazy mounts; default /var/cache/objectmount
	CacheSize   int64             // bytes of spans kept; default a quarter of the file system
	Prefetch    Prefetch          // of mounts that do not say it; default PrefetchAuto
	FillRate    int64             // bytes of objects per second, fetched in the background by all mounts; 0: as fast as it goes
	TraceFor    time.Duration     // how long the reads of a lazy mount are recorded; default 30 s
	LazyAbove   int64             // bytes from which on mode auto is lazy; default 128 MiB; negative: never
	Serve       bool              // the caller of Mount calls Serve: lazy mounts can be made; Run serves by itself
	Client      *objects.Client   // nil: there is no key, and only download_url and local files can be mounted
	Log         *zap.Logger       // nil: silent
	Version     string            // of the program, for Status
	Parallel    int               // mounts made at the same time; default 4
	URLValid    time.Duration     // life of the download URLs asked for; default 1 h
	Limits      extract.Limits    // of every object
	Network     *objects.Network  // limits of all fetches together; nil: the defaults
	RetryBudget time.Duration     // longest time a fetch may go without progress before it fails; default 15 min
	RetryMin    time.Duration     // first pause before a failed mount is tried again; default 1 s
	RetryMax    time.Duration     // longest such pause; default 5 min
	Debounce    time.Duration     // quiet time after which a changed spec is read; default 200 ms
	Notifier    *systemd.Notifier // nil: silent

	// Progress is told of every step of every item, from several goroutines
	// at once. It must be quick: work waits for it.
	Progress func(ItemStatus)
}

// Agent brings mounts up and takes them down. Its methods may be called from
// several goroutines, and by several processes with the same StateDir: work
// on one path is done by one of them at a time. Only one may Run.
type Agent struct {
	cfg      Config
	log      *zap.Logger
	receipts receipts
	started  time.Time
	reload   chan struct{} // Reload was called
	moved    atomic.Int64  // grows while bytes move

	mu      sync.Mutex
	items   map[string]*item   // by path; what Status tells of
	specErr *SpecError         // why the spec is not the one in force
	settled bool               // it is known what is wanted: a spec was taken over, or there is none
	servers map[string]*server // of lazy mounts, by path

	cacheMu sync.Mutex // guards cache
	cache   *cache.Cache
	lost    chan string   // paths of lazy mounts that went away by themselves, or failed
	traffic index.Traffic // of all lazy mounts
}

// New makes an Agent. It reads and writes nothing yet.
func New(cfg Config) (*Agent, error) {
	cfg.SpecPath = cmp.Or(cfg.SpecPath, "/etc/objectmount/mounts.json")
	cfg.StateDir = cmp.Or(cfg.StateDir, "/var/lib/objectmount")
	cfg.RunDir = cmp.Or(cfg.RunDir, "/run/objectmount")
	cfg.CacheDir = cmp.Or(cfg.CacheDir, "/var/cache/objectmount")
	cfg.LazyAbove = cmp.Or(cfg.LazyAbove, 128<<20)
	for _, dir := range []*string{&cfg.SpecPath, &cfg.StateDir, &cfg.RunDir, &cfg.CacheDir} {
		// Absolute: a spec's path is in receipts, where another process with
		// another working directory finds it.
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	cfg.Prefetch = cmp.Or(cfg.Prefetch, PrefetchAuto)
	cfg.TraceFor = cmp.Or(cfg.TraceFor, 30*time.Second)
	cfg.Parallel = max(cmp.Or(cfg.Parallel, 4), 1)
	cfg.URLValid = cmp.Or(cfg.URLValid, time.Hour)
	cfg.RetryBudget = cmp.Or(cfg.RetryBudget, 15*time.Minute)
	if cfg.Network == nil {
		cfg.Network = objects.NewNetwork(objects.Limits{})
	}
	cfg.RetryMin = cmp.Or(cfg.RetryMin, time.Second)
	cfg.RetryMax = max(cmp.Or(cfg.RetryMax, 5*time.Minute), cfg.RetryMin)
	cfg.Debounce = cmp.Or(cfg.Debounce, 200*time.Millisecond)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	return &Agent{
		cfg: cfg, log: cfg.Log, receipts: receipts{filepath.Join(cfg.StateDir, "mounts")}, started: time.Now(),
		reload: make(chan struct{}, 1), items: map[string]*item{}, servers: map[string]*server{}, lost: make(chan string, 1024),
	}, nil
}

// Once makes every mount of the spec that is not there yet, and tries each
// once. When it returns, all of them are on disk. It takes nothing down. The Status says what became of each mount; the
// error is that of the spec (*SpecError), or of ctx.
func (a *Agent) Once(ctx context.Context) (Status, error) {
	spec, err := LoadSpec(a.cfg.SpecPath)
	if err != nil {
		return a.Status(), err
	}
	a.accept(spec)
	a.tidy()
	s := a.newScheduler(true)
	steps := plan(spec.Mounts, a.have(), a.cfg.SpecPath, a.store())
	s.want(slices.DeleteFunc(steps, func(st step) bool { return st.action == actionRemove }))
	for {
		s.start(ctx)
		if !s.busy() {
			break
		}
		s.finished(ctx, <-s.done)
	}
	if ctx.Err() != nil {
		return a.Status(), context.Cause(ctx)
	}
	s.giveUp()
	return a.Status(), nil
}

// Mount makes one mount now, with the same receipts and locks as the daemon.
// It tries once; the error says what was wrong, and ErrorHint what to do. If
// the status says Unflushed, the caller should see to a Flush. If it says Lazy,
// and the mount was not served before, this process does now: see Serve. The
// error is ErrNeedsServer if it should and Config.Serve is not set.
func (a *Agent) Mount(ctx context.Context, m Mount) (ItemStatus, error) {
	it := a.newItem(m.Path(), &m, OriginManual)
	err := error(nil)
	if fe := m.check(); fe != nil {
		err = fe
	} else {
		a.tidy()
		_, err = a.work(ctx, it, &m, bringHow{origin: OriginManual, serve: a.cfg.Serve})
	}
	if err != nil {
		err = fmt.Errorf("mount %s: %w", m.Path(), objects.Redact(err))
		it.failed(err, time.Time{})
	}
	a.mu.Lock()
	st := it.status
	a.mu.Unlock()
	a.tellLazy(ctx, &st)
	return st, err
}

// Paths lists the paths of all mounts that the state directory knows, inner
// ones before outer ones: the order in which they can be taken down.
func (a *Agent) Paths() ([]string, error) {
	list, bad := a.receipts.all()
	paths := make([]string, 0, len(list))
	for _, rc := range list {
		paths = append(paths, rc.Path)
	}
	slices.SortFunc(paths, func(a, b string) int { return strings.Compare(b, a) })
	return paths, errors.Join(bad...)
}

// Status says how everything is doing: what this agent is at work on, and
// what other processes have mounted with the same state directory.
func (a *Agent) Status() Status {
	known, _ := a.receipts.all()
	st := Status{Version: a.cfg.Version, PID: os.Getpid(), Started: a.started, Items: []ItemStatus{}}
	has := make(map[string]bool, len(known))
	a.mu.Lock()
	st.SpecError, st.Ready = a.specErr, a.settled
	for _, rc := range known {
		has[rc.Path] = true
	}
	for _, it := range a.items {
		s := it.status
		if s.State == StateReady && !has[s.Path] {
			s.State, s.Phase, s.Percent = StatePending, "unmounted by hand; comes back when the spec is read again", 0
		}
		st.Items = append(st.Items, s)
		st.Ready = st.Ready && (s.State == StateReady || !s.Required)
		delete(has, s.Path)
	}
	a.mu.Unlock()
	for _, rc := range known {
		if has[rc.Path] {
			st.Items = append(st.Items, rc.status())
		}
	}
	a.tellAllLazy(st.Items)
	st.Kept = a.KeptLayers()
	slices.SortFunc(st.Items, func(a, b ItemStatus) int { return strings.Compare(a.Path, b.Path) })
	return st
}

// status tells of a mount that is not in this agent's care.
func (rc *receipt) status() ItemStatus {
	s := ItemStatus{Path: rc.Path, Origin: rc.Origin, State: StatePending}
	switch p := rc.Published; {
	case rc.Staging != nil:
		s.Phase, s.Since = "another process works on it, or died doing so", rc.Staging.Time
		s.ObjectID, s.Source = rc.Staging.ObjectID, rc.Staging.Source
	case p == nil:
		s.Phase = "nothing is there"
	default:
		s.ObjectID, s.Source, s.Since = p.ObjectID, cmp.Or(p.Source, p.ObjectID), p.Time
		if there, err := p.isThere(); err != nil || !there {
			s.State, s.Error = StateFailed, "the files are gone"
			if p.Lazy != nil {
				s.Error = "nobody serves it any more"
			}
			s.Hint = "mount it again, or forget it with objectmount unmount"
			break
		}
		s.Lazy = p.lazyStatus()
		s.State, s.Percent, s.RealPath = StateReady, 100, p.RealPath
		s.Unflushed, s.Bound = rc.unflushed != nil, p.Tree != ""
		s.Bytes, s.TotalBytes, s.Written, s.Entries = p.Identity.Size, p.Identity.Size, p.Bytes, p.Entries
	}
	return s
}

// have reads all receipts, and logs those that cannot be understood: their
// paths are treated as if nothing were known of them.
func (a *Agent) have() []*receipt {
	list, bad := a.receipts.all()
	for _, err := range bad {
		a.log.Warn("receipt not understood", zap.String("error", errorText(err)))
	}
	return list
}

// accept notes that a spec is the one in force.
func (a *Agent) accept(spec *Spec) {
	a.mu.Lock()
	a.specErr, a.settled = nil, true
	a.mu.Unlock()
	for _, line := range spec.Skipped {
		a.log.Info("not ours", zap.String("mount", line))
	}
}

// register makes Status tell of an item.
func (a *Agent) register(it *item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.items[it.status.Path] = it
}

func (a *Agent) forget(it *item) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.items, it.status.Path)
}
