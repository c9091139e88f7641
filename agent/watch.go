package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// A spec is watched by its directories, not by its files: an editor writes a
// new file and renames it over the old one, which a watch on the old file
// would not see. What an event says is not looked at; any event means that
// the spec should be read, and whoever reads it compares it with what he had.
//
// Some changes give no event at all (a file system of another machine, a bind
// mount over the file), so the spec is read now and then anyway.

const (
	pollEvery  = 30 * time.Second // with events
	pollNoFS   = time.Second      // without: the kernel has no watches left
	mostDelays = 5                // events that do not end delay the reading by so many debounce times
)

type specWatch struct {
	path     string
	debounce time.Duration
	changed  chan<- struct{} // has room for one
	log      *zap.Logger
	watched  map[string]bool
}

// start watches until ctx ends; then the channel it returns is closed. The
// watches stand when it returns.
func (w *specWatch) start(ctx context.Context) (done <-chan struct{}) {
	ended := make(chan struct{})
	fsw, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("the spec cannot be watched: reading it every second", zap.String("error", err.Error()))
		go func() {
			defer close(ended)
			w.poll(ctx)
		}()
		return ended
	}
	w.watched = map[string]bool{}
	w.rewatch(fsw)
	go func() {
		defer close(ended)
		defer fsw.Close()
		w.run(ctx, fsw)
	}()
	return ended
}

func (w *specWatch) poll(ctx context.Context) {
	tick := time.NewTicker(pollNoFS)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.tell()
		}
	}
}

func (w *specWatch) run(ctx context.Context, fsw *fsnotify.Watcher) {
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	defer quiet.Stop()
	slow := time.NewTicker(pollEvery)
	defer slow.Stop()
	var first time.Time // of the events not yet told of; zero: there are none
	event := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		quiet.Reset(min(w.debounce, max(mostDelays*w.debounce-now.Sub(first), 0)))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-fsw.Events:
			if !ok {
				return
			}
			event()
		case err, ok := <-fsw.Errors:
			if !ok {
				return
			}
			// Usually an overflow: some event was lost, so this is one.
			w.log.Warn("watching the spec", zap.String("error", err.Error()))
			event()
		case <-quiet.C:
			first = time.Time{}
			w.rewatch(fsw) // before the reading: what comes after it is seen
			w.tell()
		case <-slow.C:
			w.rewatch(fsw)
			w.tell()
		}
	}
}

func (w *specWatch) tell() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// rewatch makes the watched directories those that matter now. While it looks
// one may appear that was missing, so it looks until nothing changes.
func (w *specWatch) rewatch(fsw *fsnotify.Watcher) {
	for range 10 {
		dirs, same := w.dirs(), true
		for dir := range dirs {
			// Again even if it was watched: it may be another directory of
			// the same name by now. For the same one this does nothing.
			if err := fsw.Add(dir); err != nil {
				delete(dirs, dir)
				if !errors.Is(err, fs.ErrNotExist) {
					w.log.Warn("directory of the spec cannot be watched", zap.String("dir", dir), zap.String("error", err.Error()))
				}
				continue
			}
			same = same && w.watched[dir]
		}
		for dir := range w.watched {
			if !dirs[dir] {
				_ = fsw.Remove(dir) // it may be gone, and its watch with it
				same = false
			}
		}
		w.watched = dirs
		if same {
			return
		}
	}
}

// dirs lists the directories in which a change can be one of the spec: those
// of its files, those their symbolic links lead to, and, for one that is not
// there, the nearest that is.
func (w *specWatch) dirs() map[string]bool {
	dirs := map[string]bool{}
	add := func(dir string) {
		for !isDir(dir) && dir != "/" {
			dir = filepath.Dir(dir)
		}
		dirs[dir] = true
	}
	addFile := func(name string) {
		add(filepath.Dir(name))
		if real, err := filepath.EvalSymlinks(name); err == nil && real != name {
			add(filepath.Dir(real))
		}
	}
	dropIns := w.path
	if !isDir(w.path) {
		addFile(w.path)
		dropIns = dropInDir(w.path)
	} else {
		addFile(w.path) // it may be removed
	}
	if !isDir(dropIns) {
		add(dropIns)
		return dirs
	}
	addFile(dropIns)
	add(dropIns)
	entries, _ := os.ReadDir(dropIns)
	for i, e := range entries {
		if e.Type()&fs.ModeSymlink != 0 && i < maxSpecFiles {
			addFile(filepath.Join(dropIns, e.Name()))
		}
	}
	return dirs
}

func isDir(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
