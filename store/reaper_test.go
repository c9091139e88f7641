package store

import (
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"objectmount/objects"
)

// filesGone removes all content, as no one but a test would.
func filesGone(s *server) error {
	for _, f := range s.files() {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

func TestTTL(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now})
	short := s.object("short", []byte("x"), `, "ttl_ms": 60000, "metadata": {"k": "v"}`)
	uploading := s.create("uploading", `, "ttl_ms": 60000`)
	s.put(uploading.UploadURL, []byte("x"))
	long := s.object("long", []byte("x"), `, "ttl_ms": 120000`)
	url := s.downloadURL(short.ID, "")
	c.add(time.Minute - time.Millisecond)
	if v := s.ask("GET", "/v1/objects/"+short.ID, ""); v.State != objects.StateReadOnly {
		t.Errorf("a moment before its end: %+v", v)
	}
	c.add(time.Millisecond)
	// Nobody waits for the reaper to see that it is over.
	s.want("content", s.get("GET", url), 404, "not_found")
	if v := s.ask("GET", "/v1/objects/"+short.ID, ""); v.State != objects.StateDeleted {
		t.Errorf("at its end: %+v", v)
	}
	s.want("complete", s.call("POST", "/v1/objects/"+uploading.ID+"/complete", ""), 409, "not_uploading")
	s.want("upload", s.put(uploading.UploadURL, nil), 409, "not_uploading")
	if v := s.ask("GET", "/v1/objects/"+long.ID, ""); v.State != objects.StateReadOnly || len(s.files()) != 1 {
		t.Errorf("one that has time left: %+v, %v", v, s.files())
	}
	c.add(time.Minute)
	// And if nobody asks, the reaper comes.
	eventually(t, "the reaper deletes", func() bool { return s.store.Stats().Expired == 3 && len(s.files()) == 0 })
	if page := s.list("/v1/objects", nil); len(page.Objects) != 0 {
		t.Errorf("list: %+v", page)
	}
	if a := s.call("GET", "/v1/objects/metadata/keys", ""); string(a.body) != `{"keys":[]}`+"\n" {
		t.Errorf("metadata of deleted objects: %s", a.body)
	}
}

func TestManyExpireAtOnce(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now})
	const n = reapBatch*2 + 1
	tx, err := s.store.write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := tx.Exec(`INSERT INTO objects (id, account, name, content_type, state, is_public, create_ms, delete_after_ms)
			VALUES (?, 'anna', 'a', 'text', 'UPLOADING', 0, 0, 0)`, s.store.ids.next(c.Now())); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are deleted", func() bool { return s.store.Stats().Expired == n })
}

func TestUploadsThatNeverCome(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now, UploadDuration: time.Hour})
	empty := s.create("empty", "")
	whole := s.create("whole", "")
	coming := s.create("coming", "")
	s.put(whole.UploadURL, []byte("x"))
	pr, pw := io.Pipe()
	done := make(chan answered, 1)
	go func() {
		req, _ := http.NewRequest("PUT", coming.UploadURL, pr)
		a, _ := trySend(s.plain, req)
		done <- a
	}()
	pw.Write([]byte("x"))
	eventually(t, "the upload begins", func() bool { return s.store.flights.has(coming.ID) })

	c.add(time.Hour)
	if n, err := s.store.giveUp(t.Context()); n != 0 || err != nil {
		t.Errorf("given up %d, %v: an upload may have begun in the last moment", n, err)
	}
	c.add(uploadGrace)
	if n, err := s.store.giveUp(t.Context()); n != 1 || err != nil {
		t.Errorf("given up %d, %v", n, err)
	}
	if v := s.ask("GET", "/v1/objects/"+empty.ID, ""); v.State != objects.StateError {
		t.Errorf("nothing uploaded: %+v", v)
	}
	s.want("complete", s.call("POST", "/v1/objects/"+empty.ID+"/complete", ""), 409, "not_uploading")
	if v := s.ask("POST", "/v1/objects/"+whole.ID+"/complete", ""); v.State != objects.StateReadOnly {
		t.Errorf("uploaded, complete late: %+v", v)
	}
	pw.Close()
	if a := <-done; a.status != 200 {
		t.Errorf("long upload: %d %s", a.status, a.body)
	}
	if v := s.ask("POST", "/v1/objects/"+coming.ID+"/complete", ""); v.State != objects.StateReadOnly {
		t.Errorf("long upload: %+v", v)
	}
	if v := s.ask("POST", "/v1/objects/"+empty.ID+"/delete", ""); v.State != objects.StateDeleted {
		t.Errorf("delete of a failed object: %+v", v)
	}
}

func TestTombstonesAreForgotten(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now})
	v := s.object("a", []byte("x"), "", "x-request-id: r")
	s.ask("POST", "/v1/objects/"+v.ID+"/delete", "", "x-request-id: r")
	c.add(keepTombs - time.Second)
	if n, err := s.store.forget(t.Context()); n != 0 || err != nil {
		t.Errorf("forgotten too early: %d, %v", n, err)
	}
	c.add(time.Second)
	if n, err := s.store.forget(t.Context()); n != 1 || err != nil {
		t.Errorf("forgotten: %d, %v", n, err)
	}
	s.want("get", s.call("GET", "/v1/objects/"+v.ID, ""), 404, "not_found")
	if n, err := s.store.forgetCalls(t.Context()); n != 3 || err != nil {
		t.Errorf("calls forgotten: %d, %v", n, err)
	}
	if page := s.list("/v1/objects", map[string][]string{"state": {"DELETED"}}); *page.TotalCount != 0 {
		t.Errorf("total %d", *page.TotalCount)
	}
}
