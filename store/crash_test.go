package store

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"objectmount/objects"
)

func TestKillDuringUpload(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir)
	v := c.create("a", "")
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		req, _ := http.NewRequest("PUT", v.UploadURL, pr)
		_, err := trySend(c.plain, req)
		done <- err
	}()
	pw.Write(noise(1<<20, 1))
	eventually(t, "half an upload is on the disk", func() bool {
		files := contentFiles(t, dir)
		if len(files) != 1 {
			return false
		}
		fi, err := os.Stat(files[0])
		return err == nil && fi.Size() >= 512<<10
	})
	c.kill()
	pw.CloseWithError(io.ErrClosedPipe)
	if <-done == nil {
		t.Error("the upload had an answer")
	}
	// What a crash between rename and transaction, and one while making a
	// secret, would leave.
	stray := filepath.Join(dir, "content", "5f", v.ID+".5f00000000000000")
	if err := os.MkdirAll(filepath.Dir(stray), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{stray, filepath.Join(dir, "."+urlSecretFile+".123"), filepath.Join(dir, "content", "5f", "not-ours")} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	s := start(t, Options{DataDir: dir})
	if files := s.files(); len(files) != 1 || filepath.Base(files[0]) != "not-ours" {
		t.Errorf("strays after the restart: %v", files)
	}
	if found, _ := filepath.Glob(filepath.Join(dir, ".*")); len(found) != 0 {
		t.Errorf("strays after the restart: %v", found)
	}
	if got := s.ask("GET", "/v1/objects/"+v.ID, ""); got.State != objects.StateUploading || got.SizeBytes != nil {
		t.Errorf("after the restart: %+v", got)
	}
	// The URL is still good: the client can just send it all again.
	_, rest, _ := strings.Cut(strings.TrimPrefix(v.UploadURL, "http://"), "/")
	if a := s.put(s.url+"/"+rest, []byte("whole")); a.status != 200 {
		t.Fatalf("upload again: %d %s", a.status, a.body)
	}
	s.ask("POST", "/v1/objects/"+v.ID+"/complete", "")
	if got := s.content(v.ID); string(got) != "whole" {
		t.Errorf("content %q", got)
	}
}

// told is what a client knows of an object: what the server has confirmed.
type told struct {
	seed     byte
	size     int
	put      bool // the upload was confirmed
	complete bool // so was complete
	deleting bool // delete was asked for
	deleted  bool // and confirmed
}

// knowledge is what all clients know. It is guarded by mu.
type knowledge struct {
	mu  sync.Mutex
	ids map[string]told
}

func (k *knowledge) note(id string, f func(*told)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.ids[id]
	f(&was)
	k.ids[id] = was
}

// client makes objects until the server is gone.
func (k *knowledge) client(c *child, seed byte, rnd *rand.Rand) {
	do := func(method, path string, body io.Reader, client *http.Client) (answered, bool) {
		req, err := http.NewRequest(method, path, body)
		if err != nil {
			panic(err)
		}
		req.Header.Set("Authorization", "Bearer ak_anna_key")
		a, err := trySend(client, req)
		return a, err == nil && a.status == 200
	}
	for i := 0; ; i++ {
		size := rnd.IntN(200_000)
		a, ok := do("POST", c.url+"/v1/objects", strings.NewReader(fmt.Sprintf(`{"name": "%d-%d", "content_type": "binary", "metadata": {"k": "%d"}}`, seed, i, i)), c.calls)
		if !ok {
			return
		}
		id, put := parseCreated(a.body)
		k.note(id, func(o *told) { o.seed, o.size = seed, size })
		if _, ok = do("PUT", put, bytes.NewReader(noise(size, seed)), c.plain); !ok {
			return
		}
		k.note(id, func(o *told) { o.put = true })
		if rnd.IntN(4) == 0 {
			continue
		}
		if _, ok = do("POST", c.url+"/v1/objects/"+id+"/complete", nil, c.calls); !ok {
			return
		}
		k.note(id, func(o *told) { o.complete = true })
		if rnd.IntN(3) == 0 {
			k.note(id, func(o *told) { o.deleting = true })
			if _, ok = do("POST", c.url+"/v1/objects/"+id+"/delete", nil, c.calls); !ok {
				return
			}
			k.note(id, func(o *told) { o.deleted = true })
		}
	}
}

// TestKillAtRandomPoints kills a busy server again and again. After each
// restart what was confirmed holds, what was not is whole or not there, and
// there is not a file too many.
func TestKillAtRandomPoints(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 4
	}
	dir := t.TempDir()
	k := &knowledge{ids: map[string]told{}}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		c := startChild(t, dir)
		var clients sync.WaitGroup
		for i := range 4 {
			mine := rand.New(rand.NewPCG(seed, uint64(round*4+i+1)))
			clients.Go(func() { k.client(c, byte(round*4+i), mine) })
		}
		time.Sleep(time.Duration(rnd.IntN(120)) * time.Millisecond)
		c.kill()
		clients.Wait()
		c.closeClients()
		ok := t.Run(fmt.Sprint("after kill ", round+1), func(t *testing.T) { k.check(t, dir) })
		if !ok {
			return
		}
	}
	t.Logf("%d objects", len(k.ids))
}

// check opens dir again and holds it against what the clients know.
func (k *knowledge) check(t *testing.T, dir string) {
	s := start(t, Options{DataDir: dir})
	whole := 0
	for id, o := range k.ids {
		got := s.ask("GET", "/v1/objects/"+id, "")
		want := objects.StateUploading
		switch {
		case o.deleted:
			want = objects.StateDeleted
		case o.deleting && got.State == objects.StateDeleted:
			want = objects.StateDeleted // done, but the answer was lost
		case o.complete:
			want = objects.StateReadOnly
		case o.put && got.State == objects.StateReadOnly:
			want = objects.StateReadOnly // likewise
		}
		if got.State != want {
			t.Errorf("%s is %s, want %s: %+v", id, got.State, want, o)
		}
		rec, err := lookup(t.Context(), s.store.read, id)
		if err != nil {
			t.Fatal(err)
		}
		if rec.file == "" {
			if o.put && got.State != objects.StateDeleted {
				t.Errorf("%s has lost a confirmed upload: %+v", id, o)
			}
			continue
		}
		whole++
		b, err := os.ReadFile(filepath.Join(dir, "content", rec.file))
		if err != nil || !bytes.Equal(b, noise(o.size, o.seed)) {
			t.Errorf("%s has %d bytes of %d (%v)", id, len(b), o.size, err)
		}
	}
	if files := s.files(); len(files) != whole {
		t.Errorf("%d files for %d contents", len(files), whole)
	}
	// An object that no client knows is one whose creation was not answered.
	q := url.Values{"limit": {"5000"}}
	for _, state := range []string{"", "DELETED"} {
		q.Set("state", state)
		page := s.list("/v1/objects", q)
		if int(*page.TotalCount) != len(page.Objects) {
			t.Errorf("total %d of %d objects", *page.TotalCount, len(page.Objects))
		}
		for _, o := range page.Objects {
			if _, known := k.ids[o.ID]; !known && o.State != objects.StateUploading {
				t.Errorf("nobody knows %+v", o)
			}
		}
	}
	var check string
	if err := s.store.read.QueryRow("PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		t.Errorf("integrity check: %s %v", check, err)
	}
}
