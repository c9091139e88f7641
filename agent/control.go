package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// The running agent answers at a socket in its run directory. It speaks HTTP,
// so that curl --unix-socket can ask it too:
//
//	GET /v1/status    a Status as JSON
//
// The socket is closed to other users by its mode, and besides every caller's
// uid is asked from the kernel: only root and the agent's own user are heard.

const (
	socketName   = "agent.sock"
	lockName     = "agent.lock"
	queryTimeout = 10 * time.Second
	maxAnswer    = 64 << 20 // bytes of a status; 10,000 mounts with long errors
)

// ErrNotRunning: no agent answers at the control socket.
var ErrNotRunning = errors.New("the agent is not running")

// ErrRunning: another agent uses the same directories.
var ErrRunning = errors.New("another agent is running")

// control is the socket of a running agent.
type control struct {
	locks []*os.File
	dir   *os.File
	l     net.Listener
	srv   *http.Server
	done  chan struct{} // nil until answer is called
}

// listen takes the run and state directories for this agent alone. Who asks
// is answered from the call of answer on, and waits until then.
func (a *Agent) listen() (_ *control, err error) {
	c := &control{}
	defer func() {
		if err != nil {
			c.unlock()
		}
	}()
	for dir, mode := range map[string]fs.FileMode{a.cfg.StateDir: 0o700, a.cfg.RunDir: 0o755} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, err
		}
		f, err := tryLock(filepath.Join(dir, lockName))
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w with the directory %s", ErrRunning, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("take the directory %s: %w", dir, err)
		}
		c.locks = append(c.locks, f)
	}
	l, err := c.bind(a.cfg.RunDir)
	if err != nil {
		return nil, fmt.Errorf("make the control socket in %s: %w", a.cfg.RunDir, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Status()) // who hung up is not told
	})
	c.srv = newControlServer(mux, a.log)
	c.l = l
	return c, nil
}

func newControlServer(h http.Handler, log *zap.Logger) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: queryTimeout, ReadTimeout: queryTimeout,
		WriteTimeout: queryTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: 8 << 10, ErrorLog: zap.NewStdLog(log)}
}

// answer begins to answer. It is called when there is something true to say:
// an agent that has not read its spec yet would look like one with nothing to
// do.
func (c *control) answer() {
	c.done = make(chan struct{})
	go func() {
		defer close(c.done)
		_ = c.srv.Serve(c.l) // always ErrServerClosed, by close
	}()
}

// bind makes the socket; one that a dead agent left is replaced. (That it is
// dead, the lock has shown.)
func (c *control) bind(dir string) (net.Listener, error) {
	var err error
	if c.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	return bindSocket(c.dir, socketName)
}

// bindSocket makes a socket in place of what has its name. It gets its mode
// before it gets its name, so that it is never open to others.
func bindSocket(dir *os.File, name string) (net.Listener, error) {
	tmp := short(dir, fmt.Sprintf("%s.%d", name, os.Getpid()))
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // close does it, under the name it has then
	if err = os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, short(dir, name))
	}
	if err != nil {
		l.Close()
		os.Remove(tmp)
		return nil, err
	}
	return checkedListener{l}, nil
}

// short names a file in a directory by its descriptor: a socket's path may
// have 107 bytes at most, and run directories may be deep.
func short(dir *os.File, name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(dir.Fd())), name)
}

func (c *control) close() {
	// Those who are asking just now get their answer.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.srv.Shutdown(ctx) != nil {
		c.srv.Close()
	}
	if c.done != nil {
		<-c.done
	}
	c.l.Close()
	os.Remove(short(c.dir, socketName))
	c.unlock()
}

// unlock gives the directories up. The lock files stay: the next agent may
// have opened one already.
func (c *control) unlock() {
	for _, f := range c.locks {
		f.Close()
	}
	if c.dir != nil {
		c.dir.Close()
	}
}

// checkedListener drops connections of other users.
type checkedListener struct{ *net.UnixListener }

func (l checkedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peer(conn)
		if err == nil && (uid == 0 || uid == uint32(os.Geteuid())) {
			return conn, nil
		}
		conn.Close()
	}
}

// peer is the user at the other end of a connection, by the kernel's word.
func peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// QueryStatus asks the agent of a run directory how it is doing. Where none
// answers the error is ErrNotRunning; where this user may not ask it wraps
// fs.ErrPermission.
func QueryStatus(ctx context.Context, runDir string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	st, err := query(ctx, runDir, socketName)
	if err != nil {
		return Status{}, fmt.Errorf("ask the agent at %s: %w", filepath.Join(runDir, socketName), err)
	}
	return st, nil
}

// query asks for a status at the socket called name in a directory.
func query(ctx context.Context, in, name string) (st Status, err error) {
	dir, err := os.Open(in)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrNotRunning
		}
		return st, err
	}
	defer dir.Close()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", short(dir, name))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/v1/status", nil)
	if err != nil {
		return st, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return st, ErrNotRunning
	case errors.Is(err, fs.ErrPermission):
		return st, fs.ErrPermission
	case err != nil:
		return st, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return st, fmt.Errorf("it answered %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&st); err != nil {
		return Status{}, fmt.Errorf("its answer: %w", err)
	}
	return st, nil
}
