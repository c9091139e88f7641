package objects

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBandwidth: all readings of a network together get so many bytes per
// second, and waiting for them is not taken for a slow server.
func TestBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, rate = 8 << 20, 10 << 10 // less than the floor of 16 KiB/s
		rt := roundTripper(func(r *http.Request) (*http.Response, error) {
			var first, last int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
			last = min(last, size-1)
			return answerOf(206, strings.NewReader(strings.Repeat("x", last+1-first)), "ETag", `"v"`,
				"Content-Length", strconv.Itoa(last+1-first),
				"Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size)), nil
		})
		n := NewNetwork(Limits{Bandwidth: rate})
		begin := time.Now()
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				r, err := Open(t.Context(), FixedURL("http://h/p"), ReaderOptions{Transport: rt, Network: n})
				if err != nil {
					t.Error(err)
					return
				}
				s, err := r.Stream(t.Context(), 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				if n, err := io.Copy(io.Discard, s); n != size || err != nil {
					t.Error(n, err)
				}
			})
		}
		wg.Wait()
		want := 2 * size / rate * time.Second
		if d := time.Since(begin); d < want*98/100 || d > want*102/100 {
			t.Errorf("it took %s, want %s", d, want)
		}
	})
}

// TestGate: so many pass at a time, in order, single reads first, each host
// for itself; who gives up leaves no trace.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{limit: 2}
		ctx := t.Context()
		leave1, _ := g.pass(ctx, "a", false)
		leave2, _ := g.pass(ctx, "a", false)
		if leave, err := g.pass(ctx, "b", false); err != nil {
			t.Error(err)
		} else {
			leave()
		}
		var mu sync.Mutex // guards got
		var got []string
		note := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, what)
		}
		enter := func(ctx context.Context, who string, urgent bool) {
			go func() {
				leave, err := g.pass(ctx, "a", urgent)
				if err != nil {
					note(who + " gave up")
					return
				}
				note(who)
				time.Sleep(time.Minute)
				leave()
				leave() // twice is once
			}()
			synctest.Wait()
		}
		enter(ctx, "first", false)
		enter(ctx, "second", false)
		enter(ctx, "urgent", true)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		enter(short, "impatient", false)
		mu.Lock()
		if len(got) != 0 {
			t.Errorf("%v passed", got)
		}
		mu.Unlock()
		time.Sleep(2 * time.Second)
		leave1()
		time.Sleep(time.Hour)
		leave2()
		time.Sleep(time.Hour)
		mu.Lock()
		defer mu.Unlock()
		if want := "[impatient gave up urgent first second]"; fmt.Sprint(got) != want {
			t.Errorf("%v, want %s", got, want)
		}
		if len(g.hosts) != 0 {
			t.Errorf("%d hosts are remembered", len(g.hosts))
		}
	})
}

// TestMemory: never more than the budget but for the chunk that a reader
// waits for; the least ahead first; and all of it comes back.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{budget: 3}
		w := newWindow(m, 0, 100*chunkSize)
		m.widen(w, 100*chunkSize)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		var got []int64
		take := func(i int64) {
			go func() {
				if _, err := m.take(ctx, w, i*chunkSize); err == nil {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, i)
				}
			}()
			synctest.Wait()
		}
		w.pos.Store(-1) // nothing is waited for yet
		for _, i := range []int64{5, 4, 3, 9, 8, 7, 1} {
			take(i)
		}
		if fmt.Sprint(got) != "[5 4 3]" {
			t.Errorf("%v have a chunk", got)
		}
		m.give(w, make([]byte, chunkSize))
		synctest.Wait()
		if fmt.Sprint(got) != "[5 4 3 1]" {
			t.Errorf("%v have a chunk", got)
		}
		w.pos.Store(7 * chunkSize) // its reader waits for this one
		m.moved()
		synctest.Wait()
		if fmt.Sprint(got) != "[5 4 3 1 7]" || m.out != 4 {
			t.Errorf("%v have a chunk, %d are out", got, m.out)
		}
		cancel()
		synctest.Wait()
		for range 4 {
			m.give(w, make([]byte, chunkSize))
		}
		w.close()
		if m.out != 0 || m.users != 0 || w.holding != 0 || len(m.waiting) != 0 {
			t.Errorf("%d out, %d users, %d held, %d waiting", m.out, m.users, w.holding, len(m.waiting))
		}
	})
}

// TestSpans holds spans against a map of bytes.
func TestSpans(t *testing.T) {
	const size = 64
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var s spans
		var has [size]bool
		for range r.IntN(20) {
			off := r.Int64N(size)
			end := off + r.Int64N(min(size-off, 9)+1)
			s = s.add(off, end)
			for i := off; i < end; i++ {
				has[i] = true
			}
		}
		var was [size]bool
		last := int64(-1)
		for _, x := range s {
			if x[0] <= last || x[1] <= x[0] {
				t.Fatalf("%v is not in order", s)
			}
			last = x[1]
			for i := x[0]; i < x[1]; i++ {
				was[i] = true
			}
		}
		if was != has {
			t.Fatalf("%v has the wrong bytes", s)
		}
		total, front := int64(0), int64(0)
		for i, h := range has {
			if h {
				total++
			}
			if h && front == int64(i) {
				front++
			}
		}
		if s.total() != total || s.front() != front || s.gaps(size).total() != size-total {
			t.Fatalf("%v: total %d, front %d, gaps %v", s, s.total(), s.front(), s.gaps(size))
		}
		half := s.clip(size / 2)
		if half.total()+s.gaps(size/2).total() != size/2 {
			t.Fatalf("%v cut in half is %v", s, half)
		}
		b, err := json.Marshal(s)
		var back spans
		if err != nil || json.Unmarshal(b, &back) != nil || fmt.Sprint(back) != fmt.Sprint(s) {
			t.Fatalf("%s, %v", b, err)
		}
	}
	for _, bad := range []spans{{{5, 5}}, {{5, 3}}, {{-1, 3}}, {{0, 3}, {3, 5}}, {{4, 6}, {1, 2}}} {
		if got := bad.clip(100); got != nil {
			t.Errorf("%v was taken as %v", bad, got)
		}
	}
}
