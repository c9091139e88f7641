package faulttest

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// BreakKind is one way in which a connection goes wrong below HTTP.
type BreakKind string

// The breaks. "After" is Break.After, a number of bytes on their way to the
// client, heads of answers included. What goes to the server is left alone.
const (
	Whole     BreakKind = "whole"      // nothing goes wrong
	Refuse    BreakKind = "refuse"     // RST instead of a connection
	CutOff    BreakKind = "cut"        // closed after After bytes, in good order
	ResetOff  BreakKind = "reset"      // RST after After bytes; what is in flight is lost
	StallOff  BreakKind = "stall"      // nothing after After bytes, and the connection stays open
	Delay     BreakKind = "delay"      // after After bytes, one pause of Wait
	Tiny      BreakKind = "tiny"       // after After bytes, the next 2 KiB in writes of few bytes
	HalfClose BreakKind = "half-close" // after After bytes the client sees the end, and may go on sending
)

// Breaks are all kinds of them but Whole.
var Breaks = []BreakKind{Refuse, CutOff, ResetOff, StallOff, Delay, Tiny, HalfClose}

// Break is what happens to one connection.
type Break struct {
	Kind  BreakKind
	After int64
	Wait  time.Duration
}

// String gives what a failing test prints.
func (b Break) String() string {
	if b.Kind == Whole {
		return string(b.Kind)
	}
	return fmt.Sprintf("%s@%d", b.Kind, b.After)
}

// Plan says what happens to the n-th connection (from 0). As a Schedule, it
// must give the same answer for the same n.
type Plan func(n int) Break

// EachConnection is the plan of one break for every connection.
func EachConnection(b Break) Plan { return func(int) Break { return b } }

// RandomBreaks is a plan in which each connection breaks with probability
// rate, after up to size bytes, half of them near their beginning. One seed is
// always the same plan.
func RandomBreaks(seed uint64, rate float64, size int64) Plan {
	return func(n int) Break {
		r := rand.New(rand.NewPCG(seed, uint64(n)|1<<63))
		if r.Float64() >= rate {
			return Break{Kind: Whole}
		}
		b := Break{Kind: Breaks[r.IntN(len(Breaks))], After: r.Int64N(size + 1), Wait: time.Millisecond * time.Duration(r.IntN(20))}
		if r.IntN(2) == 0 {
			b.After = r.Int64N(min(size, 1000) + 1) // within the head of an answer, often
		}
		return b
	}
}

// Proxy passes TCP connections on to a server, and breaks them by plan. It
// knows nothing of what goes through, so it can stand in front of any server.
// It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	plan     Plan
	n        atomic.Int64
	down     atomic.Int64
	wg       sync.WaitGroup

	mu     sync.Mutex // guards what follows
	open   map[net.Conn]struct{}
	closed bool
	log    []Break
}

// NewProxy starts a proxy on a free port of the loopback. target is the
// server's host and port; a nil plan breaks nothing.
func NewProxy(target string, plan Plan) (*Proxy, error) {
	if plan == nil {
		plan = EachConnection(Break{Kind: Whole})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{listener: l, target: target, plan: plan, open: map[net.Conn]struct{}{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the host and port where the proxy listens.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Connections is how many there have been.
func (p *Proxy) Connections() int { return int(p.n.Load()) }

// Down is how many bytes have gone to clients, in all connections.
func (p *Proxy) Down() int64 { return p.down.Load() }

// String lists the breaks so far, in order, for a failing test to print.
func (p *Proxy) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for n, br := range p.log {
		fmt.Fprintf(&b, " %d:%s", n, br)
	}
	return b.String()
}

// Close ends all connections, the stalled ones too, and waits for them.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		n := int(p.n.Add(1) - 1)
		b := p.plan(n)
		p.mu.Lock()
		p.log = append(p.log, b)
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(c.(*net.TCPConn), b) })
	}
}

// keep remembers a connection, so that Close can end it. It is false when the
// proxy is closed.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return false
	}
	p.open[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
}

// serve passes one connection on, until it breaks or ends.
func (p *Proxy) serve(client *net.TCPConn, b Break) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	if b.Kind == Refuse {
		reset(client)
		return
	}
	c, err := net.DialTimeout("tcp", p.target, 10*time.Second)
	if err != nil {
		reset(client) // as if the server itself had refused
		return
	}
	server := c.(*net.TCPConn)
	if !p.keep(server) {
		return
	}
	defer p.drop(server)

	up := make(chan struct{})
	go func() {
		defer close(up)
		io.Copy(server, client)
		server.CloseWrite()
	}()
	switch err := p.pass(client, server, b); {
	case err == errStalled:
		<-up // until the client has had enough
	case err == errHalf:
		client.CloseWrite()
		io.Copy(io.Discard, server)
	case err == errReset:
		reset(client)
	case err == nil:
		client.CloseWrite() // the server has ended it: so do we, in its way
		<-up
	}
	client.Close()
	server.Close()
	<-up
}

// What pass ended with, if not with the end of the connection.
var (
	errStalled = errors.New("stalled")
	errHalf    = errors.New("half closed")
	errReset   = errors.New("reset")
	errCut     = errors.New("cut")
)

// pass carries what the server sends, and gives what breaks it.
func (p *Proxy) pass(client, server *net.TCPConn, b Break) error {
	buf := make([]byte, 64<<10)
	var sent int64
	for broken := b.Kind == Whole; ; {
		room := int64(len(buf))
		if !broken {
			room = min(room, b.After-sent)
		}
		if room == 0 {
			broken = true
			if err := p.broke(client, server, b); err != nil {
				return err
			}
			continue
		}
		n, err := server.Read(buf[:room])
		if n > 0 {
			m, werr := client.Write(buf[:n])
			sent += int64(m)
			p.down.Add(int64(m))
			if werr != nil {
				return errCut
			}
		}
		if err != nil {
			return nil
		}
	}
}

// broke does what the break says when its time has come.
func (p *Proxy) broke(client, server *net.TCPConn, b Break) error {
	switch b.Kind {
	case CutOff:
		return errCut
	case ResetOff:
		return errReset
	case StallOff:
		return errStalled
	case HalfClose:
		return errHalf
	case Delay:
		time.Sleep(b.Wait)
	case Tiny:
		piece := make([]byte, 7)
		for left := 2 << 10; left > 0; {
			n, err := server.Read(piece)
			if n > 0 {
				m, werr := client.Write(piece[:n]) // TCP_NODELAY: each write is a segment
				p.down.Add(int64(m))
				if werr != nil {
					return errCut
				}
			}
			if left -= n; err != nil {
				return errCut
			}
		}
	}
	return nil
}
