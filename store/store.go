package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Options of a Store. Zero fields mean the default.
type Options struct {
	DataDir        string        // required; made 0700 when absent
	PublicURL      string        // how clients reach the server, for signed URLs, with or without a path; "" = as each request came
	Keys           []Account     // who may call; at least one
	Log            *zap.Logger   // nil = no log
	MaxObjectSize  int64         // of one object, in bytes; 0 = no limit but the disk
	URLMaxDuration time.Duration // longest life of a download URL; 0 = 7 days
	UploadDuration time.Duration // life of an upload URL, within which an upload must begin; 0 = 24 h
	IdleTimeout    time.Duration // a transfer in which no byte moves for so long is cut; 0 = 2 min
	ShutdownGrace  time.Duration // how long a stopping server waits for requests under way; 0 = 10 s
	Now            func() time.Time
}

// Store is a server's state. It is safe for concurrent use.
type Store struct {
	opts    Options
	log     *zap.Logger
	now     func() time.Time
	base    *url.URL // PublicURL, nil when requests tell
	keys    keyring
	signer  signer
	ids     idMaker
	write   *sql.DB // one connection: SQLite has one writer anyway
	read    *sql.DB
	lock    *os.File
	content contentDir
	handler http.Handler
	stats   counters
	flights flights

	stop    context.CancelFunc // ends the reaper
	running sync.WaitGroup
	close   func() error
}

// Open opens or makes the data directory, clears what a crash left there, and
// starts the work in the background; ctx bounds only the opening. It fails
// when another process has the directory, when an option cannot work, or when
// the directory is of a newer version. Close it.
func Open(ctx context.Context, opts Options) (_ *Store, err error) {
	if opts, err = opts.withDefaults(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open data directory %s: %w", opts.DataDir, err)
		}
	}()
	s := &Store{opts: opts, log: opts.Log, now: opts.Now}
	s.flights.ids = map[string]int{}
	if s.keys, err = newKeyring(opts.Keys); err != nil {
		return nil, err
	}
	if opts.PublicURL != "" {
		if s.base, err = parsePublicURL(opts.PublicURL); err != nil {
			return nil, err
		}
	}
	s.close = sync.OnceValue(s.closeAll)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := os.MkdirAll(opts.DataDir, 0o700); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(opts.DataDir); err != nil {
		return nil, err
	}
	secret, err := keepSecret(filepath.Join(opts.DataDir, urlSecretFile), newURLSecret)
	if err != nil {
		return nil, err
	}
	if s.signer, err = newSigner(secret); err != nil {
		return nil, fmt.Errorf("%s: %w", urlSecretFile, err)
	}
	if s.write, s.read, err = openDB(ctx, filepath.Join(opts.DataDir, "objects.db")); err != nil {
		return nil, err
	}
	if err := s.ids.startAfter(ctx, s.read); err != nil {
		return nil, err
	}
	if s.content, err = openContent(opts.DataDir); err != nil {
		return nil, err
	}
	if err := s.sweep(ctx); err != nil {
		return nil, err
	}
	s.handler = s.routes()
	bg, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.running.Go(func() { s.reap(bg) })
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.DataDir == "" {
		return o, errors.New("no data directory given")
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return o, err
	}
	o.DataDir = dir
	if o.MaxObjectSize < 0 || o.URLMaxDuration < 0 || o.UploadDuration < 0 || o.IdleTimeout < 0 || o.ShutdownGrace < 0 {
		return o, errors.New("a negative limit cannot be kept")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{
		{&o.URLMaxDuration, 7 * 24 * time.Hour},
		{&o.UploadDuration, 24 * time.Hour},
		{&o.IdleTimeout, 2 * time.Minute},
		{&o.ShutdownGrace, 10 * time.Second},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	return o, nil
}

// parsePublicURL checks the address that signed URLs will begin with.
func parsePublicURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" ||
		u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the public URL must be http:// or https:// with a host, and without user, query or fragment")
	}
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/"), ""
	return u, nil
}

// lockDir takes the data directory for this process. The kernel gives the
// lock back when the process ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another process is serving it: stop that one, or choose another directory")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	return f, nil
}

// Close ends the work in the background and gives the data directory back.
// Stop serving first: a request that comes later fails.
func (s *Store) Close() error { return s.close() }

func (s *Store) closeAll() error {
	if s.stop != nil {
		s.stop()
		s.running.Wait()
	}
	var errs []error
	// The writer goes last: closing the last connection folds the log into
	// the database.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Handler gives the whole API, signed URLs included, as one handler, for a
// server of the caller's. Such a server should speak HTTP/1.1 and HTTP/2 with
// prior knowledge, as Serve does.
func (s *Store) Handler() http.Handler { return s.handler }

// flights counts the uploads under way of each object, so that the reaper
// does not give up on an object whose bytes are still coming.
type flights struct {
	mu  sync.Mutex // guards ids
	ids map[string]int
}

func (f *flights) begin(id string) (end func()) {
	f.mu.Lock()
	f.ids[id]++
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.ids[id]--; f.ids[id] == 0 {
			delete(f.ids, id)
		}
	}
}

func (f *flights) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ids[id] > 0
}
