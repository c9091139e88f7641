package index_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// source is the Source of bytes.
func source(b []byte) index.Source { return index.ReaderSource(bytes.NewReader(b), int64(len(b))) }

// build makes an index that must come to be.
func build(t testing.TB, data []byte, opt index.BuildOptions) *index.Index {
	t.Helper()
	x, err := index.Build(context.Background(), source(data), opt)
	must(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list reads a whole tree as archivetest describes it, and holds against it
// what the tree says of itself in other ways.
func list(t testing.TB, tree index.Tree, r *index.Reader) archivetest.Tree {
	t.Helper()
	ctx := context.Background()
	out := archivetest.Tree{}
	first := map[uint32]string{} // of hard links, in the order of paths
	subdirs := map[uint32]uint32{}
	names := map[uint32]uint32{}
	nlink := map[uint32]uint32{}
	var walk func(dir uint32, prefix string)
	walk = func(dir uint32, prefix string) {
		var children []index.Child
		must(t, tree.Children(ctx, dir, 0, func(pos int, c index.Child) bool {
			if pos != len(children) {
				t.Errorf("child %q of %q at position %d, want %d", c.Name, prefix, pos, len(children))
			}
			children = append(children, c)
			return true
		}))
		for _, c := range children {
			path := prefix + c.Name
			row, err := tree.Lookup(ctx, dir, c.Name)
			if err != nil || row != c.Row {
				t.Fatalf("Lookup(%q) = %d, %v; listed as %d", path, row, err, c.Row)
			}
			a, err := tree.Attr(row)
			must(t, err)
			if a.Type != c.Type || int(row) >= tree.NumRows() || (names[row] == 0 || a.Type == index.TypeDir) && false {
				t.Errorf("%q: %+v, listed as %+v of %d rows", path, a, c, tree.NumRows())
			}
			n := archivetest.Node{Mode: a.FileMode()}
			if a.HasTime {
				n.MTime = a.Sec*1e9 + int64(a.Nsec)
			}
			names[row]++
			nlink[row] = a.Nlink
			switch a.Type {
			case index.TypeDir:
				if a.Parent != dir {
					t.Errorf("%q: parent %d, want %d", path, a.Parent, dir)
				}
				subdirs[dir]++
			case index.TypeSymlink:
				n.Link, err = tree.ReadLink(row)
				must(t, err)
				if a.Size != int64(len(n.Link)) {
					t.Errorf("%q: size %d, target %q", path, a.Size, n.Link)
				}
			default:
				n.Content = content(t, tree, r, row, a)
			}
			if a.Type != index.TypeDir && a.Nlink > 1 {
				if first[row] == "" {
					first[row] = path
				}
				n.Same = first[row]
			}
			out[path] = n
			if a.Type == index.TypeDir {
				walk(row, path+"/")
			}
		}
	}
	// Paths in the order of filepath.WalkDir: a directory before what is in it.
	walk(0, "")
	for row, n := range nlink {
		want := names[row]
		if a, _ := tree.Attr(row); a.Type == index.TypeDir {
			want = 2 + subdirs[row]
		}
		if n != want {
			t.Errorf("row %d has %d links, found %d", row, n, want)
		}
	}
	return out
}

// content reads a file and describes it as archivetest does.
func content(t testing.TB, tree index.Tree, r *index.Reader, row uint32, a index.Attr) string {
	t.Helper()
	if a.Size > 64<<20 {
		return fmt.Sprintf("%d bytes", a.Size)
	}
	b := make([]byte, a.Size)
	n, err := r.ReadFileAt(context.Background(), row, b, 0)
	if int64(n) != a.Size || err != nil && err != io.EOF {
		t.Fatalf("row %d: read %d of %d bytes: %v", row, n, a.Size, err)
	}
	now := bytes.Repeat([]byte{0xa5}, len(b))
	if r.ReadFileNow(row, now, 0) && !bytes.Equal(now, b) {
		t.Errorf("row %d: other bytes at once than in time", row)
	}
	pieces, err := tree.Extents(row)
	must(t, err)
	var stored int64
	for _, p := range pieces {
		stored += p.Len
		got := make([]byte, p.Len)
		if _, err := r.ReadAt(context.Background(), got, p.Stream); err != nil || !bytes.Equal(got, b[p.Off:p.Off+p.Len]) {
			t.Errorf("row %d: piece %+v has other bytes (%v)", row, p, err)
		}
	}
	if stored != a.Stored {
		t.Errorf("row %d: %d bytes in pieces, %d stored", row, stored, a.Stored)
	}
	return archivetest.Reg(0, string(b)).Content
}

// outcome says what became of a case in archivetest's words.
func outcome(err error) archivetest.Outcome {
	switch {
	case err == nil:
		return archivetest.Accept
	case errors.Is(err, index.ErrTarUnsafe), errors.Is(err, index.ErrTarAmbiguous):
		return archivetest.Unsafe
	case errors.Is(err, index.ErrTarLimit):
		return archivetest.Limit
	case errors.Is(err, index.ErrCorrupt), errors.Is(err, index.ErrTarCorrupt), errors.Is(err, index.ErrTarTruncated):
		return archivetest.Corrupt
	}
	return archivetest.Outcome(err.Error())
}

func options(c archivetest.Case) index.BuildOptions {
	return index.BuildOptions{
		Name: c.Object, ContentType: c.Type, Object: index.ObjectID{ID: "obj_1"},
		Limits: index.Limits{Entries: c.MaxEntries, Bytes: c.MaxBytes},
	}
}

// TestCases holds the tree of every archive of archivetest against what
// extraction makes of it, or its refusal against extraction's: read while the
// first pass runs, from its result, from the file, and skimmed.
func TestCases(t *testing.T) {
	for _, c := range archivetest.Cases("/outside") {
		t.Run(c.Name, func(t *testing.T) {
			x, err := index.Build(context.Background(), source(c.Data), options(c))
			if got := outcome(err); got != c.Want {
				t.Fatalf("%v, want %s", err, c.Want)
			}
			if err != nil {
				return
			}
			checkCase(t, c, x, nil)
			opt := options(c)
			opt.Path = t.TempDir() + "/index"
			saved := build(t, c.Data, opt)
			if !bytes.Equal(saved.Bytes(), x.Bytes()) {
				t.Error("the file is another index")
			}
			checkCase(t, c, saved, &index.MemSpans{})
			must(t, saved.Verify())

			opt = options(c)
			opt.Skim = true
			checkCase(t, c, build(t, c.Data, opt), nil)
		})
	}
}

func checkCase(t *testing.T, c archivetest.Case, x index.Table, spans index.Spans) {
	t.Helper()
	r := index.NewReader(x, source(c.Data), spans, index.ReaderOptions{})
	defer r.Close()
	if c.File {
		a, err := x.Attr(0)
		must(t, err)
		if got := content(t, x, r, 0, a); a.Type != index.TypeFile || got != archivetest.Reg(0, c.Body).Content {
			t.Errorf("a %s with %q, want a file with %q", a.Type, got, c.Body)
		}
		return
	}
	if diff := cmp.Diff(c.Tree, list(t, x, r).Forget(c.Tree)); diff != "" {
		t.Errorf("another tree (-want +got):\n%s", diff)
	}
}

var _ = fs.ErrNotExist
