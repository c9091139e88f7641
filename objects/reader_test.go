package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// TestReadAt holds ReadAtContext to io.ReaderAt's contract, on a server that
// fails now and then, from many goroutines.
func TestReadAt(t *testing.T) {
	data := content(700 << 10)
	size := int64(len(data))
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`, Modified: modified},
		Schedule: faulttest.Random(3, 0.2, 10000, faulttest.ResetMidBody, faulttest.Forbidden, faulttest.ShortRange, faulttest.InternalError)})
	defer s.Close()
	r := open(t, s, patience())
	if r.Size() != size || r.Identity() != (objects.Identity{ETag: `"v1"`, LastModified: modified.Format(http.TimeFormat), Size: size}) {
		t.Errorf("%d bytes, %+v", r.Size(), r.Identity())
	}
	var wg sync.WaitGroup
	for _, c := range []struct {
		off int64
		n   int
	}{
		{0, 1}, {0, 100}, {0, 256 << 10}, {256<<10 - 1, 2}, {256 << 10, 1}, {300 << 10, 200 << 10}, {0, int(size)},
		{size - 1, 1}, {size - 1, 2}, {size, 1}, {size + 1, 1}, {size - 70000, 80000}, {0, int(size) + 1}, {5, 0},
	} {
		wg.Go(func() {
			p := make([]byte, c.n)
			n, err := r.ReadAtContext(t.Context(), p, c.off)
			want := data[min(c.off, size):min(c.off+int64(c.n), size)]
			wantErr := error(nil)
			if c.off+int64(c.n) > size {
				wantErr = io.EOF
			}
			if err != wantErr || !bytes.Equal(p[:n], want) {
				t.Errorf("%d bytes at %d: %d came, error %v", c.n, c.off, n, err)
			}
		})
	}
	wg.Wait()
	if _, err := r.ReadAtContext(t.Context(), make([]byte, 1), -1); err == nil {
		t.Error("a negative offset was taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.ReadAtContext(ctx, make([]byte, 1), size-1); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestOneRequest: a small object, and the start of any, costs one request.
func TestOneRequest(t *testing.T) {
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: content(100_000), ETag: `"v1"`}})
	defer s.Close()
	r := open(t, s, calm())
	st, _ := r.Stream(t.Context(), 10)
	if n, err := io.Copy(io.Discard, st); n != 99_990 || err != nil {
		t.Error(n, err)
	}
	if n := len(s.Requests()); n != 1 {
		t.Errorf("%d requests", n)
	}
	if got := s.Requests()[0].Header.Get("Range"); got != "bytes=0-262143" {
		t.Error(got)
	}
	if _, err := r.Stream(t.Context(), 100_001); err == nil {
		t.Error("an offset past the end was taken")
	}
	st.Close()
	if _, err := st.Read(make([]byte, 1)); err == nil {
		t.Error("a closed stream gives bytes")
	}
}

// TestNoRanges: a server that ignores ranges is read in one go from the
// start, by discarding near it, and not at all far from it.
func TestNoRanges(t *testing.T) {
	data := content(3 << 20)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Always(faulttest.Fault{Kind: faulttest.IgnoreRange})})
	defer s.Close()
	r := open(t, s, calm())
	p := make([]byte, 1000)
	if _, err := r.ReadAtContext(t.Context(), p, 1<<20); err != nil || !bytes.Equal(p, data[1<<20:1<<20+1000]) {
		t.Error(err)
	}
	if _, err := r.ReadAtContext(t.Context(), p, 2<<20); !errors.Is(err, objects.ErrNoRanges) {
		t.Error(err)
	}
	if got, err := readAll(t.Context(), signer(s), calm()); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
}

// TestNoValidator: without ETag and Last-Modified two answers cannot be
// proven to be of one object.
func TestNoValidator(t *testing.T) {
	data := content(600 << 10)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data}})
	defer s.Close()
	if got, err := readAll(t.Context(), signer(s), calm()); err != nil || !bytes.Equal(got, data) {
		t.Error("in one piece:", len(got), err)
	}
	r := open(t, s, calm())
	p := make([]byte, 10)
	if _, err := r.ReadAtContext(t.Context(), p, 500<<10); !errors.Is(err, objects.ErrNoValidator) {
		t.Error("in the middle:", err)
	}
	none := faulttest.Fault{Kind: faulttest.None}
	cut := faulttest.Fault{Kind: faulttest.ResetMidBody, At: 500 << 10}
	s.SetSchedule(func(n int) faulttest.Fault {
		if n%2 == 0 {
			return cut
		}
		return none
	})
	opts := calm()
	if _, err := readAll(t.Context(), signer(s), opts); !errors.Is(err, objects.ErrNoValidator) {
		t.Error("after a break:", err)
	}
	opts.SHA256 = sum(data)
	if got, err := readAll(t.Context(), signer(s), opts); err != nil || !bytes.Equal(got, data) {
		t.Error("after a break, the SHA-256 known:", len(got), err)
	}
}

// TestRenewal: URLs that expire within seconds and ones that are revoked are
// renewed; what a renewal cannot help ends at once.
func TestRenewal(t *testing.T) {
	data := content(2 << 20)
	o := faulttest.Object{Data: data, ETag: `"v1"`}
	refuse := faulttest.Fault{Kind: faulttest.Forbidden}

	t.Run("one flight for all readers", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		r := open(t, s, calm())
		s.Revoke()
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				p := make([]byte, 1000)
				if _, err := r.ReadAtContext(t.Context(), p, 1<<20+int64(i)); err != nil || !bytes.Equal(p, data[1<<20+i:][:1000]) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s.Signed() != 2 || r.Stats().Renewals != 1 {
			t.Errorf("%d URLs were signed, %d renewals", s.Signed(), r.Stats().Renewals)
		}
	})
	t.Run("refused again right after is final, with the third URL never asked for", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o, Schedule: faulttest.Always(refuse)})
		defer s.Close()
		_, err := readAll(t.Context(), signer(s), calm())
		if !errors.Is(err, objects.ErrCredentials) || s.Signed() != 2 {
			t.Errorf("%d URLs, %v", s.Signed(), err)
		}
		noLeak(t, err)
	})
	t.Run("refused, good, and refused again is renewed again", func(t *testing.T) {
		s := faulttest.New(faulttest.Options{Object: o, Schedule: func(n int) faulttest.Fault {
			if n%2 == 1 {
				return refuse
			}
			return faulttest.Fault{Kind: faulttest.ShortRange, At: 300 << 10}
		}})
		defer s.Close()
		opts := calm()
		opts.Network = objects.NewNetwork(objects.Limits{Connections: 1})
		if got, err := readAll(t.Context(), signer(s), opts); err != nil || !bytes.Equal(got, data) {
			t.Error(len(got), err)
		}
	})
	t.Run("a fixed URL that is refused has expired", func(t *testing.T) {
		for _, n := range []int{0, 1} {
			s := faulttest.New(faulttest.Options{Object: o, Schedule: func(i int) faulttest.Fault {
				if i == n {
					return refuse
				}
				return faulttest.Fault{Kind: faulttest.None}
			}})
			_, err := readAll(t.Context(), objects.FixedURL(objects.Secret(s.Sign())), calm())
			if !errors.Is(err, objects.ErrExpired) || errors.Is(err, objects.ErrCredentials) {
				t.Error(err)
			}
			noLeak(t, err)
			s.Close()
		}
	})
	t.Run("what cannot be a URL is never asked for", func(t *testing.T) {
		for _, bad := range []objects.Secret{"", "CANARY7f3a", "file:///CANARY7f3a", "http:///CANARY7f3a", "http://h/%zzCANARY7f3a"} {
			_, err := objects.Open(t.Context(), objects.FixedURL(bad), calm())
			if err == nil || errors.Is(err, objects.ErrUnreachable) {
				t.Error(err)
			}
			noLeak(t, err)
		}
	})
	t.Run("what the minter says for good is final, the rest is tried again", func(t *testing.T) {
		for _, final := range []error{objects.ErrDeleted, objects.ErrNotFound, objects.ErrCredentials} {
			_, err := objects.Open(t.Context(), failingMinter{new(atomic.Int64), final, 100}, calm())
			if !errors.Is(err, final) || errors.Is(err, objects.ErrUnreachable) {
				t.Error(err)
			}
		}
		s := faulttest.New(faulttest.Options{Object: o})
		defer s.Close()
		m := failingMinter{new(atomic.Int64), errors.New("no route to host"), 2}
		if _, err := objects.Open(t.Context(), minterOf(m, signer(s)), calm()); err != nil {
			t.Error(err)
		}
	})
}

// failingMinter fails so many times.
type failingMinter struct {
	n     *atomic.Int64
	err   error
	times int64
}

func (m failingMinter) Mint(context.Context) (objects.SignedURL, error) {
	if m.n.Add(1) <= m.times {
		return objects.SignedURL{}, fmt.Errorf("mint: %w", m.err)
	}
	return objects.SignedURL{}, nil
}

// minterOf mints by a, and by b once a no longer fails.
func minterOf(a, b objects.Minter) objects.Minter {
	return minterFunc(func(ctx context.Context) (objects.SignedURL, error) {
		if u, err := a.Mint(ctx); err != nil {
			return u, err
		}
		return b.Mint(ctx)
	})
}

type minterFunc func(ctx context.Context) (objects.SignedURL, error)

func (f minterFunc) Mint(ctx context.Context) (objects.SignedURL, error) { return f(ctx) }

// clockServer is a server in fake time whose clock goes wrong by skew, and
// which refuses URLs that are over by its clock.
type clockServer struct {
	skew   time.Duration
	life   time.Duration
	minted int
	over   int // requests that it refused
}

const clockSize = 10 << 20

func (c *clockServer) now() time.Time { return time.Now().Add(c.skew) }

func (c *clockServer) Mint(context.Context) (objects.SignedURL, error) {
	c.minted++
	until := c.now().Add(c.life)
	return objects.SignedURL{URL: objects.Secret(fmt.Sprintf("http://h/p?until=%d", until.UnixNano())),
		Issued: c.now(), Expires: until}, nil
}

func (c *clockServer) RoundTrip(r *http.Request) (*http.Response, error) {
	var until int64
	fmt.Sscan(r.URL.Query().Get("until"), &until)
	h := http.Header{"Date": {c.now().UTC().Format(http.TimeFormat)}, "Etag": {`"v"`}}
	if c.now().UnixNano() > until {
		c.over++
		return &http.Response{StatusCode: 403, Header: h, Body: http.NoBody}, nil
	}
	var first, last int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
	last = min(last, clockSize-1)
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, clockSize))
	return &http.Response{StatusCode: 206, Header: h, ContentLength: int64(last + 1 - first),
		Body: io.NopCloser(strings.NewReader(strings.Repeat("x", last+1-first)))}, nil
}

// TestRenewalAheadFails: an API that is down does not hold up a URL that is
// still good; when that is over too, it does.
func TestRenewalAheadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &clockServer{life: time.Hour}
		down := false
		m := minterFunc(func(ctx context.Context) (objects.SignedURL, error) {
			if down {
				<-ctx.Done()
				return objects.SignedURL{}, ctx.Err()
			}
			return s.Mint(ctx)
		})
		r, err := objects.Open(t.Context(), m, objects.ReaderOptions{Transport: s})
		if err != nil {
			t.Fatal(err)
		}
		down = true
		p := make([]byte, 10)
		read := func(limit time.Duration) error {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err := r.ReadAtContext(ctx, p, 5<<20)
			return err
		}
		time.Sleep(50 * time.Minute)
		for range 5 {
			if err := read(11 * time.Second); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(10 * time.Minute)
		if err := read(time.Minute); !errors.Is(err, objects.ErrUnreachable) || s.over != 0 {
			t.Errorf("%d requests with a URL that was over, %v", s.over, err)
		}
		down = false
		if err := read(time.Minute); err != nil {
			t.Error(err)
		}
	})
}

// TestRenewalAhead: a URL is renewed at 80 % of its life by the server's
// clock, whatever ours says, so that it is never refused.
func TestRenewalAhead(t *testing.T) {
	for _, skew := range []time.Duration{0, 5 * time.Hour, -5 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := &clockServer{skew: skew, life: time.Hour}
			opts := objects.ReaderOptions{Transport: s}
			r, err := objects.Open(t.Context(), s, opts)
			if err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 10)
			for i, want := range []int{1, 1, 1, 1, 2, 2, 2, 2, 3} { // every 12 min; 80 % of an hour are 48
				if _, err := r.ReadAtContext(t.Context(), p, 5<<20); err != nil {
					t.Fatal(err)
				}
				if s.minted != want {
					t.Errorf("skew %s: after %d min %d URLs, want %d", skew, i*12, s.minted, want)
				}
				time.Sleep(12*time.Minute + 2*time.Second) // Date has whole seconds
			}
			if s.over != 0 {
				t.Errorf("skew %s: %d requests with a URL that was over", skew, s.over)
			}
			if got := r.Stats().ClockSkew; (got - skew).Abs() > 2*time.Second {
				t.Errorf("skew %s seen as %s", skew, got)
			}
		})
	}
}
