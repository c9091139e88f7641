package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"objectmount/extract"
	"objectmount/objects"
)

func newReceipts(t *testing.T) receipts { return receipts{filepath.Join(t.TempDir(), "mounts")} }

func mustLock(t *testing.T, rs receipts, path string) *lock {
	t.Helper()
	l, err := rs.lock(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestReceiptRoundTrip(t *testing.T) {
	rs := newReceipts(t)
	l := mustLock(t, rs, "/a")
	if rc, err := l.load(); rc != nil || err != nil {
		t.Fatalf("%v %v, want nothing", rc, err)
	}
	want := &receipt{Origin: OriginSpec, Spec: "/s", Inside: []string{"/a/b"},
		Published: &published{wanted: wanted{ObjectID: "o1", Store: "https://s", Digest: "d", Options: "p"}, Identity: objects.Identity{ETag: `"e"`, Size: 3}, Kind: extract.KindTree, Format: "tar",
			RealPath: "/a", Entries: 2, Bytes: 9, Fingerprint: extract.Fingerprint{Dev: 1, Ino: 1 << 63, ChangeTimeNS: -1}, BirthNS: 7, BootID: "b", Time: time.Now().UTC()},
		Staging: &staging{wanted: wanted{Digest: "e"}, StageID: "s", Root: "/.a.stage-s/new", Next: &published{RealPath: "/a/n"}}}
	if err := l.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := l.load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(receipt{}, published{}, staging{}, wanted{})); diff != "" {
		t.Error(diff)
	}
	fi, err := os.Stat(rs.file("/a"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(rs.dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if err := l.remove(); err != nil {
		t.Error(err)
	}
	if err := l.remove(); err != nil {
		t.Errorf("removing it twice: %v", err)
	}
	l.unlock()
	if entries, _ := os.ReadDir(rs.dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestLock: one at a time, although each takes the lock file away.
func TestLock(t *testing.T) {
	rs := newReceipts(t)
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				l, err := rs.lock(t.Context(), "/a", nil)
				if err != nil {
					t.Error(err)
					return
				}
				if n := inside.Add(1); n > 1 {
					most.Store(n)
				}
				inside.Add(-1)
				l.unlock()
			}
		})
	}
	wg.Wait()
	if most.Load() != 0 {
		t.Errorf("%d had the lock at once", most.Load())
	}
	if entries, _ := os.ReadDir(rs.dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestLockWaits(t *testing.T) {
	rs := newReceipts(t)
	l := mustLock(t, rs, "/a")
	mustLock(t, rs, "/b").unlock() // another path is free
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("no more time")
	waited := false
	_, err := rs.lock(ctx, "/a", func() { waited = true; cancel(why) })
	if !waited || !errors.Is(err, why) {
		t.Errorf("waited %v, %v", waited, err)
	}
	l.unlock()
	mustLock(t, rs, "/a").unlock()
}

func TestBadReceipts(t *testing.T) {
	rs := newReceipts(t)
	good := mustLock(t, rs, "/good")
	if err := good.save(&receipt{Origin: OriginManual}); err != nil {
		t.Fatal(err)
	}
	good.unlock()
	for path, text := range map[string]string{
		"/garbage": "\x00\x00\x00",
		"/empty":   "",
		"/newer":   `{"format": 99, "path": "/newer"}`,
		"/other":   `{"format": 1, "path": "/somewhere"}`,
		"/rel":     `{"format": 1, "path": "rel"}`,
		"/unclean": `{"format": 1, "path": "/unclean/"}`,
		"/huge":    `{"format": 1, "path": "/huge", "x": "` + strings.Repeat("x", maxReceipt) + `"}`,
	} {
		if err := os.WriteFile(rs.file(path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if rc, err := rs.load(path); err == nil {
			t.Errorf("%s was taken: %+v", path, rc)
		} else if ErrorHint(err) == "" && path != "/other" {
			t.Errorf("%s: no hint for %v", path, err)
		}
	}
	os.WriteFile(filepath.Join(rs.dir, "README.json"), []byte(`{"format": 1, "path": "/x"}`), 0o600)
	list, bad := rs.all()
	if len(list) != 1 || list[0].Path != "/good" || len(bad) != 8 {
		t.Errorf("%d good, %d bad: %v", len(list), len(bad), bad)
	}
}

// TestTidy: what a killed process was writing goes, what a living one writes stays.
func TestTidy(t *testing.T) {
	rs := newReceipts(t)
	l := mustLock(t, rs, "/living")
	defer l.unlock()
	dead, living := filepath.Join(rs.dir, "."+receiptID("/dead")+".json123"), filepath.Join(rs.dir, "."+receiptID("/living")+".json456")
	other := filepath.Join(rs.dir, ".other")
	for _, name := range []string{dead, living, other} {
		if err := os.WriteFile(name, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if list, bad := rs.all(); len(list)+len(bad) != 0 {
		t.Errorf("half-written receipts are told of: %v %v", list, bad)
	}
	rs.tidy()
	var left []string
	entries, _ := os.ReadDir(rs.dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{filepath.Base(living), ".other", receiptID("/living") + ".lock"}
	if len(left) != 3 || !strings.Contains(strings.Join(left, " "), want[0]) || strings.Contains(strings.Join(left, " "), receiptID("/dead")) {
		t.Errorf("left %v, want %v", left, want)
	}
	receipts{filepath.Join(rs.dir, "none")}.tidy()
}

// FuzzReceipt: a receipt that something else wrote is refused or is whole.
func FuzzReceipt(f *testing.F) {
	f.Add([]byte(`{"format": 1, "path": "/a", "origin": "spec", "published": {"real_path": "/a", "kind": "tree"}}`))
	f.Add([]byte(`{"format": 1, "path": "/a", "staging": {"stage_id": "../x", "next": {}}}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rs := receipts{t.TempDir()}
		if err := os.WriteFile(rs.file("/a"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		rc, err := rs.load("/a")
		if err == nil && (rc.Path != "/a" || rc.Format != receiptFormat) {
			t.Fatalf("taken: %+v", rc)
		}
	})
}
