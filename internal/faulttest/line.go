package faulttest

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Line is what the way between a server and its clients is like: far, and of
// so much room for each connection, as the way to a storage service is. The
// zero value is the loopback itself.
type Line struct {
	Latency time.Duration // from the end of a request until its answer begins
	Rate    int64         // bytes per second that each connection carries to the client; 0 = as fast as it goes
}

const (
	// slice is what is written at a time. At 90 MB/s it takes 0.7 ms, which
	// is about what a sleep can be told.
	slice = 64 << 10
	// late is how much time that a sleep or the scheduler took too long is
	// made up for. What is lost beyond it (the client does not read) is lost,
	// or the line would be faster than it is after each pause.
	late = 10 * time.Millisecond
)

// Handler delays each answer of h by the latency.
func (l Line) Handler(h http.Handler) http.Handler {
	if l.Latency <= 0 {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pause(r.Context(), l.Latency)
		h.ServeHTTP(w, r)
	})
}

// Listener paces each connection of inner. A file still goes out by sendfile,
// so a paced server costs hardly more processor time than another.
func (l Line) Listener(inner net.Listener) net.Listener {
	if l.Rate <= 0 {
		return inner
	}
	return &pacedListener{inner, l.Rate}
}

type pacedListener struct {
	net.Listener
	rate int64
}

func (l *pacedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	return &pacedConn{TCPConn: t, rate: l.rate}, nil
}

// pacedConn writes a slice when it is due. It belongs, for writing, to the
// goroutine that serves the connection.
type pacedConn struct {
	*net.TCPConn
	rate int64
	due  time.Time // when the next slice may go
}

// spend waits until the bytes written before have passed, and takes the time
// of n more.
func (c *pacedConn) spend(n int) {
	now := time.Now()
	if earliest := now.Add(-late); c.due.Before(earliest) {
		c.due = earliest
		if n < slice { // the head of an answer after a pause: nothing to make up for
			c.due = now
		}
	}
	if wait := c.due.Sub(now); wait > 0 {
		time.Sleep(wait)
	}
	c.due = c.due.Add(time.Duration(int64(n) * int64(time.Second) / c.rate))
}

// Write is net.Conn's.
func (c *pacedConn) Write(p []byte) (n int, err error) {
	for n < len(p) {
		k := min(slice, len(p)-n)
		c.spend(k)
		m, err := c.TCPConn.Write(p[n : n+k])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadFrom is io.ReaderFrom's. net/http hands it the bodies that are files, as
// an io.LimitedReader, and the kernel's sendfile is told about slices of them.
func (c *pacedConn) ReadFrom(src io.Reader) (n int64, err error) {
	l, ok := src.(*io.LimitedReader)
	if !ok {
		return io.CopyBuffer(onlyWriter{c}, onlyReader{src}, make([]byte, slice))
	}
	if _, file := l.R.(*os.File); !file {
		return io.CopyBuffer(onlyWriter{c}, onlyReader{src}, make([]byte, slice))
	}
	for l.N > 0 {
		part := &io.LimitedReader{R: l.R, N: min(slice, l.N)}
		c.spend(int(part.N))
		m, err := c.TCPConn.ReadFrom(part)
		n, l.N = n+m, l.N-m
		if err != nil || m == 0 {
			return n, err
		}
	}
	return n, nil
}

// They hide ReadFrom and WriteTo, by which io.Copy would not come here again.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
