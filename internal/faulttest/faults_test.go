package faulttest

import (
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"testing"
	"time"
)

// TestRandomReplays: a seed is a schedule, in whatever order it is asked.
func TestRandomReplays(t *testing.T) {
	a, b, c := Random(1, 0.5, 1000), Random(1, 0.5, 1000), Random(2, 0.5, 1000)
	differ, faults := 0, 0
	for n := range 1000 {
		first := a(n)
		if b(n) != first || a(n) != first {
			t.Fatalf("request %d differs", n)
		}
		if a(n) != c(n) {
			differ++
		}
		if a(n).Kind != None {
			faults++
		}
	}
	if differ < 300 || faults < 400 || faults > 600 || a(0).Kind != None {
		t.Errorf("%d of 1000 differ between seeds, %d are faults", differ, faults)
	}
}

// TestEachKindDiffers: every fault really is one, and the server is right
// again after it.
func TestEachKindDiffers(t *testing.T) {
	for _, kind := range append(slices.Clone(Survivable), append(slices.Clone(Fatal), BitFlip)...) {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			differs(t, kind)
		})
	}
}

func differs(t *testing.T, kind Kind) {
	data := []byte("the bytes of an object")
	s := New(Options{Object: Object{Data: data, ETag: `"v"`, Modified: time.Unix(1e9, 0)},
		Schedule: Script(Fault{Kind: None}, Fault{Kind: kind, At: 5, Wait: 50 * time.Millisecond})})
	defer s.Close()
	interim := 0
	get := func() (string, error) {
		req, err := http.NewRequest(http.MethodGet, s.Sign(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=2-20")
		trace := httptrace.ClientTrace{Got1xxResponse: func(int, textproto.MIMEHeader) error { interim++; return nil }}
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &trace))
		c := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := c.Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.Status + string(b) + resp.Header.Get("Content-Range") + resp.Header.Get("ETag") + resp.Header.Get("Last-Modified"), err
	}
	right, err := get()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	got, err := get()
	slow := time.Since(start) > 200*time.Millisecond // all that a drip is
	if err == nil && got == right && !(kind == Drip && slow) && interim == 0 {
		t.Error("it answers as it should")
	}
}
