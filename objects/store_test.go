package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"objectmount/objects"
	"objectmount/store"
)

// server is the real store on a free port, with two accounts.
type server struct {
	url  string
	stop func()
}

func newStore(t *testing.T, dir string) *server {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{DataDir: dir, ShutdownGrace: time.Second, Keys: []store.Account{
		{Name: "alice", Key: key}, {Name: "bob", Key: "ak_CANARY7f3a_bob"}}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- st.Serve(ctx, l, nil) }()
	s := &server{url: "http://" + l.Addr().String()}
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// TestWithStore goes through an object's life with every call, against the
// real server.
func TestWithStore(t *testing.T) {
	s := newStore(t, t.TempDir())
	c := newClient(t, s.url+"/", 0)
	ctx := t.Context()
	data := content(3 << 20)
	ttl := int64(3600_000)

	var last int64
	o, err := c.Upload(ctx, objects.CreateRequest{Name: "set.bin", ContentType: objects.ContentBinary,
		Metadata: map[string]string{"team/a": "x y"}, TTLMS: &ttl},
		objects.Body{Size: int64(len(data)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }},
		func(n int64) { last = n })
	if err != nil {
		t.Fatal(err)
	}
	if o.State != objects.StateReadOnly || *o.SizeBytes != int64(len(data)) || last != int64(len(data)) ||
		o.Metadata["team/a"] != "x y" || o.DeleteAfterTimeMS == nil {
		t.Errorf("%+v", o)
	}
	text, err := c.Upload(ctx, objects.CreateRequest{Name: "t.txt", ContentType: objects.DetectContentType("t.txt"), IsPublic: true}, body("text", -1, 1), nil)
	if err != nil || *text.SizeBytes != 4 || !text.IsPublic {
		t.Fatal(text, err)
	}
	empty, err := c.Upload(ctx, objects.CreateRequest{Name: "empty", ContentType: objects.ContentUnspecified}, body("", 0, 1), nil)
	if err != nil || *empty.SizeBytes != 0 {
		t.Fatal(empty, err)
	}

	if got, err := c.Get(ctx, o.ID); err != nil || got.Name != "set.bin" || got.CreateTimeMS != o.CreateTimeMS {
		t.Error(got, err)
	}
	if p, err := c.List(ctx, objects.ListQuery{Name: "set"}); err != nil || len(p.Objects) != 1 || p.TotalCount == nil || *p.TotalCount != 1 {
		t.Error(p, err)
	}
	if p, err := c.List(ctx, objects.ListQuery{Search: text.ID, NoTotal: true}); err != nil || len(p.Objects) != 1 || p.TotalCount != nil {
		t.Error(p, err)
	}
	var ids []string
	for o, err := range c.All(ctx, objects.ListQuery{Limit: 1}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, o.ID)
	}
	if fmt.Sprint(ids) != fmt.Sprint([]string{empty.ID, text.ID, o.ID}) {
		t.Error("listed:", ids)
	}
	if keys, err := c.MetadataKeys(ctx); err != nil || fmt.Sprint(keys) != "[team/a]" {
		t.Error(keys, err)
	}
	if vs, err := c.MetadataValues(ctx, "team/a"); err != nil || fmt.Sprint(vs) != "[x y]" {
		t.Error(vs, err)
	}

	for _, obj := range []objects.Object{o, text, empty} {
		want := map[string][]byte{o.ID: data, text.ID: []byte("text"), empty.ID: nil}[obj.ID]
		r, err := objects.Open(ctx, c.Minter(obj.ID, time.Minute), objects.ReaderOptions{Size: obj.SizeBytes, SHA256: sum(want)})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := r.Download(ctx, path, nil); err != nil {
			t.Error(err)
		}
		holds(t, path, want)
		if len(want) > 0 && !r.Identity().Proven() {
			t.Errorf("%+v", r.Identity())
		}
		r.Close()
	}

	// Strangers see what is public and nothing else.
	bob, err := objects.New(objects.Options{BaseURL: s.url, Key: "ak_CANARY7f3a_bob"})
	if err != nil {
		t.Fatal(err)
	}
	defer bob.Close()
	if _, err := bob.Get(ctx, o.ID); !errors.Is(err, objects.ErrNotFound) {
		t.Error(err)
	}
	if p, err := bob.List(ctx, objects.ListQuery{Public: true}); err != nil || len(p.Objects) != 1 || p.Objects[0].ID != text.ID {
		t.Error(p, err)
	}
	nobody, _ := objects.New(objects.Options{BaseURL: s.url, Key: "ak_CANARY7f3a_wrong"})
	defer nobody.Close()
	_, err = nobody.Get(ctx, o.ID)
	if !errors.Is(err, objects.ErrCredentials) {
		t.Error(err)
	}
	noLeak(t, err)

	// A URL that was signed before the object was deleted, and one after.
	r, err := objects.Open(ctx, c.Minter(o.ID, time.Minute), objects.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 2 {
		if d, err := c.Delete(ctx, o.ID); err != nil || d.State != objects.StateDeleted {
			t.Error(d, err)
		}
	}
	if g, err := c.Get(ctx, o.ID); err != nil || g.State != objects.StateDeleted {
		t.Error(g, err)
	}
	if _, err := c.DownloadURL(ctx, o.ID, 0); !errors.Is(err, objects.ErrDeleted) {
		t.Error(err)
	}
	if _, err := r.ReadAtContext(ctx, make([]byte, 1), 2<<20); !errors.Is(err, objects.ErrNotFound) {
		t.Error(err)
	}
	if _, err := c.Complete(ctx, o.ID); err == nil || errors.Is(err, objects.ErrUnreachable) {
		t.Error(err)
	}
}

// TestStoreFails: what a caller can act on comes out as what it is.
func TestStoreFails(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, dir)
	c := newClient(t, s.url, time.Second)
	ctx := t.Context()
	if _, err := c.Get(ctx, "obj_"+strings.Repeat("0", 21)); !errors.Is(err, objects.ErrNotFound) {
		t.Error(err)
	}
	made, err := c.Create(ctx, objects.CreateRequest{Name: "n", ContentType: objects.ContentText})
	if err != nil || made.State != objects.StateUploading || made.UploadURL == "" {
		t.Fatal(made, err)
	}
	if _, err := c.DownloadURL(ctx, made.ID, 0); err == nil || !strings.Contains(err.Error(), "UPLOADING") {
		t.Error(err)
	}
	if _, err := c.Complete(ctx, made.ID); err == nil {
		t.Error("completed without content")
	} else {
		t.Log(err)
	}

	// An object whose URL expires at once, read slowly by one Reader.
	data := content(1 << 20)
	o, err := c.Upload(ctx, objects.CreateRequest{Name: "n", ContentType: objects.ContentText},
		objects.Body{Size: 1 << 20, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	short, err := c.DownloadURL(ctx, o.ID, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if short.Expires.IsZero() || short.Expires.Sub(short.Issued) > 3*time.Second {
		t.Errorf("issued %s, expires %s", short.Issued, short.Expires)
	}
	renewing, err := objects.Open(ctx, c.Minter(o.ID, time.Second), objects.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer renewing.Close()
	fixed, err := objects.Open(ctx, objects.FixedURL(short.URL), objects.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer fixed.Close()
	time.Sleep(2100 * time.Millisecond)
	p := make([]byte, 100)
	if _, err := renewing.ReadAtContext(ctx, p, 900_000); err != nil || !bytes.Equal(p, data[900_000:900_100]) {
		t.Error(err)
	}
	_, err = fixed.ReadAtContext(ctx, p, 900_000)
	if !errors.Is(err, objects.ErrExpired) {
		t.Error(err)
	}
	noLeak(t, err)
	t.Log(err)

	// The server goes down in the middle, and comes back.
	s.stop()
	if _, err := c.Get(ctx, o.ID); !errors.Is(err, objects.ErrUnreachable) {
		t.Error(err)
	}
}
