package mount

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/internal/archivetest"
)

// hardLinked are the names of one file in the small tree, and where operations
// move it. Overlayfs parts a file from its other names when it is copied up
// (without its index, see overlayOptions); an extracted tree does not. That is
// the one difference there is, so these names are not compared after
// partsLinks.
var (
	hardLinked = []string{"hello", "hard", "d/hard2", "d/moved", "d/inner", "dd", "dd/hard2"}
	partsLinks = map[string]bool{"append to a file": true, "truncate to a length": true, "rename a file": true, "rename over a file": true,
		"chown": true, "touch": true, "set extended attributes": true, "open unlinked": true, "use git": true}
)

// TestOperationsEqualExtraction does each operation in a lazy mount of an
// archive and in the tree that extraction makes of it. Both say the same, and
// are the same in the end: names, types, modes, content, times, links.
func TestOperationsEqualExtraction(t *testing.T) {
	if testing.Short() {
		t.Skip("TestOperations does them, too")
	}
	state := diskDir(t)
	dir := mkdirs(t, "small", "lazy", "extracted")
	showAt(t, filepath.Join(dir, "small"), smallTree(), Options{})
	sh(t, filepath.Join(dir, "small"), "tar -c --sort=name --format=pax --xattrs --sparse . | gzip > ../a.tgz")
	data, err := os.ReadFile(filepath.Join(dir, "a.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := index.Build(t.Context(), source(data), index.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	spans := &index.MemSpans{}
	for i, tt := range operations {
		t.Run(tt.name, func(t *testing.T) {
			lazy, extracted := filepath.Join(dir, "lazy", fmt.Sprint(i)), filepath.Join(dir, "extracted", fmt.Sprint(i))
			if err := os.Mkdir(lazy, 0o755); err != nil {
				t.Fatal(err)
			}
			_, err := extract.Extract(t.Context(), bytes.NewReader(data), extracted, extract.Options{Owner: &extract.Owner{}, Xattrs: true})
			if err != nil {
				t.Fatal(err)
			}
			fs := showObject(t, lazy, x, source(data), spans, Options{Owner: &Owner{}, StateDir: state, Identity: tt.name})
			if info := fs.Info(); !info.Writable {
				t.Fatal(info.WhyReadOnly)
			}
			said, want := sh(t, lazy, tt.script), sh(t, extracted, tt.script)
			if said != want && !partsLinks[tt.name] {
				t.Errorf("it says %q, and %q where it is extracted", said, want)
			}
			got, tree := listElsewhere(t, lazy), listElsewhere(t, extracted)
			for _, tree := range []archivetest.Tree{got, tree} {
				maps.DeleteFunc(tree, func(path string, _ archivetest.Node) bool { return strings.HasPrefix(path, ".git/") })
				if partsLinks[tt.name] {
					for _, name := range hardLinked {
						delete(tree, name)
					}
				}
			}
			if d := cmp.Diff(tree, got); d != "" {
				t.Errorf("the trees differ (-extracted +mounted):\n%s", d)
			}
			if st := fs.Stats(); st.Failed != 0 {
				t.Errorf("%+v", st)
			}
			if err := fs.Unmount(false); err != nil {
				t.Error(err)
			}
		})
	}
}
