package faulttest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
)

// talker is a server that sends data to whoever asks, and counts what it was
// sent after the first byte.
func talker(t *testing.T, data []byte) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Read(make([]byte, 1))
				c.Write(data)
			}()
		}
	}()
	return l.Addr().String()
}

// TestProxy: each break is what it says, and bytes before it are right.
func TestProxy(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	target := talker(t, data)
	for _, c := range []struct {
		b    Break
		n    int // bytes that come; -1: cannot be said, for a reset overtakes them
		want error
	}{
		{Break{Kind: Whole}, len(data), nil},
		{Break{Kind: Refuse}, 0, syscall.ECONNRESET},
		{Break{Kind: CutOff, After: 1000}, 1000, nil},
		{Break{Kind: CutOff, After: 0}, 0, nil},
		{Break{Kind: CutOff, After: 100_000_000}, len(data), nil},
		{Break{Kind: ResetOff, After: 1000}, -1, syscall.ECONNRESET},
		{Break{Kind: StallOff, After: 1000}, 1000, errTimeout},
		{Break{Kind: Delay, After: 1000, Wait: time.Millisecond}, len(data), nil},
		{Break{Kind: Tiny, After: 1000}, len(data), nil},
		{Break{Kind: HalfClose, After: 1000}, 1000, nil},
	} {
		p, err := NewProxy(target, EachConnection(c.b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(p.Addr(), c.b.Kind == StallOff)
		if !errors.Is(err, c.want) || c.n >= 0 && len(got) != c.n || !bytes.HasPrefix(data, got) {
			t.Errorf("%s: %d bytes, %v", c.b, len(got), err)
		}
		if p.Connections() != 1 || int(p.Down()) < len(got) || !strings.HasPrefix(p.String(), " 0:"+string(c.b.Kind)) {
			t.Errorf("%s: %d connections, %d bytes,%s", c.b, p.Connections(), p.Down(), p)
		}
		p.Close()
	}
}

var errTimeout = errors.New("nothing came")

// ask gets what the talker says. Where a stall is expected, silence for a
// while is taken for one.
func ask(addr string, stalls bool) ([]byte, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		return nil, err
	}
	if stalls {
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	}
	got, err := io.ReadAll(c)
	if e := net.Error(nil); errors.As(err, &e) && e.Timeout() {
		err = errTimeout
	}
	return got, err
}

// TestProxyEnds: Close ends what stalls, and a server that is gone looks gone.
func TestProxyEnds(t *testing.T) {
	p, err := NewProxy(talker(t, []byte("data")), EachConnection(Break{Kind: StallOff}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := ask(p.Addr(), false)
		ended <- err
	}()
	for p.Connections() == 0 {
		time.Sleep(time.Millisecond)
	}
	p.Close()
	<-ended

	nobody, err := NewProxy("127.0.0.1:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	if got, err := ask(nobody.Addr(), false); err == nil || len(got) != 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestRandomBreaksReplay: a seed is a plan, in whatever order it is asked.
func TestRandomBreaksReplay(t *testing.T) {
	a, b, c := RandomBreaks(1, 0.5, 1000), RandomBreaks(1, 0.5, 1000), RandomBreaks(2, 0.5, 1000)
	differ, seen := 0, map[BreakKind]int{}
	for n := range 1000 {
		if a(n) != b(n) {
			t.Fatalf("connection %d differs", n)
		}
		if a(n) != c(n) {
			differ++
		}
		seen[a(n).Kind]++
	}
	if differ < 300 || seen[Whole] < 400 || seen[Whole] > 600 || len(seen) != len(Breaks)+1 {
		t.Errorf("%d of 1000 differ between seeds; %v", differ, seen)
	}
}
