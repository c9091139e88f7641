package extract

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// indexOf indexes an object, which is nil where it is refused.
func indexOf(t testing.TB, data []byte, opt index.BuildOptions) *index.Index {
	x, err := index.Build(context.Background(), index.ReaderSource(bytes.NewReader(data), int64(len(data))), opt)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// indexed is a .tar.gz of several spans with everything in it.
func indexed(t testing.TB) []byte {
	letters := strings.Repeat("so many letters that nothing of it is worth a span ", 30_000)
	stream := archivetest.Join(archivetest.Many(20, 100, 1000)[:20*(512+100*1536)],
		archivetest.File("large", letters), archivetest.Symlink("link", "large"), archivetest.HardLink("hard", "large"), archivetest.Zeros(2))
	return archivetest.Join(archivetest.Members(stream[:1<<20], nil), archivetest.Gzip(stream[1<<20:]), make([]byte, 100))
}

// TestIndexed extracts every archive of archivetest that has an index by that:
// the laws are the same.
func TestIndexed(t *testing.T) {
	s := newSandbox(t)
	for _, c := range archivetest.Cases(s.outside) {
		x := indexOf(t, c.Data, index.BuildOptions{Name: c.Object, ContentType: c.Type})
		if x == nil {
			continue
		}
		t.Run(c.Name, func(t *testing.T) { lawful(t, s, c, x) })
	}
}

// TestIndexedLarge extracts an object of several spans: tree, result and
// progress are as without an index.
func TestIndexedLarge(t *testing.T) {
	data := indexed(t)
	x := indexOf(t, data, index.BuildOptions{})
	if x.NumSpans() < 4 {
		t.Fatalf("%d spans", x.NumSpans())
	}
	dir := t.TempDir()
	var results [2]Result
	var trees [2]archivetest.Tree
	for i, x := range []*index.Index{nil, x} {
		var last Progress
		target := filepath.Join(dir, []string{"plain", "indexed"}[i])
		res, err := Extract(context.Background(), bytes.NewReader(data), target,
			Options{Name: "a.tar.gz", Index: x, Size: int64(len(data)), Progress: func(p Progress) { last = p }})
		must(t, err)
		if last != (Progress{int64(len(data)), res.Bytes, res.Entries}) {
			t.Errorf("%+v", last)
		}
		res.Path, res.Took, res.Fingerprint = "", 0, Fingerprint{}
		results[i], trees[i] = res, listTree(t, target)
	}
	if diff := cmp.Diff(results[0], results[1]); diff != "" || results[1].Format != "tar.gz" {
		t.Errorf("another result (-without +with):\n%s", diff)
	}
	if diff := cmp.Diff(trees[0], trees[1]); diff != "" {
		t.Errorf("another tree (-without +with):\n%s", diff)
	}
}

// TestIndexedWrong extracts what does not fit its index, or fails on the way:
// the error says which it is, and nothing is left.
func TestIndexedWrong(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("one processor has no use for an index")
	}
	data := indexed(t)
	x := indexOf(t, data, index.BuildOptions{})
	broken := errors.New("broken")
	half, other := len(data)/2, archivetest.Gzip(make([]byte, 1<<20))
	for name, c := range map[string]struct {
		r     io.Reader
		want  error
		index bool // it might be the index's fault
	}{
		"another object":    {bytes.NewReader(append(other, make([]byte, len(data)-len(other))...)), nil, true},
		"a flipped bit":     {bytes.NewReader(archivetest.Flip(data, 8*half)), nil, true},
		"no gzip":           {bytes.NewReader(make([]byte, len(data))), nil, true},
		"the object ends":   {bytes.NewReader(data[:half]), io.ErrUnexpectedEOF, false},
		"a broken reader":   {io.MultiReader(bytes.NewReader(data[:half]), errorReader{broken}), broken, false},
		"broken at the end": {io.MultiReader(bytes.NewReader(data), errorReader{broken}), broken, false},
	} {
		dir := t.TempDir()
		_, err := Extract(context.Background(), c.r, dir+"/x", Options{Index: x, Size: int64(len(data))})
		if err == nil || errors.Is(err, ErrIndex) != c.index || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if left := listTree(t, dir); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
	// What the archive itself is refused for is not the index's fault.
	dir := t.TempDir()
	_, err := Extract(context.Background(), bytes.NewReader(data), dir+"/x", Options{Index: x, Limits: Limits{Entries: 100}})
	if !errors.Is(err, ErrLimit) || errors.Is(err, ErrIndex) {
		t.Error(err)
	}
}

// TestIndexedCancel ends an extraction whose reader hangs.
func TestIndexedCancel(t *testing.T) {
	data := indexed(t)
	x := indexOf(t, data, index.BuildOptions{})
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	go func() {
		w.Write(data[:len(data)/2])
		cancel()
		w.CloseWithError(ctx.Err())
	}()
	dir := t.TempDir()
	_, err := Extract(ctx, r, dir+"/x", Options{Index: x})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := listTree(t, dir); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestIndexedOfNoUse: an index of a plain tar is not used, and does no harm.
func TestIndexedOfNoUse(t *testing.T) {
	data := archivetest.Many(2, 3, 10)
	x := indexOf(t, data, index.BuildOptions{})
	res, err := Extract(context.Background(), bytes.NewReader(data), t.TempDir()+"/x", Options{Index: x})
	if err != nil || res.Format != "tar" {
		t.Error(res, err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }
