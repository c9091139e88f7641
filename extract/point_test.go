package extract

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestPoints: a mount point is made where an extraction would go, and nothing
// of anybody's is covered unasked.
func TestPoints(t *testing.T) {
	for name, c := range map[string]struct {
		before func(dir string) // dir/p is the path
		file   bool
		format string
		into   bool
		on     OnConflict
		want   string // path below dir; "" is a conflict
		kept   bool   // RemovePoint leaves it
	}{
		"a directory":             {want: "p"},
		"a file":                  {file: true, format: "other", want: "p"},
		"into a directory":        {file: true, format: "gz", into: true, want: "p/o"},
		"into one that is there":  {before: func(d string) { os.Mkdir(d+"/p", 0o755) }, file: true, format: "gz", want: "p/o"},
		"an empty directory":      {before: func(d string) { os.Mkdir(d+"/p", 0o755) }, want: "p", kept: true},
		"a full directory":        {before: func(d string) { os.MkdirAll(d+"/p/x", 0o755) }},
		"a full one to cover":     {before: func(d string) { os.MkdirAll(d+"/p/x", 0o755) }, on: ConflictReplace, want: "p", kept: true},
		"a file for a directory":  {before: func(d string) { os.WriteFile(d+"/p", []byte("x"), 0o644) }, on: ConflictReplace},
		"somebody's file":         {before: func(d string) { os.WriteFile(d+"/p", []byte("x"), 0o644) }, file: true},
		"somebody's link":         {before: func(d string) { os.Symlink("/etc/passwd", d+"/p") }, file: true, on: ConflictReplace},
		"somebody's file covered": {before: func(d string) { os.WriteFile(d+"/p", []byte("x"), 0o644) }, file: true, on: ConflictReplace, want: "p", kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.before != nil {
				c.before(dir)
			}
			path := filepath.Join(dir, "p")
			if c.into {
				path += "/"
			}
			pt, err := MakePoint(path, c.format, c.file, Options{Name: "o.gz", OnConflict: c.on})
			if c.want == "" {
				if !errors.Is(err, ErrConflict) {
					t.Fatalf("got %+v, %v", pt, err)
				}
				return
			}
			if err != nil || pt.Path != filepath.Join(dir, c.want) || pt.Made == c.kept {
				t.Fatalf("got %+v, %v", pt, err)
			}
			if st, err := os.Stat(pt.Path); err != nil || st.IsDir() == c.file {
				t.Fatalf("%v %v", st, err)
			}
			if c.kept {
				return
			}
			if err := RemovePoint(pt.Path); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(pt.Path); !errors.Is(err, os.ErrNotExist) {
				t.Error("it is still there")
			}
		})
	}
}
