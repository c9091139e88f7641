package extract

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

func (s sandbox) options(c archivetest.Case) Options {
	return Options{Name: c.Object, ContentType: c.Type, Limits: Limits{Entries: c.MaxEntries, Bytes: c.MaxBytes}}
}

// TestCases holds every archive of archivetest to the laws: nothing around
// the target changes; a refusal has the right reason and leaves nothing; what
// is accepted is the tree that the case describes.
func TestCases(t *testing.T) {
	for _, walk := range []bool{false, true} {
		name := map[bool]string{false: "openat2", true: "component walk"}[walk]
		t.Run(name, func(t *testing.T) {
			noOpenat2.Store(walk)
			defer noOpenat2.Store(false)
			// One sandbox for all: each case leaves it as it was, or fails.
			s := newSandbox(t)
			for _, c := range archivetest.Cases(s.outside) {
				t.Run(c.Name, func(t *testing.T) { lawful(t, s, c, nil) })
			}
		})
	}
}

func lawful(t *testing.T, s sandbox, c archivetest.Case, x *index.Index) {
	before := s.around(t)
	start := time.Now()
	opts := s.options(c)
	opts.Index = x
	res, err := Extract(context.Background(), bytes.NewReader(c.Data), s.target, opts)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
	if diff := cmp.Diff(before, s.around(t)); diff != "" {
		t.Errorf("something around the target changed:\n%s", diff)
	}
	if c.Want != archivetest.Accept {
		if !errors.Is(err, sentinel(c.Want)) {
			t.Errorf("error %v, want %v", err, sentinel(c.Want))
		}
		if exists(s.target) {
			t.Errorf("refused, but something is at the target:\n%v", listTree(t, s.target))
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if edited, err := Edited(res.Path, res.Fingerprint); edited || err != nil {
		t.Errorf("Edited right after = %v, %v", edited, err)
	}
	defer func() {
		must(t, Remove(res.Path, res.Fingerprint))
		if diff := cmp.Diff(before, s.around(t)); diff != "" || exists(s.target) {
			t.Errorf("Remove left something:\n%s", diff)
		}
	}()
	if c.File {
		if res.Kind != KindFile || readFile(t, s.target) != c.Body {
			t.Errorf("%s with content %q, want a file with %q", res.Kind, readFile(t, s.target), c.Body)
		}
		return
	}
	if res.Kind != KindTree {
		t.Fatalf("became a %s", res.Kind)
	}
	// The archive does not rule over object_path itself.
	if st, err := os.Lstat(s.target); err != nil || st.Mode() != os.ModeDir|0o755 || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() || !st.ModTime().After(testStart) {
		t.Errorf("the root is %v, %v", st, err)
	}
	got := s.list(t)
	if os.Geteuid() != 0 {
		c.Tree, got = hideUnreadable(c.Tree), hideUnreadable(got)
	}
	if diff := cmp.Diff(c.Tree, got.Forget(c.Tree)); diff != "" {
		t.Errorf("another tree (-want +got):\n%s", diff)
	}
}

// hideUnreadable forgets the content of files that their owner may not read.
func hideUnreadable(tree archivetest.Tree) archivetest.Tree {
	for path, n := range tree {
		if n.Mode.IsRegular() && n.Mode&0o400 == 0 {
			n.Content = ""
			tree[path] = n
		}
	}
	return tree
}

// TestAsTarDoes compares what is accepted with what GNU tar makes of it.
func TestAsTarDoes(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		lacking(t, "there is no tar to compare with")
	}
	for _, c := range archivetest.Cases("/nowhere") {
		if c.Want != archivetest.Accept || c.File || c.Differs != "" { // TestDifferencesFromTar has those
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			s := newSandbox(t)
			extractBytes(t, c.Data, s.target, s.options(c))
			want, took := askTar(t, c)
			if !took {
				t.Fatal("tar does not take it")
			}
			got := s.list(t)
			if diff := cmp.Diff(want.Forget(c.Tree), got.Forget(c.Tree)); diff != "" {
				t.Errorf("not as tar does (-tar +ours):\n%s", diff)
			}
			writable(s.dir)
		})
	}
}

// writable lets the test clean up what is read-only.
func writable(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
}
