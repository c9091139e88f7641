package objects_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// minter makes a Minter of a function.
type minter func() objects.SignedURL

func (m minter) Mint(context.Context) (objects.SignedURL, error) { return m(), nil }

// signer mints URLs of the fault server.
func signer(s *faulttest.Server) objects.Minter {
	return minter(func() objects.SignedURL { return objects.SignedURL{URL: objects.Secret(s.Sign())} })
}

// content is size bytes that compress badly and are the same in every run.
func content(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

var modified = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// patience are options with which a test need not wait.
func patience() objects.ReaderOptions {
	return objects.ReaderOptions{RetryBudget: 20 * time.Second, IdleTimeout: 150 * time.Millisecond}
}

// calm is patience for tests that count requests: on a busy machine a right
// answer may take longer than patience has.
func calm() objects.ReaderOptions {
	return objects.ReaderOptions{RetryBudget: 20 * time.Second, IdleTimeout: 15 * time.Second}
}

// readAll opens and streams the whole object.
func readAll(ctx context.Context, m objects.Minter, opts objects.ReaderOptions) ([]byte, error) {
	r, err := objects.Open(ctx, m, opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	s, err := r.Stream(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return io.ReadAll(s)
}

// noLeak fails when an error's text, or anything that can be unwrapped from
// it, holds the mark that is in every secret of the fault server.
func noLeak(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		if text := fmt.Sprintf(verb, err); strings.Contains(text, faulttest.Mark) {
			t.Errorf("%s of an error leaks: %s", verb, text)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		noLeak(t, e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, c := range e.Unwrap() {
			noLeak(t, c)
		}
	}
}

// TestDrip: a server that gives a byte now and then is slower than the floor,
// but the floor is measured over 30 s; here the idle watchdog must not take
// it for a stall, and the end of the context must end it.
func TestDrip(t *testing.T) {
	data := content(300)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Always(faulttest.Fault{Kind: faulttest.Drip, At: 300, Wait: time.Millisecond})})
	defer s.Close()
	got, err := readAll(t.Context(), signer(s), patience())
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes, error %v", len(got), err)
	}

	slow := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Always(faulttest.Fault{Kind: faulttest.Drip, At: 300, Wait: 50 * time.Millisecond})})
	defer slow.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := readAll(ctx, signer(slow), patience()); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("want the deadline, got %v", err)
	}
}

// TestBitFlip: only the SHA-256 can find a wrong byte; a stream says so at
// its end, and never gives io.EOF.
func TestBitFlip(t *testing.T) {
	data := content(600 << 10)
	for n, at := range []int64{1000, 200_000} {
		s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
		script := make([]faulttest.Fault, n+1)
		for i := range script {
			script[i].Kind = faulttest.None
		}
		script[n] = faulttest.Fault{Kind: faulttest.BitFlip, At: at}
		s.SetSchedule(faulttest.Script(script...))
		opts := calm()
		opts.SHA256 = sum(data)
		_, err := readAll(t.Context(), signer(s), opts)
		if !errors.Is(err, objects.ErrChecksum) {
			t.Errorf("request %d: want ErrChecksum, got %v", n, err)
		}
		s.Close()
	}
}

// TestSizeKnown: with the size known from the API, an answer of another size
// is never taken for the object, be it ever so well formed.
func TestSizeKnown(t *testing.T) {
	data := content(1000)
	size := int64(len(data))
	for _, c := range []struct {
		name string
		o    faulttest.Object
		f    faulttest.Kind
		size int64
		want error
	}{
		{"an object of another size", faulttest.Object{Data: data, ETag: `"v1"`}, faulttest.None, size + 1, objects.ErrChanged},
		{"a login page first, then the object", faulttest.Object{Data: data, ETag: `"v1"`}, faulttest.CaptivePortal, size, nil},
		{"an object without validators", faulttest.Object{Data: data}, faulttest.None, size, nil},
		{"the same from a server without ranges", faulttest.Object{Data: data}, faulttest.IgnoreRange, size, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := faulttest.New(faulttest.Options{Object: c.o, Schedule: faulttest.Script(faulttest.Fault{Kind: c.f})})
			defer s.Close()
			opts := calm()
			opts.Size = &c.size
			got, err := readAll(t.Context(), signer(s), opts)
			if !errors.Is(err, c.want) || c.want == nil && !bytes.Equal(got, data) {
				t.Fatalf("want %v, got %d bytes and error %v", c.want, len(got), err)
			}
		})
	}
}

// TestEmptyObject: an object of no bytes is one, whichever way the server
// has to say so.
func TestEmptyObject(t *testing.T) {
	zero := int64(0)
	for _, c := range []struct {
		name string
		o    faulttest.Object
		size *int64
	}{
		{"416, then 200, with an ETag", faulttest.Object{ETag: `"empty"`}, nil},
		{"416, then 200, size known", faulttest.Object{}, &zero},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := faulttest.New(faulttest.Options{Object: c.o})
			defer s.Close()
			opts := calm()
			opts.Size = c.size
			opts.SHA256 = sum(nil)
			got, err := readAll(t.Context(), signer(s), opts)
			if err != nil || len(got) != 0 {
				t.Fatalf("got %d bytes, error %v", len(got), err)
			}
		})
	}
}

// TestRedirects: what was meant for the first host stays there.
func TestRedirects(t *testing.T) {
	data := content(600 << 10)
	o := faulttest.Object{Data: data, ETag: `"v1"`}
	elsewhere := faulttest.Fault{Kind: faulttest.RedirectElsewhere}

	s := faulttest.New(faulttest.Options{Object: o, Schedule: faulttest.Always(elsewhere)})
	defer s.Close()
	if got, err := readAll(t.Context(), signer(s), calm()); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	seen := 0
	for _, r := range s.Requests() {
		for k, vs := range r.Header {
			if k == "Referer" || k == "Cookie" || r.Elsewhere && (k == "If-Match" || k == "Authorization") {
				t.Errorf("header %s was sent (elsewhere: %v)", k, r.Elsewhere)
			}
			if strings.Contains(strings.Join(vs, " "), faulttest.Mark) {
				t.Errorf("header %s holds a secret", k)
			}
		}
		if r.Elsewhere {
			seen++
		} else if r.N > 0 && r.Header.Get("If-Match") == "" {
			t.Errorf("request %d has no If-Match", r.N)
		}
	}
	if seen != 2 {
		t.Errorf("the other host saw %d requests, want 2", seen)
	}

	d := faulttest.New(faulttest.Options{Object: o, TLS: true, Schedule: faulttest.Always(faulttest.Fault{Kind: faulttest.RedirectDowngrade})})
	defer d.Close()
	opts := calm()
	opts.Transport = d.Transport()
	_, err := readAll(t.Context(), signer(d), opts)
	noLeak(t, err)
	if err == nil || !strings.Contains(err.Error(), "https to http") {
		t.Errorf("want the downgrade refused, got %v", err)
	}
	for _, r := range d.Requests() {
		if r.Elsewhere {
			t.Error("the other host was asked")
		}
	}
}

// TestTLS: a certificate nobody vouches for is a final error, at once.
func TestTLS(t *testing.T) {
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: content(10), ETag: `"v1"`}, TLS: true})
	defer s.Close()
	opts := calm()
	if _, err := readAll(t.Context(), signer(s), opts); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Fatalf("want a TLS error, got %v", err)
	}
	opts.Transport = s.Transport()
	if got, err := readAll(t.Context(), signer(s), opts); err != nil || len(got) != 10 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}
