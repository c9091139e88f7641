package store

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"objectmount/objects"
)

func TestRepeatedCalls(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now})
	const again = "x-request-id: stainless-node-retry-1"

	first := s.create("a", "", again)
	second := s.create("a", "", again)
	if first.ID != second.ID || first.UploadURL != second.UploadURL {
		t.Errorf("a repeated create made another object: %+v, %+v", first, second)
	}
	if other := s.create("a", "", "x-request-id: stainless-node-retry-2"); other.ID == first.ID {
		t.Error("another request id gave the same object")
	}
	if other := s.create("a", "", again, asBert); other.ID == first.ID {
		t.Error("another account's request id gave the same object")
	}
	a := s.call("POST", "/v1/objects", `{"name": "b", "content_type": "binary"}`, again)
	s.want("same request id, other body", a, 409, "request_id_reused")
	// Spelling is not content.
	if got := s.ask("POST", "/v1/objects", `{"content_type":"binary","name":"\u0061","metadata":null}`, again); got.ID != first.ID {
		t.Error("the same create, spelled otherwise, made another object")
	}

	s.put(first.UploadURL, []byte("x"))
	path := "/v1/objects/" + first.ID
	// The first answer to complete is lost; the client asks again.
	for range 3 {
		if v := s.ask("POST", path+"/complete", "", again); v.State != objects.StateReadOnly {
			t.Errorf("complete: %+v", v)
		}
	}
	s.want("a complete of its own", s.call("POST", path+"/complete", "", "x-request-id: other"), 409, "not_uploading")
	// A repeated create shows the object as it is by now.
	if v := s.create("a", "", again); v.State != objects.StateReadOnly || v.UploadURL != "" {
		t.Errorf("repeated create after complete: %+v", v)
	}
	for range 2 {
		if v := s.ask("POST", path+"/delete", "", again); v.State != objects.StateDeleted {
			t.Errorf("delete: %+v", v)
		}
	}
	if got := s.store.Stats(); got.Created != 3 || got.Replays != 6 || got.Deleted != 1 {
		t.Errorf("stats: %+v", got)
	}

	c.add(rememberFor)
	if v := s.create("a", "", again); v.ID == first.ID {
		t.Error("a request id is remembered for longer than it should be")
	}
}

func TestRefusalsAreNotRemembered(t *testing.T) {
	s := start(t, Options{})
	v := s.create("a", "")
	const id = "x-request-id: r"
	s.want("too early", s.call("POST", "/v1/objects/"+v.ID+"/complete", "", id), 409, "nothing_uploaded")
	s.put(v.UploadURL, nil)
	if got := s.ask("POST", "/v1/objects/"+v.ID+"/complete", "", id); got.State != objects.StateReadOnly {
		t.Errorf("complete: %+v", got)
	}
}

func TestLongRequestIDs(t *testing.T) {
	s := start(t, Options{})
	id := "x-request-id: " + strings.Repeat("r", maxRequestID+1)
	if first, second := s.create("a", "", id), s.create("a", "", id); first.ID == second.ID {
		t.Error("an overlong request id was remembered")
	}
}

// Tries that overlap make one object.
func TestOverlappingTries(t *testing.T) {
	s := start(t, Options{})
	var wg sync.WaitGroup
	ids := make([]string, 20)
	for i := range ids {
		wg.Go(func() {
			ids[i] = s.create("a", "", fmt.Sprintf("x-request-id: r%d", i%2)).ID
		})
	}
	wg.Wait()
	for i := range ids {
		if ids[i] != ids[i%2] {
			t.Fatalf("overlapping tries made different objects: %v", ids)
		}
	}
	if ids[0] == ids[1] {
		t.Error("two calls made one object")
	}
}

func TestMemoryOfCallsIsBounded(t *testing.T) {
	s := start(t, Options{})
	v := s.create("a", "", "x-request-id: oldest")
	// As if so many calls had come in between.
	if _, err := s.store.write.Exec("INSERT INTO requests VALUES (?, x'00', x'00', ?, ?)", rememberCalls, v.ID, time.Now().UnixMilli()); err != nil {
		t.Fatal(err)
	}
	if s.create("a", "", "x-request-id: newest").ID == v.ID {
		t.Error("two calls gave one object")
	}
	if s.create("a", "", "x-request-id: oldest").ID == v.ID {
		t.Error("the oldest call was not forgotten")
	}
	var n int
	if err := s.store.read.QueryRow("SELECT count(*) FROM requests").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d calls remembered (%v)", n, err)
	}
}
