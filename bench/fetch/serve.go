package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"objectmount/internal/faulttest"
)

// serve is the server's process: the files of a directory, by ranges, over a
// line. It says on stdout where it listens, and ends with its stdin.
func serve(args []string) error {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	dir := f.String("dir", "", "directory")
	var line faulttest.Line
	f.DurationVar(&line.Latency, "latency", 0, "time until an answer")
	f.Int64Var(&line.Rate, "rate", 0, "bytes per second of each connection")
	f.Parse(args)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("http://" + l.Addr().String())
	s := &http.Server{Handler: line.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, err := os.Open(filepath.Join(*dir, filepath.Base(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer file.Close() // each request has its own: sendfile moves its offset
		info, err := file.Stat()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", strconv.Quote(strconv.FormatInt(info.ModTime().UnixNano(), 36)))
		http.ServeContent(w, r, "", info.ModTime(), file)
	}))}
	go func() {
		io.Copy(io.Discard, os.Stdin)
		s.Close()
	}()
	if err := s.Serve(line.Listener(l)); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// server is a running one.
type server struct {
	url   string
	stdin io.Closer
	cmd   *exec.Cmd
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
	s := &server{stdin: stdin, cmd: cmd}
	if s.url, err = bufio.NewReader(stdout).ReadString('\n'); err != nil {
		s.stop()
		return nil, fmt.Errorf("the server ended: %w", err)
	}
	s.url = strings.TrimSpace(s.url)
	return s, nil
}

// stop ends the server and waits for it.
func (s *server) stop() {
	s.stdin.Close()
	kill := time.AfterFunc(5*time.Second, func() { s.cmd.Process.Kill() })
	defer kill.Stop()
	s.cmd.Wait()
}
