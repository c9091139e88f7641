package extract

import (
	"bytes"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"objectmount/internal/archivetest"
)

// TestCVE is what broke other programs. Most are archives, held to the same
// laws as all others; the rest is told here.
func TestCVE(t *testing.T) {
	s := newSandbox(t)
	for _, c := range archivetest.CVEs(s.outside) {
		t.Run(c.Name, func(t *testing.T) { lawful(t, s, c, nil) })
	}
	for id, test := range map[string]func(t *testing.T){
		"CVE-2018-15664":      exchangedParent,
		"CVE-2019-14271":      runsNothing,
		"GHSA-x86f-5xw2-fm2r": runsNothing,
		"CVE-2025-45582":      twoArchives,
		"CVE-2026-27139":      oldTreeWithLinks,
	} {
		t.Run(id, test)
	}
}

// exchangedParent: docker cp resolved a path, and then somebody exchanged a
// directory on it for a link. What we opened is what we write to.
func exchangedParent(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/home/user", 0o755))
	must(t, os.Mkdir(dir+"/outside", 0o755))
	exchange := func() {
		must(t, os.Rename(dir+"/home/user", dir+"/home/moved"))
		must(t, os.Symlink(dir+"/outside", dir+"/home/user"))
	}
	large := archivetest.Tar(archivetest.File("a", strings.Repeat("a", (ringBuffers+2)*ringBuffer)), archivetest.File("evil", "x"))
	exchanged := false
	r := io.MultiReader(bytes.NewReader(large[:len(large)-2000]), readerFunc(func([]byte) (int, error) {
		if !exchanged { // the ring is full: the stage is there
			exchanged = true
			exchange()
		}
		return 0, io.EOF
	}), bytes.NewReader(large[len(large)-2000:]))
	_, err := Extract(t.Context(), r, dir+"/home/user/data", Options{})
	if left, _ := os.ReadDir(dir + "/outside"); !exchanged || len(left) > 0 {
		t.Errorf("exchanged: %v; outside: %v", exchanged, left)
	}
	if err == nil && !exists(dir+"/home/moved/data/evil") {
		t.Error("it is nowhere")
	}
}

// twoArchives: GNU tar wrote the second archive through a link of the first.
func twoArchives(t *testing.T) {
	s := newSandbox(t)
	before := s.around(t)
	extractBytes(t, archivetest.Tar(archivetest.Symlink("l", s.outside), archivetest.File("a", "x")), s.target, Options{})
	for _, entry := range [][]byte{
		archivetest.File("l/evil", "x"), archivetest.Dir("l/"), archivetest.HardLink("h", "l/canary"), archivetest.HardLink("h", "a"),
	} {
		_, err := Extract(t.Context(), bytes.NewReader(archivetest.Tar(entry)), s.target, Options{OnConflict: ConflictMerge})
		if !errors.Is(err, ErrConflict) && !errors.Is(err, ErrUnsafe) {
			t.Errorf("merging gave %v", err)
		}
	}
	// A mount below the first goes through its links neither.
	refuses(t, oneFile, s.target+"/l/evil", Options{Within: s.target}, ErrConflict)
	if diff := s.around(t); diff != before {
		t.Errorf("something around the target changed:\n%s", diff)
	}
}

// oldTreeWithLinks: os.Root told of files outside when a directory of the tree
// was exchanged for a link while it was read. What we delete and compare may be
// full of links.
func oldTreeWithLinks(t *testing.T) {
	s := newSandbox(t)
	before := s.around(t)
	res := extractBytes(t, oneFile, s.target, Options{})
	must(t, os.Symlink(s.outside, s.target+"/l"))
	must(t, os.Symlink("..", s.target+"/up"))
	must(t, os.Link(s.outside+"/canary", s.dir+"/1/link"))
	must(t, os.Rename(s.dir+"/1/link", s.target+"/hard"))
	defer func() {
		if got := s.around(t); got != before {
			t.Errorf("something around the target changed:\n%s", got)
		}
	}()
	if edited, err := Edited(s.target, res.Fingerprint); !edited || err != nil {
		t.Errorf("Edited = %v, %v", edited, err)
	}
	res = extractBytes(t, oneFile, s.target, Options{OnConflict: ConflictReplace})
	must(t, os.Symlink(s.outside, s.target+"/l"))
	must(t, Remove(s.target, res.Fingerprint))
}

// runsNothing: other programs ran a decompressor that they found in the
// container, or loaded its libraries. We decode by ourselves, and what we
// cannot decode is a plain file.
func runsNothing(t *testing.T) {
	for _, dir := range []string{".", "../index", "../internal/inflate"} {
		files, err := filepath.Glob(dir + "/*.go")
		must(t, err)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			must(t, err)
			for _, imp := range f.Imports {
				switch imp.Path.Value {
				case `"os/exec"`, `"plugin"`, `"C"`, `"os/user"`:
					t.Errorf("%s imports %s", file, imp.Path.Value)
				}
			}
		}
	}
	for _, magic := range []string{"\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "BZh9", "\x1f\x9d"} {
		path := t.TempDir() + "/x"
		extractBytes(t, []byte(magic+"evil"), path, Options{Name: "data.bin"})
		if readFile(t, path) != magic+"evil" {
			t.Errorf("%q was not kept as it is", magic)
		}
	}
}
