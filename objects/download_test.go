package objects_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// open opens a Reader of the fault server's object.
func open(t *testing.T, s *faulttest.Server, opts objects.ReaderOptions) *objects.Reader {
	t.Helper()
	r, err := objects.Open(t.Context(), signer(s), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// only fails unless dir holds just these names.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	var got []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %v, want %v", got, names)
	}
}

func holds(t *testing.T, path string, want []byte) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, error %v", path, len(got), err)
	}
}

// breaking are 10 MB of an object whose server cuts some requests in their
// middle and is then down for good.
func breaking(data []byte) *faulttest.Server {
	return faulttest.New(faulttest.Options{
		Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: func(n int) faulttest.Fault {
			switch {
			case n == 0:
				return faulttest.Fault{Kind: faulttest.None}
			case n <= 4:
				return faulttest.Fault{Kind: faulttest.ShortBody, At: -1}
			}
			return faulttest.Fault{Kind: faulttest.ResetBeforeHeaders}
		},
	})
}

func TestDownload(t *testing.T) {
	data := content(2 << 20)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Random(7, 0.3, 64<<10, faulttest.ResetMidBody, faulttest.Forbidden, faulttest.ShortRange)})
	defer s.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := patience()
	opts.SHA256 = sum(data)
	r := open(t, s, opts)
	var last, total int64
	err := r.Download(t.Context(), path, func(done, all int64) {
		if done < last {
			t.Errorf("progress went back from %d to %d", last, done)
		}
		last, total = done, all
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != r.Size() || total != r.Size() {
		t.Errorf("the last progress was %d of %d", last, total)
	}
	holds(t, path, data)
	only(t, dir, "file")
}

// TestDownloadResumes: a later run goes on where the first one broke off,
// when the object is the same and the bytes can be believed.
func TestDownloadResumes(t *testing.T) {
	data := content(10 << 20)
	path := func(dir string) string { return filepath.Join(dir, "f") }
	for _, c := range []struct {
		name    string
		between func(t *testing.T, dir string, s *faulttest.Server)
		sum     string
		resumes bool
	}{
		{"the same object", func(*testing.T, string, *faulttest.Server) {}, "", true},
		{"the same object, its SHA-256 known", func(*testing.T, string, *faulttest.Server) {}, sum(data), true},
		{"after a crash of the machine, what was synced", func(t *testing.T, dir string, _ *faulttest.Server) {
			// The error path synced, so the length is right though the boot
			// is another; but bytes that came later would not be believed.
			edit(t, path(dir)+".part.json", func(m map[string]any) { m["boot_id"] = "another" })
			f, err := os.OpenFile(path(dir)+".part", os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.Write(make([]byte, 1000))
			f.Close()
		}, sum(data), true},
		{"another version of the object", func(t *testing.T, dir string, s *faulttest.Server) {
			s.Replace(faulttest.Object{Data: data, ETag: `"v2"`})
		}, "", false},
		{"a sidecar that cannot be read", func(t *testing.T, dir string, s *faulttest.Server) {
			os.WriteFile(path(dir)+".part.json", []byte("{"), 0o600)
		}, "", false},
		{"no sidecar", func(t *testing.T, dir string, s *faulttest.Server) { os.Remove(path(dir) + ".part.json") }, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			s := breaking(data)
			defer s.Close()
			opts := calm()
			opts.RetryBudget = 100 * time.Millisecond
			r := open(t, s, opts)
			if err := r.Download(t.Context(), path(dir), nil); !errors.Is(err, objects.ErrUnreachable) {
				t.Fatalf("want the first run to break off, got %v", err)
			}
			only(t, dir, "f.part", "f.part.json")
			b, _ := os.ReadFile(path(dir) + ".part.json")
			if bytes.Contains(b, []byte(faulttest.Mark)) {
				t.Error("the sidecar holds a secret")
			}

			c.between(t, dir, s)
			s.SetSchedule(faulttest.Script())
			opts.SHA256 = c.sum
			r = open(t, s, opts)
			if err := r.Download(t.Context(), path(dir), nil); err != nil {
				t.Fatal(err)
			}
			holds(t, path(dir), data)
			only(t, dir, "f")
			if got := r.Stats().Bytes < int64(len(data))*3/4; got != c.resumes {
				t.Errorf("the second run received %d of %d bytes", r.Stats().Bytes, len(data))
			}
		})
	}
}

func edit(t *testing.T, name string, f func(map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(name)
	var m map[string]any
	if err != nil || json.Unmarshal(b, &m) != nil {
		t.Fatal(err, string(b))
	}
	f(m)
	b, _ = json.Marshal(m)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDownloadFails: whatever goes wrong, path is as it was.
func TestDownloadFails(t *testing.T) {
	data := content(600 << 10)
	flip := faulttest.Fault{Kind: faulttest.BitFlip, At: 5}
	none := faulttest.Fault{Kind: faulttest.None}
	for _, c := range []struct {
		name     string
		schedule faulttest.Schedule
		path     string
		want     error
		left     []string
	}{
		{"a bit flipped once is fetched again", faulttest.Script(flip), "f", nil, []string{"f"}},
		{"a bit flipped once, later, too", faulttest.Script(none, flip), "f", nil, []string{"f"}},
		{"a bit flipped every time is not taken", faulttest.Always(flip), "f", objects.ErrChecksum, []string{"f"}},
		{"an object that changes meanwhile", faulttest.Script(none, faulttest.Fault{Kind: faulttest.Replaced}), "f", objects.ErrChanged, []string{"f"}},
		{"a directory in the way", faulttest.Script(), ".", syscall.EISDIR, []string{"f"}},
		{"no such directory", faulttest.Script(), "no/f", os.ErrNotExist, []string{"f"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			os.WriteFile(filepath.Join(dir, "f"), []byte("before"), 0o600)
			s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}, Schedule: c.schedule})
			defer s.Close()
			opts := calm()
			opts.SHA256 = sum(data)
			err := open(t, s, opts).Download(t.Context(), filepath.Join(dir, c.path), nil)
			noLeak(t, err)
			if !errors.Is(err, c.want) {
				t.Errorf("want %v, got %v", c.want, err)
			}
			want := data
			if c.want != nil {
				want = []byte("before")
			}
			holds(t, filepath.Join(dir, "f"), want)
			only(t, dir, c.left...)
		})
	}
}

// TestDownloadFromPoorServer: one that knows no ranges, or gives no
// validators, is read in one piece, and from 0 again when that breaks.
func TestDownloadFromPoorServer(t *testing.T) {
	data := content(3 << 20)
	for _, kind := range []faulttest.Kind{faulttest.IgnoreRange, faulttest.NoValidator} {
		s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
			Schedule: func(n int) faulttest.Fault {
				if n == 1 {
					return faulttest.Fault{Kind: faulttest.ResetMidBody, At: 2 << 20}
				}
				return faulttest.Fault{Kind: kind}
			}})
		path := filepath.Join(t.TempDir(), "f")
		if err := open(t, s, calm()).Download(t.Context(), path, nil); err != nil {
			t.Errorf("%s: %v\nfaults:%s", kind, err, s.Faults())
		}
		holds(t, path, data)
		s.Close()
	}
}

func TestDownloadsExcludeEachOther(t *testing.T) {
	data := content(600 << 10)
	none := faulttest.Fault{Kind: faulttest.None}
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`},
		Schedule: faulttest.Script(none, none, faulttest.Fault{Kind: faulttest.StallBody, At: -1})})
	defer s.Close()
	path := filepath.Join(t.TempDir(), "f")
	opts := patience()
	opts.IdleTimeout = time.Minute
	a, b := open(t, s, opts), open(t, s, opts)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error)
	go func() { done <- a.Download(ctx, path, nil) }()
	for len(s.Requests()) < 3 {
		time.Sleep(time.Millisecond)
	}
	if err := b.Download(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "another download") {
		t.Errorf("two at the same time: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := b.Download(t.Context(), path, nil); err != nil {
		t.Error(err)
	}
	holds(t, path, data)
}

// TestEmptyDownload: an empty object is an empty file.
func TestEmptyDownload(t *testing.T) {
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{ETag: `"v1"`}})
	defer s.Close()
	path := filepath.Join(t.TempDir(), "f")
	if err := open(t, s, patience()).Download(t.Context(), path, nil); err != nil {
		t.Error(err)
	}
	holds(t, path, nil)
}
