package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A lazy mount that was made by hand is served by a process of its own, which
// alone knows how it does. So that process answers at a socket of its own, as
// the daemon does at its: <run>/served/<path's receipt id>.sock, with a Status
// that has this one mount. The socket of a process that was killed stays, and
// refuses whoever asks; the next one, or unmount, takes it away.

const (
	servedDir = "served"
	// askTimeout is short: status asks many, and one may be stopped.
	askTimeout = 2 * time.Second
	askAtOnce  = 16
)

func (a *Agent) servedSocket(path string) (dir, name string) {
	return filepath.Join(a.cfg.RunDir, servedDir), receiptID(path)[:16] + ".sock"
}

// forgetSocket removes the socket of a mount that was taken down.
func (a *Agent) forgetSocket(path string) {
	_ = os.Remove(filepath.Join(a.servedSocket(path)))
}

// answering is a socket at which a mount's status can be had.
type answering struct {
	name string
	file fs.FileInfo // nil if it is not known
	srv  *http.Server
	done chan struct{}
}

// answer begins to answer for a mount. Without it the mount works as well.
func (s *server) answer() {
	a := s.a
	l, err := a.listenServed(s.path)
	if err != nil {
		a.log.Debug("nobody can ask how the mount does", zap.String("path", s.path), zap.String("error", errorText(err)))
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.servedStatus(r.Context(), s.path)) // who hung up is not told
	})
	ans := &answering{name: filepath.Join(a.servedSocket(s.path)), srv: newControlServer(mux, a.log), done: make(chan struct{})}
	ans.file, _ = os.Lstat(ans.name)
	go func() {
		defer close(ans.done)
		_ = ans.srv.Serve(l) // always ErrServerClosed, by Close
	}()
	s.listener = ans
}

func (a *Agent) listenServed(path string) (net.Listener, error) {
	dir, name := a.servedSocket(path)
	if err := os.MkdirAll(a.cfg.RunDir, 0o755); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return bindSocket(d, name)
}

// Close stops answering.
func (ans *answering) Close() error {
	err := ans.srv.Close()
	<-ans.done
	// Another process may serve the path by now.
	if now, e := os.Lstat(ans.name); e == nil && ans.file != nil && os.SameFile(now, ans.file) {
		_ = os.Remove(ans.name)
	}
	return err
}

// servedStatus is the status of one mount that this process serves.
func (a *Agent) servedStatus(ctx context.Context, path string) Status {
	st := Status{Version: a.cfg.Version, PID: os.Getpid(), Started: a.started, Items: []ItemStatus{}, Ready: true}
	if rc, err := a.receipts.load(path); err == nil && rc != nil && a.server(path) != nil {
		it := rc.status()
		a.tellLazy(ctx, &it)
		st.Items = append(st.Items, it)
	}
	return st
}

// tellAllLazy adds to the items of lazy mounts what those who serve them know.
func (a *Agent) tellAllLazy(items []ItemStatus) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	var all sync.WaitGroup
	turn := make(chan struct{}, askAtOnce)
	for i := range items {
		if items[i].Lazy == nil {
			continue
		}
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			a.tellLazy(ctx, &items[i])
		})
	}
	all.Wait()
}

// askServer asks the process that serves a mount how it does.
func (a *Agent) askServer(ctx context.Context, it *ItemStatus) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	dir, name := a.servedSocket(it.Path)
	st, err := query(ctx, dir, name)
	switch {
	case errors.Is(err, ErrNotRunning), errors.Is(err, fs.ErrPermission):
		return // of an older version, or another user's
	case err != nil || len(st.Items) != 1 || st.Items[0].Path != it.Path || st.Items[0].Lazy == nil:
		if it.Note == "" {
			it.Note = "the process that serves it does not say how it does"
		}
		return
	}
	now := st.Items[0]
	it.Lazy, it.Entries, it.Note, it.Phase = now.Lazy, now.Entries, now.Note, now.Phase
	it.Lazy.ServerPID = st.PID
	if now.State == StateFailed {
		it.State, it.Error, it.Hint = now.State, now.Error, now.Hint
	} else if it.Hint == "" {
		it.Hint = now.Hint
	}
}
