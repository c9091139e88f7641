package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/store"
)

// key is the store's API key: it guards nothing but figures.
const key = "bench-lazy"

// counts are what the far store has answered since they were last reset.
type counts struct {
	Calls   int64 `json:"calls"`   // of the API
	Ranges  int64 `json:"ranges"`  // requests for content
	Bytes   int64 `json:"bytes"`   // of content
	FirstNS int64 `json:"firstNS"` // when the first byte of content left, Unix nanoseconds
}

// counter counts what an inner handler answers.
type counter struct {
	inner http.Handler
	mu    sync.Mutex
	n     counts
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content := strings.HasPrefix(r.URL.Path, "/v1/content/")
	c.mu.Lock()
	if content {
		c.n.Ranges++
	} else {
		c.n.Calls++
	}
	c.mu.Unlock()
	if !content {
		c.inner.ServeHTTP(w, r)
		return
	}
	c.inner.ServeHTTP(&counted{ResponseWriter: w, c: c}, r)
}

// counted counts the content that passes through it. It leaves sendfile to the
// connection, so that to be counted costs the store no processor time.
type counted struct {
	http.ResponseWriter
	c *counter
}

func (w *counted) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *counted) Write(p []byte) (int, error) {
	w.begin()
	n, err := w.ResponseWriter.Write(p)
	w.sent(int64(n))
	return n, err
}

func (w *counted) ReadFrom(r io.Reader) (int64, error) {
	w.begin()
	n, err := io.Copy(w.ResponseWriter, r)
	w.sent(n)
	return n, err
}

func (w *counted) begin() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.c.n.FirstNS == 0 {
		w.c.n.FirstNS = time.Now().UnixNano()
	}
}

func (w *counted) sent(n int64) {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.n.Bytes += n
}

// take gives the counts and begins anew.
func (c *counter) take() counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.n
	c.n = counts{}
	return n
}

// serve is the store's process. It listens twice: far away, where it counts,
// and on the loopback as it is. It says on stdout where, answers every line of
// stdin with the counts, and ends with its stdin.
func serve(args []string) error {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	dir := f.String("dir", "", "data directory")
	var line faulttest.Line
	f.DurationVar(&line.Latency, "latency", 0, "time until an answer")
	f.Int64Var(&line.Rate, "rate", 0, "bytes per second of each connection")
	f.Parse(args)
	ctx := context.Background()
	st, err := store.Open(ctx, store.Options{DataDir: *dir, Keys: []store.Account{{Name: "bench", Key: key}}})
	if err != nil {
		return err
	}
	defer st.Close()
	far, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	near, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c := &counter{inner: st.Handler()}
	var ending atomic.Bool
	servers := []*http.Server{{Handler: line.Handler(c)}, {Handler: st.Handler()}}
	failed := make(chan error, 2)
	go func() { failed <- servers[0].Serve(line.Listener(far)) }()
	go func() { failed <- servers[1].Serve(near) }()
	fmt.Printf("http://%s http://%s\n", far.Addr(), near.Addr())
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			json.NewEncoder(os.Stdout).Encode(c.take())
		}
		ending.Store(true)
		for _, s := range servers {
			s.Close()
		}
	}()
	if err := <-failed; !ending.Load() {
		return err
	}
	return nil
}

// server is a running one.
type server struct {
	far, near string // URLs
	stdin     io.WriteCloser
	stdout    *bufio.Reader
	cmd       *exec.Cmd
}

func startServer(ctx context.Context, dir string, line faulttest.Line) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "serve", "-dir", dir, "-latency", line.Latency.String(), "-rate", fmt.Sprint(line.Rate))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{stdin: stdin, stdout: bufio.NewReader(stdout), cmd: cmd}
	where, err := s.stdout.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(where, &s.far, &s.near)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("the store ended: %w", err)
	}
	return s, nil
}

// counts gives what was answered far away since the last call.
func (s *server) counts() (n counts, err error) {
	if _, err = io.WriteString(s.stdin, "\n"); err != nil {
		return n, err
	}
	text, err := s.stdout.ReadBytes('\n')
	if err != nil {
		return n, err
	}
	return n, json.Unmarshal(text, &n)
}

// stop ends the server and waits for it.
func (s *server) stop() {
	s.stdin.Close()
	kill := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	s.cmd.Wait()
}
