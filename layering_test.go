package objectmount

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "objectmount"

// mayImport is the import table of the house: which rooms of ours a room's
// (non-test) code may use. A room that is not listed may not exist.
var mayImport = map[string][]string{
	"":                     nil,
	"objects":              nil,
	"cache":                nil,
	"index":                {"internal/inflate"},
	"extract":              {"internal/inflate", "index"},
	"systemd":              nil,
	"mount":                {"index"},
	"store":                {"objects"},
	"agent":                {"objects", "extract", "index", "cache", "mount", "systemd"},
	"cmd/objectmount":      {"agent", "cache", "extract", "index", "mount", "objects", "store", "systemd"},
	"internal/inflate":     nil,
	"internal/archivetest": nil,
	"internal/faulttest":   nil,
	"bench/extract":        nil, // runs the binary
	"bench/fetch":          {"internal/faulttest", "objects"},
	"bench/inflate":        {"internal/inflate"},
	"bench/lazy":           {"internal/faulttest", "store"},
	"bench/inflate/gunzip": {"internal/inflate"},
}

// doors says behind which rooms each dependency stays, so that replacing one
// is a change of one room. The reasons are in CONTRIBUTING.md.
var doors = map[string][]string{
	"github.com/cenkalti/backoff":      {"objects", "agent"},
	"github.com/coreos/go-systemd":     {"systemd"},
	"github.com/dustin/go-humanize":    {"cmd/objectmount", "agent"},
	"github.com/fsnotify/fsnotify":     {"agent"},
	"github.com/google/renameio":       {"agent"},
	"github.com/hanwen/go-fuse":        {"mount"},
	"github.com/klauspost/compress":    {"extract", "index", "bench/inflate", "bench/inflate/gunzip", "bench/lazy"},
	"github.com/moby/patternmatcher":   {"extract"},
	"github.com/moby/sys/mountinfo":    {"mount"},
	"github.com/schollz/progressbar":   {"cmd/objectmount"},
	"github.com/spf13/cobra":           {"cmd/objectmount"},
	"github.com/spf13/pflag":           {"cmd/objectmount"},
	"go.uber.org/zap":                  {"agent", "store", "cmd/objectmount"},
	"golang.org/x/sync":                nil, // nil: any room
	"golang.org/x/sys":                 nil,
	"golang.org/x/term":                {"cmd/objectmount"},
	"golang.org/x/time":                {"objects"},
	"modernc.org/sqlite":               {"store"},
	"github.com/google/go-cmp":         {}, // tests only
	"go.uber.org/goleak":               {},
	"github.com/rogpeppe/go-internal":  {},
	"objectmount/internal/archivetest": {},
	"objectmount/internal/faulttest":   {"bench/fetch", "bench/lazy"}, // else tests only
}

type listed struct {
	ImportPath string
	Doc        string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Doc,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			t.Fatalf("go list: %v\n%s", err, ee.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestLayering holds every import of ours against the table.
func TestLayering(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, known := mayImport[room]
		if !known {
			t.Errorf("room %q is not in the import table of layering_test.go: add it with what it may import", room)
			continue
		}
		for _, imp := range p.Imports {
			dep, ours := strings.CutPrefix(imp, module+"/")
			if ours && !slices.Contains(allowed, dep) {
				t.Errorf("%s imports %s, which the import table does not allow", room, dep)
			}
		}
	}
}

// TestOneDoor checks that each dependency is imported only behind its door,
// and that there is no dependency without one.
func TestOneDoor(t *testing.T) {
	for _, p := range packages(t) {
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") && !strings.HasPrefix(imp, module+"/internal/") {
				continue // the standard library, or a room of ours
			}
			found := imp == module+"/internal/inflate"
			for dep, rooms := range doors {
				if imp != dep && !strings.HasPrefix(imp, dep+"/") {
					continue
				}
				found = true
				if rooms != nil && !slices.Contains(rooms, room) {
					t.Errorf("%s imports %s, whose door is %v", room, imp, rooms)
				}
			}
			if !found {
				t.Errorf("%s imports %s, which has no door: add it here and its reason to CONTRIBUTING.md", room, imp)
			}
		}
	}
}

// TestPackageDocs checks that each room says what it is for.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if len(p.Doc) < 40 {
			t.Errorf("%s has no package doc comment worth the name (%q)", p.ImportPath, p.Doc)
		}
	}
}
