package objects_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// uploads is an API with one object, whose PUTs are answered by script.
type uploads struct {
	*httptest.Server
	mu      sync.Mutex
	puts    []string // what each PUT brought, as far as it was read
	lengths []int64
	deleted int
	state   objects.State
	size    *int64

	put      []func(u *uploads, w http.ResponseWriter, r *http.Request) // the last for ever
	complete func(w http.ResponseWriter, r *http.Request)               // nil: as it should be
	remove   func(w http.ResponseWriter, r *http.Request)
}

type putHandler = func(u *uploads, w http.ResponseWriter, r *http.Request)

// take reads all and says yes.
func take(u *uploads, w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	u.mu.Lock()
	u.puts = append(u.puts, string(b))
	u.size = new(int64)
	*u.size = int64(len(b))
	u.mu.Unlock()
}

// say answers without reading.
func say(status int, headers ...string) putHandler {
	return func(_ *uploads, w http.ResponseWriter, r *http.Request) {
		answer(status, "<Error><Code>Code</Code><Message>"+r.URL.RawQuery+"</Message></Error>", headers...)(w, r)
	}
}

// hangUp reads some and resets the connection.
func hangUp(u *uploads, w http.ResponseWriter, r *http.Request) {
	io.CopyN(io.Discard, r.Body, 10)
	conn, _, _ := w.(http.Hijacker).Hijack()
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

func newUploads(t *testing.T, put ...putHandler) *uploads {
	u := &uploads{put: put, state: objects.StateUploading}
	mux := http.NewServeMux()
	view := func(w http.ResponseWriter) {
		u.mu.Lock()
		defer u.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]any{"id": "obj_1", "name": "n", "state": u.state, "content_type": "text",
			"create_time_ms": 1, "size_bytes": u.size, "upload_url": u.URL + "/put?sig=" + faulttest.Mark})
	}
	set := func(s objects.State) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.state = s
	}
	mux.HandleFunc("POST /v1/objects", func(w http.ResponseWriter, r *http.Request) { view(w) })
	mux.HandleFunc("GET /v1/objects/obj_1", func(w http.ResponseWriter, r *http.Request) { view(w) })
	mux.HandleFunc("POST /v1/objects/obj_1/complete", func(w http.ResponseWriter, r *http.Request) {
		set(objects.StateReadOnly)
		if u.complete != nil {
			u.complete(w, r)
			return
		}
		view(w)
	})
	mux.HandleFunc("POST /v1/objects/obj_1/delete", func(w http.ResponseWriter, r *http.Request) {
		if u.remove != nil {
			u.remove(w, r)
			return
		}
		set(objects.StateDeleted)
		u.mu.Lock()
		u.deleted++
		u.mu.Unlock()
		view(w)
	})
	mux.HandleFunc("PUT /", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Content-Type") != "" {
			t.Errorf("a PUT to a signed URL has headers that were not signed: %v", r.Header)
		}
		u.mu.Lock()
		n := min(len(u.lengths), len(u.put)-1)
		u.lengths = append(u.lengths, r.ContentLength)
		u.mu.Unlock()
		u.put[n](u, w, r)
	})
	u.Server = httptest.NewServer(mux)
	t.Cleanup(u.Close)
	return u
}

// body is a text that can be opened so many times.
func body(text string, size int64, times int) objects.Body {
	return objects.Body{Size: size, Open: func() (io.ReadCloser, error) {
		if times--; times < 0 {
			return nil, errors.New("it can be read only once")
		}
		return io.NopCloser(strings.NewReader(text)), nil
	}}
}

func TestUpload(t *testing.T) {
	const text = "a body of some forty bytes, or a few more"
	const n = int64(len(text))
	for _, c := range []struct {
		name    string
		put     []putHandler
		body    objects.Body
		lengths string // of the PUTs; "": whether one was sent at all is a matter of timing
		want    string // of the error; "": it works
	}{
		{"a known size has its Content-Length", []putHandler{take}, body(text, n, 1), "[41]", ""},
		{"an unknown size is sent chunked", []putHandler{take}, body(text, -1, 1), "[-1]", ""},
		{"an empty body", []putHandler{take}, body("", 0, 1), "[0]", ""},
		{"an empty body of unknown size", []putHandler{take}, body("", -1, 1), "[-1]", ""},
		{"a connection that breaks is tried again", []putHandler{hangUp, take}, body(text, n, 2), "[41 41]", ""},
		{"a busy server is tried again", []putHandler{say(503, "Retry-After-Ms", "1"), take}, body(text, n, 2), "[41 41]", ""},
		{"a pipe that nobody read yet is used again", []putHandler{say(503, "Retry-After-Ms", "1"), take}, body(text, -1, 1), "[-1 -1]", ""},
		{"a pipe that was read cannot be", []putHandler{hangUp, take}, body(strings.Repeat(text, 1000), -1, 1), "[-1]", "only once"},
		{"411 for chunks: saved, and sent with its length", []putHandler{say(411), take}, body(text, -1, 2), "[-1 41]", ""},
		{"501 for chunks likewise, and of a pipe", []putHandler{say(501), take}, body(text, -1, 1), "[-1 41]", ""},
		{"a redirect is followed", []putHandler{say(307, "Location", "/other?x=CANARY7f3a"), take}, body(text, n, 2), "[41 41]", ""},
		{"but not for ever", []putHandler{say(307, "Location", "/other")}, body(text, n, 9), "[41 41 41 41]", "redirects"},
		{"a refused URL is final", []putHandler{say(403)}, body(text, n, 9), "[41]", "upload URL has expired or is refused"},
		{"too large is final", []putHandler{say(413)}, body(text, n, 9), "[41]", "413"},
		{"a source that is shorter than it says", []putHandler{take}, body(text, n+1, 1), "", "it has 41 bytes and not 42"},
		{"a source that grew is cut where it was", []putHandler{take}, body(text+"more", n, 1), "[41]", ""},
		{"a source that fails", []putHandler{take}, objects.Body{Size: -1, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(text), failing{})), nil
		}}, "", "disk on fire"},
		{"a source that cannot be opened", []putHandler{take}, objects.Body{Size: 1, Open: func() (io.ReadCloser, error) { return nil, errors.New("locked away") }}, "[]", "locked away"},
		{"yes before all was taken is no", []putHandler{say(200), take}, body(strings.Repeat(text, 200_000), 41*200_000, 2), "[8200000 8200000]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := newUploads(t, c.put...)
			cl := newClient(t, u.URL, 0)
			var mu sync.Mutex
			var last int64
			over := false
			o, err := cl.Upload(t.Context(), objects.CreateRequest{Name: "n", ContentType: objects.ContentText}, c.body, func(sent int64) {
				mu.Lock()
				defer mu.Unlock()
				if over {
					t.Error("progress after the end")
				}
				last = sent
			})
			mu.Lock()
			over = true
			mu.Unlock()
			noLeak(t, err)
			u.mu.Lock()
			defer u.mu.Unlock()
			if got := fmt.Sprint(u.lengths); c.lengths != "" && got != c.lengths {
				t.Errorf("PUTs with lengths %s, want %s", got, c.lengths)
			}
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || u.deleted != 1 || !strings.Contains(err.Error(), "half-made object obj_1 was deleted") {
					t.Errorf("deleted %d times, error: %v", u.deleted, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if u.deleted != 0 || o.State != objects.StateReadOnly || len(u.puts) != 1 || *o.SizeBytes != int64(len(u.puts[0])) || last != *o.SizeBytes {
				t.Errorf("deleted %d times, %+v, %d bodies, last progress %d", u.deleted, o, len(u.puts), last)
			}
			if !strings.HasPrefix(u.puts[0], text) && u.puts[0] != "" {
				t.Errorf("it brought %.60q", u.puts[0])
			}
		})
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestUploadEnds(t *testing.T) {
	req := objects.CreateRequest{Name: "n", ContentType: objects.ContentText}

	t.Run("a complete whose answer was lost is seen to be done", func(t *testing.T) {
		u := newUploads(t, take)
		u.complete = answer(409, `{"code":"not_uploading","message":"not in UPLOADING state"}`, "x-should-retry", "false")
		o, err := newClient(t, u.URL, 0).Upload(t.Context(), req, body("text", 4, 1), nil)
		if err != nil || o.State != objects.StateReadOnly {
			t.Error(o, err)
		}
	})
	t.Run("a server that has another size is not believed", func(t *testing.T) {
		u := newUploads(t, func(u *uploads, w http.ResponseWriter, r *http.Request) {
			take(u, w, r)
			u.mu.Lock()
			*u.size++
			u.mu.Unlock()
		})
		if _, err := newClient(t, u.URL, 0).Upload(t.Context(), req, body("text", 4, 1), nil); err == nil || !strings.Contains(err.Error(), "4 bytes were sent and the server has 5") {
			t.Error(err)
		}
	})
	t.Run("what cannot be deleted is named", func(t *testing.T) {
		u := newUploads(t, say(400))
		u.remove = answer(403, "")
		_, err := newClient(t, u.URL, 0).Upload(t.Context(), req, body("text", 4, 1), nil)
		if err == nil || !strings.Contains(err.Error(), "obj_1 could not be deleted") {
			t.Error(err)
		}
		noLeak(t, err)
	})
	t.Run("a cancelled upload deletes what it began", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		u := newUploads(t, func(u *uploads, w http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 1)
			cancel()
			io.Copy(io.Discard, r.Body)
		})
		pr, pw := io.Pipe()
		go pw.Write([]byte("some, and then nothing for ever"))
		defer pw.Close()
		_, err := newClient(t, u.URL, 0).Upload(ctx, req, objects.Body{Size: -1, Open: func() (io.ReadCloser, error) { return pr, nil }}, nil)
		if !errors.Is(err, context.Canceled) || u.deleted != 1 {
			t.Errorf("deleted %d times, %v", u.deleted, err)
		}
	})
}

// TestUploadMemory: what is held does not depend on the size.
func TestUploadMemory(t *testing.T) {
	const size = 256 << 20
	runtime.GC() // what other tests left is no measure
	var peak peakHeap
	base := peak.now()
	u := newUploads(t, func(u *uploads, w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, io.TeeReader(r.Body, &peak))
		u.mu.Lock()
		u.size = &n
		u.mu.Unlock()
	})
	for _, said := range []int64{size, -1} {
		b := objects.Body{Size: said, Open: func() (io.ReadCloser, error) { return io.NopCloser(io.LimitReader(zeros{}, size)), nil }}
		o, err := newClient(t, u.URL, 0).Upload(t.Context(), objects.CreateRequest{Name: "n", ContentType: objects.ContentText}, b, nil)
		if err != nil || *o.SizeBytes != size {
			t.Fatal(o, err)
		}
	}
	if over := int64(peak.max) - int64(base); over > 32<<20 {
		t.Errorf("%d MiB of heap for an upload of %d MiB", over>>20, size>>20)
	}
}
