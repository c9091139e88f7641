package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/internal/archivetest"
)

// sandbox is a directory with a path to extract to and canaries around it:
// a file and a directory called "outside" on each of the four levels above.
//
//	<dir>/outside/canary
//	<dir>/1/outside/canary
//	<dir>/1/2/outside/canary
//	<dir>/1/2/3/outside/canary
//	<dir>/1/2/3/target
type sandbox struct {
	dir, target, outside string
}

func newSandbox(t testing.TB) sandbox {
	t.Helper()
	return sandboxIn(t, t.TempDir())
}

func sandboxIn(t testing.TB, dir string) sandbox {
	t.Helper()
	s := sandbox{dir: dir, outside: filepath.Join(dir, "outside")}
	at := dir
	for _, next := range []string{"1", "2", "3", ""} {
		if err := os.Mkdir(filepath.Join(at, "outside"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, "outside/canary"), []byte("alive"), 0o640); err != nil {
			t.Fatal(err)
		}
		if next != "" {
			at = filepath.Join(at, next)
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.target = filepath.Join(at, "target")
	return s
}

// around describes everything in the sandbox but the target: names, types,
// modes, owners, links, content. A stage that was left shows here.
func (s sandbox) around(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == s.target {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(&b, "%v %d:%d %s", info.Mode(), st.Uid, st.Gid, path)
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d links %d ns %q", st.Nlink, info.ModTime().UnixNano(), content)
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// list reads the tree at the target.
func (s sandbox) list(t testing.TB) archivetest.Tree {
	t.Helper()
	return listTree(t, s.target)
}

// testStart: times after it come from the clock.
var testStart = time.Now().Add(-time.Second)

func listTree(t testing.TB, dir string) archivetest.Tree {
	t.Helper()
	tree, err := archivetest.List(dir, testStart)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// sentinel maps an outcome of a case to our error.
func sentinel(o archivetest.Outcome) error {
	return map[archivetest.Outcome]error{
		archivetest.Corrupt: ErrCorrupt, archivetest.Unsafe: ErrUnsafe, archivetest.Limit: ErrLimit,
	}[o]
}

// extractBytes extracts data that must be accepted.
func extractBytes(t testing.TB, data []byte, path string, opts Options) Result {
	t.Helper()
	res, err := Extract(context.Background(), bytes.NewReader(data), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// refuses extracts data that must be refused with an error that is want.
func refuses(t testing.TB, data []byte, path string, opts Options, want error) error {
	t.Helper()
	_, err := Extract(context.Background(), bytes.NewReader(data), path, opts)
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lacking ends a test that needs what this machine does not have. In CI that
// is a failure, but for the tests that are run again as another user.
func lacking(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" && os.Geteuid() == 0 {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
