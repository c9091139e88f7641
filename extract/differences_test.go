package extract

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/internal/archivetest"
)

var update = flag.Bool("update", false, "write docs/differences-from-tar.md anew")

const differencesFile = "../docs/differences-from-tar.md"

// fileSystemDecides are the refused archives of which GNU tar's opinion depends
// on the file system, not on the archive: they are in no table.
var fileSystemDecides = map[string]bool{
	"a directory over a link":                           true,
	"a hole of 4 EiB":                                   true,
	"a hole of 1 PiB in format 1.0":                     true,
	"a directory entry that sets a mode through a link": true,
}

// TestDifferencesFromTar asks GNU tar about every archive and holds the answer
// against docs/differences-from-tar.md: what is made differently, and what is
// refused here although tar takes it. A difference that is not in the document
// fails, and so does one that is in it and no more.
func TestDifferencesFromTar(t *testing.T) {
	needRoot(t) // tar does more as root
	var differ, refused strings.Builder
	for _, c := range archivetest.Cases("/nowhere") {
		if c.File || c.MaxEntries+c.MaxBytes > 0 || fileSystemDecides[c.Name] || (c.Object != "" && !strings.Contains(c.Object, ".t")) {
			continue
		}
		tree, took := askTar(t, c)
		switch {
		case c.Want == archivetest.Accept && c.Differs != "":
			s := newSandbox(t)
			extractBytes(t, c.Data, s.target, s.options(c))
			if took && cmp.Equal(tree.Forget(c.Tree), s.list(t).Forget(c.Tree)) {
				t.Errorf("%s: is said to differ (%s), but tar makes the same", c.Name, c.Differs)
			}
			writable(s.dir)
			fmt.Fprintf(&differ, "| %s | %s |\n", c.Name, c.Differs)
		case c.Want != archivetest.Accept && took:
			fmt.Fprintf(&refused, "| %s | %s | %s |\n", c.Name, c.Want, ruleOf(t, c))
		}
	}
	text := fmt.Sprintf(differencesText, differ.String(), refused.String())
	if *update {
		must(t, os.MkdirAll(filepath.Dir(differencesFile), 0o755))
		must(t, os.WriteFile(differencesFile, []byte(text), 0o644))
	}
	have, err := os.ReadFile(differencesFile)
	must(t, err)
	if diff := cmp.Diff(string(have), text); diff != "" {
		t.Errorf("docs/differences-from-tar.md is out of date (go test ./extract -run Differences -update):\n%s", diff)
	}
}

// askTar extracts a case with GNU tar and says what came of it.
func askTar(t *testing.T, c archivetest.Case) (tree archivetest.Tree, took bool) {
	dir := filepath.Join(t.TempDir(), "tar")
	must(t, os.Mkdir(dir, 0o755))
	how := "-xpf"
	if bytes.HasPrefix(c.Data, gzipMagic) {
		how = "-xpzf"
	}
	cmd := exec.Command("tar", how, "-", "-C", dir)
	cmd.Stdin = bytes.NewReader(c.Data)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	must(t, os.Chmod(dir, 0o755)) // GNU tar applies the archive's root entry
	if err == nil && c.Want == archivetest.Accept {
		tree = listTree(t, dir)
	}
	writable(dir)
	return tree, err == nil
}

var offset = regexp.MustCompile(`at byte \d+: `)

// ruleOf is the rule by which a case is refused, as the error says it.
func ruleOf(t *testing.T, c archivetest.Case) string {
	s := newSandbox(t)
	_, err := Extract(context.Background(), bytes.NewReader(c.Data), s.target, s.options(c))
	if err == nil {
		t.Fatalf("%s: not refused", c.Name)
	}
	var r *EntryError
	rule := err.Error()
	if errors.As(err, &r) {
		rule = r.Rule
	} else if _, after, ok := strings.Cut(rule, ": "); ok {
		rule = after // the sentinel is the column before
	}
	rule = offset.ReplaceAllString(strings.ReplaceAll(rule, s.dir, ""), "")
	if len(rule) > 120 {
		rule = rule[:120] + "..."
	}
	return strings.ReplaceAll(rule, "|", "\\|")
}

const differencesText = `# Differences from GNU tar

Made by the test that asks GNU tar about every archive of internal/archivetest,
and kept true by it. Everything that is in neither table is extracted as GNU tar
extracts it, to the nanosecond, or refused by both.

Two differences hold for all archives: the root entry of an archive ("./") is
not applied to the directory that was asked for, and owners are those of the
place, not of the archive, unless they are asked for.

## Made, but otherwise

| archive with | why |
|---|---|
%s
## Refused here, taken by GNU tar

GNU tar corrects, skips or believes. Here an archive is either what it says or
it is refused as a whole.

| archive with | refused as | because |
|---|---|---|
%s`
