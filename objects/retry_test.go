package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var errFlaky = errors.New("flaky")

// TestRetryLaw checks the law of retry.go, sentence by sentence, in fake time.
func TestRetryLaw(t *testing.T) {
	law := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	law("a final error ends it at once and is given as it is", func(t *testing.T) {
		tries := 0
		_, err := retry(t.Context(), &pacer{budget: time.Hour}, func() (int, error) {
			tries++
			return 0, permanent(errFlaky)
		})
		if err != errFlaky || tries != 1 {
			t.Errorf("%d tries, error %v", tries, err)
		}
	})
	law("each wait lies between 0 and 100 ms·2^n, at most 20 s", func(t *testing.T) {
		ceiling := 100 * time.Millisecond
		last := time.Now()
		var longest time.Duration
		n := 0
		_, err := retry(t.Context(), &pacer{budget: 24 * time.Hour}, func() (int, error) {
			if n > 0 {
				wait := time.Since(last)
				longest = max(longest, wait)
				if wait > min(ceiling, 20*time.Second) {
					t.Errorf("wait %d was %s", n, wait)
				}
				ceiling = min(2*ceiling, time.Minute)
			}
			last = time.Now()
			if n++; n == 40 {
				return 1, nil
			}
			return 0, errFlaky
		})
		if err != nil || longest < 5*time.Second {
			t.Errorf("error %v, longest wait %s", err, longest)
		}
	})
	law("the budget is a time; when it is spent the error says so and why", func(t *testing.T) {
		start, retried := time.Now(), 0
		p := &pacer{budget: time.Minute, retried: func() { retried++ }}
		_, err := retry(t.Context(), p, func() (int, error) { return 0, errFlaky })
		if !errors.Is(err, ErrUnreachable) || !errors.Is(err, errFlaky) {
			t.Errorf("error %v", err)
		}
		if d := time.Since(start); d < time.Minute || d > 80*time.Second {
			t.Errorf("gave up after %s", d)
		}
		if retried == 0 {
			t.Error("nobody was told of the retries")
		}
	})
	law("Retry-After is obeyed", func(t *testing.T) {
		start, n := time.Now(), 0
		retry(t.Context(), &pacer{budget: time.Hour}, func() (int, error) {
			if n++; n == 2 {
				return 0, nil
			}
			return 0, later(errFlaky, 7*time.Second)
		})
		if d := time.Since(start); d != 7*time.Second {
			t.Errorf("waited %s", d)
		}
	})
	law("a Retry-After beyond the budget is not waited for", func(t *testing.T) {
		start := time.Now()
		_, err := retry(t.Context(), &pacer{budget: 5 * time.Second}, func() (int, error) {
			return 0, later(errFlaky, 7*time.Second)
		})
		if d := time.Since(start); d != 0 || !errors.Is(err, ErrUnreachable) {
			t.Errorf("%s, %v", d, err)
		}
	})
	law("progress gives the budget back, crumbs do not", func(t *testing.T) {
		for _, c := range []struct {
			bytes int
			ends  bool
		}{{progressBytes, false}, {1, true}} {
			p := &pacer{budget: time.Minute}
			start := time.Now()
			var err error
			for time.Since(start) < time.Hour && err == nil {
				failed := false
				_, err = retry(t.Context(), p, func() (int, error) {
					if failed {
						return 1, nil
					}
					failed = true
					return 0, errFlaky
				})
				p.progress(c.bytes, false)
				time.Sleep(time.Second)
			}
			if (err != nil) != c.ends {
				t.Errorf("%d bytes a try: %v", c.bytes, err)
			}
		}
	})
	law("nonsense is tried a few times only, a login page for the whole budget", func(t *testing.T) {
		for _, patient := range []bool{false, true} {
			tries := 0
			_, err := retry(t.Context(), &pacer{budget: 15 * time.Minute}, func() (int, error) {
				tries++
				return 0, &protocolError{msg: "nonsense", patient: patient}
			})
			if patient == (tries == garbledMax) || patient != errors.Is(err, ErrUnreachable) {
				t.Errorf("patient %v: %d tries, %v", patient, tries, err)
			}
		}
	})
	law("a cancelled context ends it, and is the error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(3*time.Second, cancel)
		start := time.Now()
		_, err := retry(ctx, &pacer{budget: time.Hour}, func() (int, error) { return 0, errFlaky })
		if d := time.Since(start); err != context.Canceled || d != 3*time.Second {
			t.Errorf("%s, %v", d, err)
		}
	})
	law("a deadline while the network fails is both", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := retry(ctx, &pacer{budget: time.Hour}, func() (int, error) { return 0, errFlaky })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrUnreachable) || !errors.Is(err, errFlaky) {
			t.Error(err)
		}
	})
}

// roundTripper answers in fake time, where no socket may be used.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answerOf(status int, body io.Reader, headers ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	length := int64(-1)
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		length = n
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(body), ContentLength: length}
}

// dripper gives a chunk per tick until its context ends.
type dripper struct {
	ctx   context.Context
	tick  time.Duration
	chunk int
	have  int
}

func (d *dripper) Read(p []byte) (int, error) {
	if d.have == 0 {
		select {
		case <-time.After(d.tick):
			d.have = d.chunk
		case <-d.ctx.Done():
			return 0, context.Cause(d.ctx)
		}
	}
	n := min(d.have, len(p))
	d.have -= n
	clear(p[:n])
	return n, nil
}

// TestWatchdogs: silence of 15 s and less than 16 KiB/s over 30 s end a
// connection, and nothing shorter or faster does.
func TestWatchdogs(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name  string
		tick  time.Duration
		chunk int
		again bool // the connection is given up for a new one
	}{
		{"a byte every 200 ms is too slow", 200 * time.Millisecond, 1, true},
		{"32 KiB every second is fast enough", time.Second, 32 << 10, false},
		{"512 KiB after 14 s of silence is in time", 14 * time.Second, 512 << 10, false},
		{"silence of 16 s is too long", 16 * time.Second, 512 << 10, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				rt := roundTripper(func(r *http.Request) (*http.Response, error) {
					requests++
					var first, last int
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
					last = min(last, size-1)
					var body io.Reader = strings.NewReader(strings.Repeat("\x00", last+1-first))
					if requests == 2 {
						body = io.LimitReader(&dripper{r.Context(), c.tick, c.chunk, 0}, int64(last+1-first))
					}
					return answerOf(206, body, "ETag", `"v"`, "Content-Length", strconv.Itoa(last+1-first),
						"Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, size)), nil
				})
				r, err := Open(t.Context(), FixedURL("http://h/p"), ReaderOptions{Transport: rt})
				if err != nil {
					t.Fatal(err)
				}
				s, _ := r.Stream(t.Context(), 0)
				n, err := io.Copy(io.Discard, s)
				s.Close()
				if err != nil || n != size || (requests > 2) != c.again {
					t.Errorf("%d bytes, error %v, %d requests", n, err, requests)
				}
			})
		})
	}
}

// TestSlowConsumer: who takes their time between two reads is not a stall.
func TestSlowConsumer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = firstBytes + 3
		rt := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Header.Get("If-Match") == "" {
				return answerOf(206, strings.NewReader(strings.Repeat("a", firstBytes)), "ETag", `"v"`,
					"Content-Range", fmt.Sprintf("bytes 0-%d/%d", firstBytes-1, size)), nil
			}
			return answerOf(206, strings.NewReader("xyz"), "ETag", `"v"`, "Content-Length", "3",
				"Content-Range", fmt.Sprintf("bytes %d-%d/%d", firstBytes, size-1, size)), nil
		})
		r, err := Open(t.Context(), FixedURL("http://h/p"), ReaderOptions{Transport: rt})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := r.Stream(t.Context(), firstBytes)
		defer s.Close()
		var got []byte
		for p := make([]byte, 1); ; time.Sleep(time.Hour) {
			n, err := s.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				break
			}
		}
		if string(got) != "xyz" || r.Stats().Requests != 2 {
			t.Errorf("got %q with %d requests", got, r.Stats().Requests)
		}
	})
}

// TestUploadStalls: a server that takes nothing is given up after 30 s, tried
// five times in all, and the object is deleted again.
func TestUploadStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		puts, deleted := 0, 0
		rt := roundTripper(func(r *http.Request) (*http.Response, error) {
			switch {
			case r.Method == http.MethodPut:
				puts++
				<-r.Context().Done()
				return nil, context.Cause(r.Context())
			case strings.HasSuffix(r.URL.Path, "/delete"):
				deleted++
			}
			return answerOf(200, strings.NewReader(`{"id":"obj_1","state":"UPLOADING","upload_url":"http://h/put"}`)), nil
		})
		c, err := New(Options{BaseURL: "http://h", Transport: rt})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = c.Upload(t.Context(), CreateRequest{Name: "n", ContentType: ContentText}, Body{Size: 1,
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }}, nil)
		if d := time.Since(start); !errors.Is(err, ErrUnreachable) || puts != putTries || deleted != 1 || d > 4*time.Minute {
			t.Errorf("%d tries in %s, deleted %d times: %v", puts, d, deleted, err)
		}
	})
}

// TestRetryAfter reads the header in all its forms.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		headers []string
		want    time.Duration
	}{
		{nil, 0},
		{[]string{"Retry-After", "1"}, time.Second},
		{[]string{"Retry-After", "0.5"}, 500 * time.Millisecond},
		{[]string{"Retry-After", "1", "Retry-After-Ms", "50"}, 50 * time.Millisecond},
		{[]string{"Retry-After", "100000"}, time.Minute},
		{[]string{"Retry-After", "-1"}, 0},
		{[]string{"Retry-After", "NaN"}, 0},
		{[]string{"Retry-After", "1e9"}, 0},
		{[]string{"Retry-After", "Thu, 01 Jan 2026 00:00:30 GMT"}, 30 * time.Second},
		{[]string{"Retry-After", "Wed, 31 Dec 2025 00:00:30 GMT"}, 0},
		{[]string{"Retry-After", "Thu, 01 Jan 2026 09:00:10 GMT", "Date", "Thu, 01 Jan 2026 09:00:00 GMT"}, 10 * time.Second},
	} {
		if got := retryAfter(answerOf(503, nil, c.headers...).Header, now); got != c.want {
			t.Errorf("%v: got %s, want %s", c.headers, got, c.want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "0.25", "99999999999999999999", "Thu, 01 Jan 2026 00:00:30 GMT", "-3", "1.2.3", "."} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, ms, s, date string) {
		h := http.Header{"Retry-After-Ms": {ms}, "Retry-After": {s}, "Date": {date}}
		if d := retryAfter(h, time.Unix(0, 0)); d < 0 || d > retryAfterCap {
			t.Errorf("%s", d)
		}
	})
}
