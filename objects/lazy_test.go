package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// counting is a Minter that counts.
type counting struct {
	objects.Minter
	n atomic.Int64
}

func (m *counting) Mint(ctx context.Context) (objects.SignedURL, error) {
	m.n.Add(1)
	return m.Minter.Mint(ctx)
}

// TestOneRoundTrip: the first byte of a cold range costs one request, besides
// the minting of the URL, and so does each later one.
func TestOneRoundTrip(t *testing.T) {
	data := content(3 << 20)
	size := int64(len(data))
	id := objects.Identity{ETag: `"v1"`, Size: size}
	for _, c := range []struct {
		name  string
		opts  objects.ReaderOptions
		match string // If-Match of the first request
	}{
		{"its size is known from the API", objects.ReaderOptions{Size: &size, Lazy: true}, ""},
		{"its identity is known from an index", objects.ReaderOptions{Identity: &id, Lazy: true}, `"v1"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
			defer s.Close()
			m := &counting{Minter: signer(s)}
			c.opts.HedgeAfter = -1 // a busy machine is no stalled server
			r, err := objects.Open(t.Context(), m, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if n := len(s.Requests()); n != 0 || m.n.Load() != 0 || r.Size() != size {
				t.Fatalf("to open it took %d requests and %d URLs, and gave size %d", n, m.n.Load(), r.Size())
			}
			p := make([]byte, 128<<10)
			for i, off := range []int64{2 << 20, 0, 1 << 20} {
				if n, err := r.ReadAtContext(t.Context(), p, off); n != len(p) || err != nil || !bytes.Equal(p, data[off:][:n]) {
					t.Fatalf("%d bytes at %d, %v", n, off, err)
				}
				log := s.Requests()
				if len(log) != i+1 || m.n.Load() != 1 {
					t.Fatalf("after %d reads: %d requests, %d URLs", i+1, len(log), m.n.Load())
				}
				last := log[i].Header
				if want := fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1); last.Get("Range") != want {
					t.Errorf("asked for %s, want %s", last.Get("Range"), want)
				}
				want := `"v1"`
				if i == 0 {
					want = c.match
				}
				if last.Get("If-Match") != want {
					t.Errorf("request %d has If-Match %q", i, last.Get("If-Match"))
				}
			}
			if r.Identity() != id {
				t.Errorf("pinned %+v", r.Identity())
			}
			st, err := r.Stream(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data) {
				t.Errorf("streamed %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestLazyPins: whichever answer comes first pins, and all others are held
// against it.
func TestLazyPins(t *testing.T) {
	data := content(3 << 20)
	size, other := int64(len(data)), int64(len(data))+1
	o := faulttest.Object{Data: data, ETag: `"v1"`}
	lazy := func(s *faulttest.Server, opts objects.ReaderOptions) *objects.Reader {
		opts.Lazy, opts.RetryBudget = true, 5*time.Second
		r, err := objects.Open(t.Context(), signer(s), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r
	}
	p := make([]byte, 1000)
	t.Run("many at a time", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		r := lazy(s, objects.ReaderOptions{Size: &size})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				p, off := make([]byte, 5000), int64(i)*100_000
				if _, err := r.ReadAtContext(t.Context(), p, off); err != nil || !bytes.Equal(p, data[off:][:len(p)]) {
					t.Error(off, err)
				}
			})
		}
		wg.Wait()
		if s.Signed() != 1 {
			t.Errorf("%d URLs", s.Signed())
		}
	})
	t.Run("of two versions one", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		r := lazy(s, objects.ReaderOptions{Size: &size})
		if _, err := r.ReadAtContext(t.Context(), p, 0); err != nil {
			t.Fatal(err)
		}
		s.Replace(faulttest.Object{Data: data, ETag: `"v2"`})
		if _, err := r.ReadAtContext(t.Context(), p, 5000); !errors.Is(err, objects.ErrChanged) {
			t.Error(err)
		}
	})
	t.Run("only the one that is known", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		r := lazy(s, objects.ReaderOptions{Identity: &objects.Identity{ETag: `"v0"`, Size: size}})
		if _, err := r.ReadAtContext(t.Context(), p, 0); !errors.Is(err, objects.ErrChanged) {
			t.Error(err)
		}
		if _, err := r.Stream(t.Context(), 0); !errors.Is(err, objects.ErrChanged) {
			t.Error(err)
		}
	})
	t.Run("only of the size that is known, also where the range does not exist", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		for _, off := range []int64{0, size} {
			r := lazy(s, objects.ReaderOptions{Size: &other})
			if _, err := r.ReadAtContext(t.Context(), p[:1], off); !errors.Is(err, objects.ErrChanged) {
				t.Error(off, err)
			}
		}
	})
	t.Run("nothing without a validator", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data}})
		defer s.Close()
		r := lazy(s, objects.ReaderOptions{Size: &size})
		if _, err := r.ReadAtContext(t.Context(), p, 5000); !errors.Is(err, objects.ErrNoValidator) {
			t.Error(err)
		}
		st, err := r.Stream(t.Context(), 0) // in one piece it can be read
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data) {
			t.Error(len(got), err)
		}
	})
	t.Run("an object of nothing needs no request", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: faulttest.Object{ETag: `"v1"`}})
		defer s.Close()
		r := lazy(s, objects.ReaderOptions{Identity: &objects.Identity{ETag: `"v1"`}})
		st, err := r.Stream(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(st); err != nil || len(got) != 0 || len(s.Requests()) != 0 {
			t.Error(len(got), err, len(s.Requests()))
		}
		st.Close()
	})
}

// TestHedge: a single read whose answer stands still is asked for once more,
// and what has come of it already is not.
func TestHedge(t *testing.T) {
	data := content(1 << 20)
	size := int64(len(data))
	o := faulttest.Object{Data: data, ETag: `"v1"`}
	stall := func(k faulttest.Kind) faulttest.Fault { return faulttest.Fault{Kind: k, At: 50_000} }
	for _, c := range []struct {
		name     string
		schedule faulttest.Schedule
		after    time.Duration
		requests int
		from     string // the last request's range
	}{
		{"no answer", faulttest.Script(stall(faulttest.StallHeaders)), 20 * time.Millisecond, 2, "bytes=300000-399999"},
		{"half an answer", faulttest.Script(stall(faulttest.StallBody)), 20 * time.Millisecond, 2, "bytes=350000-399999"},
		{"the second stalls too: there is no third", faulttest.Script(stall(faulttest.StallHeaders), stall(faulttest.StallHeaders)), 20 * time.Millisecond, 3, ""},
		{"a refusal is no stall", faulttest.Script(faulttest.Fault{Kind: faulttest.Unavailable, Wait: 200 * time.Millisecond}), 20 * time.Millisecond, 2, "bytes=300000-399999"},
		{"never", faulttest.Script(stall(faulttest.StallHeaders)), -1, 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := faulttest.New(faulttest.Options{Object: o, Schedule: c.schedule})
			defer s.Close()
			// Without a second request the watchdog would end the stall.
			r, err := objects.Open(t.Context(), signer(s), objects.ReaderOptions{
				Size: &size, Lazy: true, HedgeAfter: c.after, IdleTimeout: time.Second, RetryBudget: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			p := make([]byte, 100_000)
			if n, err := r.ReadAtContext(t.Context(), p, 300_000); n != len(p) || err != nil || !bytes.Equal(p, data[300_000:][:n]) {
				t.Fatalf("%d bytes, %v", n, err)
			}
			log := s.Requests()
			if len(log) < c.requests {
				t.Errorf("%d requests, want %d", len(log), c.requests)
			}
			if c.from != "" && log[len(log)-1].Header.Get("Range") != c.from {
				t.Errorf("the last request is for %s, want %s", log[len(log)-1].Header.Get("Range"), c.from)
			}
			if h := r.Stats().Hedges; h > 1 || (c.after < 0) != (h == 0) && c.name != "a refusal is no stall" {
				t.Errorf("%d second requests", h)
			}
		})
	}
}

// TestHedgesAreRationed: where everything stalls, second requests would only
// make it worse.
func TestHedgesAreRationed(t *testing.T) {
	data := content(100_000)
	size := int64(len(data))
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Always(faulttest.Fault{Kind: faulttest.Drip, At: 30, Wait: 2 * time.Millisecond})})
	defer s.Close()
	r, err := objects.Open(t.Context(), signer(s), objects.ReaderOptions{Size: &size, Lazy: true, HedgeAfter: time.Nanosecond})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := make([]byte, 100)
	for i := range 30 {
		if _, err := r.ReadAtContext(t.Context(), p, int64(i)*1000); err != nil || !bytes.Equal(p, data[i*1000:][:100]) {
			t.Fatal(err)
		}
	}
	if h := r.Stats().Hedges; h < 1 || h > 3+30/10 {
		t.Errorf("%d second requests for 30 reads", h)
	}
}
