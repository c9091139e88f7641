package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// patternServer serves a Pattern over a line, and keeps count.
type patternServer struct {
	*httptest.Server
	content *faulttest.Pattern
	fail    func(w http.ResponseWriter, r *http.Request) bool // true: it has answered

	now, most atomic.Int64
	unpinned  atomic.Int64 // requests without If-Match
}

func servePattern(tb testing.TB, size int64, line faulttest.Line) *patternServer {
	tb.Helper()
	s := &patternServer{content: faulttest.NewPattern(7, size)}
	s.Server = httptest.NewUnstartedServer(line.Handler(s))
	s.Listener = line.Listener(s.Listener)
	s.Start()
	tb.Cleanup(s.Close)
	return s
}

func (s *patternServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for n := s.now.Add(1); ; {
		if old := s.most.Load(); n <= old || s.most.CompareAndSwap(old, n) {
			break
		}
	}
	defer s.now.Add(-1)
	if r.Header.Get("If-Match") == "" {
		s.unpinned.Add(1)
	}
	if s.fail != nil && s.fail(w, r) {
		return
	}
	w.Header().Set("ETag", `"pattern"`)
	http.ServeContent(w, r, "", time.Time{}, s.content.Reader())
}

// Mint gives its URL.
func (s *patternServer) Mint(context.Context) (objects.SignedURL, error) {
	return objects.SignedURL{URL: objects.Secret(s.URL + "/o?sig=" + faulttest.Mark)}, nil
}

func (s *patternServer) open(t *testing.T, opts objects.ReaderOptions) *objects.Reader {
	t.Helper()
	r, err := objects.Open(t.Context(), s, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// same reads a stream to its end and holds it against the pattern from off on.
func (s *patternServer) same(st io.Reader, off int64) error {
	want := make([]byte, 1<<20)
	got := make([]byte, 1<<20)
	for {
		n, err := io.ReadFull(st, got)
		if n > 0 {
			if m, _ := s.content.ReadAt(want[:n], off); m != n || !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("the %d bytes at %d are others", n, off)
			}
			off += int64(n)
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if off != s.content.Size() {
				return fmt.Errorf("it ended at %d of %d", off, s.content.Size())
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// TestParallelStream: several requests at a time, each held to the pinned
// identity, and their bytes in order, from wherever the stream begins.
func TestParallelStream(t *testing.T) {
	s := servePattern(t, 40<<20+12345, faulttest.Line{Latency: 5 * time.Millisecond, Rate: 20e6})
	for _, c := range []struct {
		name string
		l    objects.Limits
		off  int64
		most int64
	}{
		{"as many as help", objects.Limits{}, 0, 16},
		{"from the middle on", objects.Limits{}, 9<<20 + 1, 16},
		{"in the least memory", objects.Limits{Memory: objects.MinMemory}, 20 << 20, 16},
		{"at most three", objects.Limits{Connections: 3}, 0, 3},
		{"at most one", objects.Limits{Connections: 1}, 35 << 20, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for s.now.Load() > 0 { // handlers of the test before
				time.Sleep(time.Millisecond)
			}
			s.most.Store(0)
			s.unpinned.Store(0)
			r := s.open(t, objects.ReaderOptions{Network: objects.NewNetwork(c.l)})
			st, err := r.Stream(t.Context(), c.off)
			if err != nil {
				t.Fatal(err)
			}
			defer st.Close()
			if err := s.same(st, c.off); err != nil {
				t.Error(err)
			}
			if most := s.most.Load(); most > c.most || most < min(c.most, 3) {
				t.Errorf("%d requests at a time, want up to %d", most, c.most)
			}
			if n := s.unpinned.Load(); n != 1 {
				t.Errorf("%d requests without If-Match", n)
			}
		})
	}
}

// TestStreamEnds: a stream that is closed or cancelled in the middle, with or
// without anybody reading, leaves no goroutine and no connection.
func TestStreamEnds(t *testing.T) {
	s := servePattern(t, 256<<20, faulttest.Line{Latency: time.Millisecond, Rate: 20e6})
	ignore := goleak.IgnoreCurrent()
	for _, how := range []string{"closed", "cancelled", "closed at once", "closed with its memory full"} {
		r := s.open(t, objects.ReaderOptions{Network: objects.NewNetwork(objects.Limits{Memory: objects.MinMemory})})
		ctx, cancel := context.WithCancel(t.Context())
		st, err := r.Stream(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		switch how {
		case "closed":
			if _, err := io.CopyN(io.Discard, st, 3<<20); err != nil {
				t.Error(err)
			}
		case "cancelled":
			time.AfterFunc(50*time.Millisecond, cancel)
			if _, err := io.Copy(io.Discard, st); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		case "closed with its memory full":
			for r.Stats().Bytes < objects.MinMemory {
				time.Sleep(time.Millisecond)
			}
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if _, err := st.Read(make([]byte, 1)); err == nil {
			t.Error("a closed stream gives bytes")
		}
		r.Close()
		cancel()
	}
	for s.now.Load() > 0 { // the server sees that the connections have ended
		time.Sleep(time.Millisecond)
	}
	s.CloseClientConnections()
	goleak.VerifyNone(t, ignore)
}

// TestOneNetwork: many readings share little memory and few connections. None
// of them keeps the others from getting on for ever, not even one whose
// reader has stopped reading.
func TestOneNetwork(t *testing.T) {
	s := servePattern(t, 12<<20, faulttest.Line{Latency: time.Millisecond})
	n := objects.NewNetwork(objects.Limits{Memory: objects.MinMemory, Connections: 5})
	r := s.open(t, objects.ReaderOptions{Network: n})
	paused, err := r.Stream(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer paused.Close()
	if _, err := io.CopyN(io.Discard, paused, 300<<10); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			r := s.open(t, objects.ReaderOptions{Network: n})
			st, err := r.Stream(t.Context(), int64(i))
			if err != nil {
				t.Error(err)
				return
			}
			defer st.Close()
			if err := s.same(st, int64(i)); err != nil {
				t.Error(err)
			}
			p := make([]byte, 1000)
			if _, err := r.ReadAtContext(t.Context(), p, 6<<20); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		if err := r.Download(t.Context(), filepath.Join(t.TempDir(), "f"), nil); err != nil {
			t.Error(err)
		}
	}()
	wg.Wait()
	if most := s.most.Load(); most > 5 {
		t.Errorf("%d connections at a time, 5 are allowed", most)
	}
	if err := s.same(paused, 300<<10); err != nil {
		t.Error(err)
	}
}

// TestSlowDown: a server that answers 503 to more than two requests at a time
// is asked by fewer, and the object arrives all the same.
func TestSlowDown(t *testing.T) {
	s := servePattern(t, 24<<20, faulttest.Line{Latency: time.Millisecond, Rate: 40e6})
	var refused atomic.Int64
	s.fail = func(w http.ResponseWriter, r *http.Request) bool {
		if s.now.Load() <= 2 {
			return false
		}
		refused.Add(1)
		w.Header().Set("Retry-After-Ms", "20")
		http.Error(w, "SlowDown", http.StatusServiceUnavailable)
		return true
	}
	r := s.open(t, objects.ReaderOptions{})
	st, err := r.Stream(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := s.same(st, 0); err != nil {
		t.Error(err)
	}
	t.Logf("%d refusals, %d requests", refused.Load(), r.Stats().Requests)
	if n := refused.Load(); n == 0 || n > 40 {
		t.Errorf("%d requests were refused", n)
	}
}

// TestLameConnection: a part that creeps, though above the floor, does not
// hold up what the others bring: its rest is asked for again.
func TestLameConnection(t *testing.T) {
	s := servePattern(t, 24<<20, faulttest.Line{Rate: 20e6})
	var requests, given atomic.Int64
	s.fail = func(w http.ResponseWriter, r *http.Request) bool {
		if requests.Add(1) != 3 {
			return false
		}
		var first, last int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		w.Header().Set("ETag", `"pattern"`)
		w.Header().Set("Content-Length", strconv.FormatInt(last+1-first, 10))
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, s.content.Size()))
		w.WriteHeader(http.StatusPartialContent)
		p := make([]byte, 4<<10)
		for ; first+int64(len(p)) <= last; first += int64(len(p)) {
			s.content.ReadAt(p, first)
			if _, err := w.Write(p); err != nil {
				return true
			}
			http.NewResponseController(w).Flush()
			given.Add(int64(len(p)))
			select {
			case <-time.After(20 * time.Millisecond): // 200 KB/s
			case <-r.Context().Done():
				return true
			}
		}
		return true
	}
	st, err := s.open(t, objects.ReaderOptions{}).Stream(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if err := s.same(st, 0); err != nil {
		t.Error(err)
	}
	if given.Load() > 1<<20 {
		t.Errorf("it was waited for: %d bytes came that way", given.Load())
	}
}

// TestRangesStop: a server that serves ranges and then, now and then, does
// not, is asked again; one that never does again is an error that says so.
func TestRangesStop(t *testing.T) {
	data := content(6 << 20)
	ignore := faulttest.Fault{Kind: faulttest.IgnoreRange}
	none := faulttest.Fault{Kind: faulttest.None}
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Script(none, none, ignore, ignore, none, ignore)})
	defer s.Close()
	if got, err := readAll(t.Context(), signer(s), calm()); err != nil || !bytes.Equal(got, data) {
		t.Errorf("now and then: %d bytes, %v", len(got), err)
	}
	never := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: func(n int) faulttest.Fault {
			if n == 0 {
				return none
			}
			return ignore
		}})
	defer never.Close()
	got, err := readAll(t.Context(), signer(never), calm())
	if !errors.Is(err, objects.ErrNoRanges) || !bytes.HasPrefix(data, got) {
		t.Errorf("never again: %d bytes, %v", len(got), err)
	}
}
