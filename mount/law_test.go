package mount

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/internal/archivetest"
)

func dontNeed(f *os.File) error { return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

func source(b []byte) index.Source { return index.ReaderSource(bytes.NewReader(b), int64(len(b))) }

// showObject mounts t and closes reader and mount at the end of the test.
func showObject(t testing.TB, dir string, table index.Table, src index.Source, spans index.Spans, opt Options) *FS {
	t.Helper()
	r := index.NewReader(table, src, spans, index.ReaderOptions{})
	fs, err := Mount(t.Context(), dir, table, r, opt)
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fs.Unmount(true)
		fs.Wait()
		detachAll(dir)
		r.Close()
	})
	return fs
}

// A mount shows what extraction makes of the same object: each archive there is.
func TestEqualsExtraction(t *testing.T) {
	dir := mkdirs(t, "trees", "files")
	var cases []archivetest.Case
	for _, c := range archivetest.Cases("/outside") {
		if c.Want != archivetest.Accept {
			continue // the index refuses it: its own tests
		}
		mnt := filepath.Join(dir, "trees", fmt.Sprint(len(cases)))
		err := os.Mkdir(mnt, 0o755)
		if c.File {
			mnt = filepath.Join(dir, "files", fmt.Sprint(len(cases)))
			err = os.WriteFile(mnt, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		x, err := index.Build(t.Context(), source(c.Data), index.BuildOptions{Name: c.Object, ContentType: c.Type})
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		t.Cleanup(func() { x.Close() })
		showObject(t, mnt, x, source(c.Data), &index.MemSpans{}, Options{Owner: &Owner{}})
		cases = append(cases, c)
	}
	// One process looks at all of them.
	got := map[string]archivetest.Tree{}
	for path, n := range listElsewhere(t, filepath.Join(dir, "trees")) {
		i, rest, below := strings.Cut(path, "/")
		if got[i] == nil {
			got[i] = archivetest.Tree{}
		}
		if below {
			_, n.Same, _ = strings.Cut(n.Same, "/")
			got[i][rest] = n
		}
	}
	for i, c := range cases {
		if c.File {
			if got := sh(t, dir, fmt.Sprintf("sha256sum < files/%d", i)); got != sum(c.Body)+"  -\n" {
				t.Errorf("%s: %s, want %q", c.Name, got, c.Body)
			}
			continue
		}
		if diff := cmp.Diff(c.Tree, got[fmt.Sprint(i)].Forget(c.Tree)); diff != "" {
			t.Errorf("%s: the mount differs from what must be (-want +got):\n%s", c.Name, diff)
		}
	}
}

// metadata lists what must be equal, besides content. Directories' sizes and
// links are the file system's own affair, times of some are the clock's.
const metadata = `find . \( -type d -printf '%p %m %U:%G\n' \) -o -printf '%p %y %m %U:%G %s %T@ %n %l\n' | sort`

// goTree is a part of the Go tree as a .tar.gz, extracted at dir: some 1,500 files
// and 20 MB.
func goTree(t testing.TB, dir string) []byte {
	t.Helper()
	parts := []string{"src/net", "src/go", "src/crypto", "src/encoding", "src/unicode", "src/compress"}
	if underRace {
		parts = []string{"src/net/http", "src/go/types", "src/unicode"}
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	tar := exec.Command("tar", append([]string{"-c", "--sort=name", "--format=pax", "--hard-dereference"}, parts...)...)
	tar.Dir = strings.TrimSpace(string(out))
	stdout, err := tar.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tar.Start(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if _, err := io.Copy(z, stdout); err != nil {
		t.Fatal(err)
	}
	z.Close()
	if err := tar.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := extract.Extract(t.Context(), bytes.NewReader(b.Bytes()), dir, extract.Options{Owner: &extract.Owner{}}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A real tree: cold, warm, while its cache is emptied under many readers, through
// a layer, and while the first pass runs.
func TestLawOfTheGoTree(t *testing.T) {
	dir := mkdirs(t, "lazy", "layer", "pass")
	extracted := filepath.Join(dir, "extracted")
	data := goTree(t, extracted)
	want := sh(t, extracted, metadata)
	equal := func(t *testing.T, mnt string) {
		t.Helper()
		if out, err := try("/", "diff -r --no-dereference "+extracted+" "+mnt); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if d := cmp.Diff(want, sh(t, mnt, metadata)); d != "" {
			t.Fatal(d)
		}
	}
	opt := index.BuildOptions{}
	x, err := index.Build(t.Context(), source(data), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	owner := Options{Owner: &Owner{}}

	t.Run("cold, warm and evicted", func(t *testing.T) {
		mnt := filepath.Join(dir, "lazy")
		spans := &index.MemSpans{}
		fs := showObject(t, mnt, x, source(data), spans, owner)
		equal(t, mnt)
		equal(t, mnt)

		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
					spans.Drop(rand.IntN(x.NumSpans()))
				}
			}
		})
		comparers(t, extracted, mnt, 8)
		close(stop)
		wg.Wait()
		if st := fs.Stats(); st.Failed != 0 {
			t.Errorf("%+v", st)
		}
	})

	t.Run("through a layer", func(t *testing.T) {
		diskDir(t)
		mnt := filepath.Join(dir, "layer")
		o := owner
		o.StateDir = filepath.Join(dir, "state")
		if fs := showObject(t, mnt, x, source(data), &index.MemSpans{}, o); !fs.Info().Writable {
			t.Fatal(fs.Info().WhyReadOnly)
		}
		equal(t, mnt)
		sh(t, mnt, "mv src/net n; rm -r src/go; echo x >> n/http/client.go")
	})

	t.Run("during the first pass", func(t *testing.T) {
		mnt := filepath.Join(dir, "pass")
		gate := newGate(source(data), int64(len(data))/2)
		spans := &index.MemSpans{}
		g := index.NewGrowing(gate, opt)
		pass := make(chan error, 1)
		go func() { pass <- g.Run(context.Background(), spans) }()
		t.Cleanup(func() {
			gate.open()
			<-pass
			g.Close()
		})
		fs := showObject(t, mnt, g, gate, spans, owner)

		// Half of the object is there, and stays that for now: an early file can be
		// read, a late one and listings are waited for.
		early := sh(t, extracted, "cat src/net/http/client.go")
		if got := sh(t, mnt, "cat src/net/http/client.go"); got != early {
			t.Error("an early file differs")
		}
		done := make(chan string, 1)
		go func() {
			out, err := try("/", "diff -r --no-dereference "+extracted+" "+mnt)
			done <- fmt.Sprint(out, err)
		}()
		eventually(t, "diff waits", func() bool { return fs.Stats().Pending > 0 })
		if g.Complete() {
			t.Error("complete, with half of the object")
		}
		gate.open()
		if got := <-done; got != "<nil>" {
			t.Error(got)
		}
		comparers(t, extracted, mnt, 2)
		equal(t, mnt)
		if st := fs.Stats(); st.Failed != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// comparers runs n processes that read at random offsets.
func comparers(t *testing.T, a, b string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), readVar+fmt.Sprintf("=compare %d %s %s", i, a, b))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wg.Wait()
}

// A corrupt end, found late: everything is EIO from then on, and the reason is
// told; what was read before was right.
func TestCorruptEnd(t *testing.T) {
	dir := mkdirs(t, "mnt")
	mnt := filepath.Join(dir, "mnt")
	data := archivetest.Gzip(archivetest.Many(10, 50, 20000))
	data[len(data)-6] ^= 1 // in the checksum at the end
	gate := newGate(source(data), int64(len(data))/2)
	g := index.NewGrowing(gate, index.BuildOptions{})
	pass := make(chan error, 1)
	go func() { pass <- g.Run(context.Background(), nil) }()
	t.Cleanup(func() { g.Close() })
	fs := showObject(t, mnt, g, gate, nil, Options{})
	done := make(chan string, 1)
	go func() {
		out, _ := try(mnt, "ls")
		done <- out
	}()
	eventually(t, "ls waits", func() bool { return fs.Stats().Pending > 0 })
	gate.open()
	if err := <-pass; err == nil {
		t.Fatal("the pass did not notice")
	}
	if got := <-done; !strings.Contains(got, "Input/output error") {
		t.Error(got)
	}
	if out, err := try(mnt, "cat nothing"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("%v %s", err, out)
	}
	if st := fs.Stats(); st.Failed == 0 || !strings.Contains(st.LastError, "checksum") {
		t.Errorf("%+v", st)
	}
}

// gate is a Source whose bytes from at on are there when it has been opened.
type gate struct {
	index.Source
	at     int64
	opened chan struct{}
	once   sync.Once
}

func newGate(src index.Source, at int64) *gate {
	return &gate{Source: src, at: at, opened: make(chan struct{})}
}

func (g *gate) open() { g.once.Do(func() { close(g.opened) }) }

func (g *gate) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off+int64(len(p)) > g.at {
		if off < g.at {
			// What is there first.
			n, err := g.Source.ReadAtContext(ctx, p[:g.at-off], off)
			if err != nil {
				return n, err
			}
			m, err := g.ReadAtContext(ctx, p[n:], off+int64(n))
			return n + m, err
		}
		select {
		case <-g.opened:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return g.Source.ReadAtContext(ctx, p, off)
}

func (g *gate) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	return io.NopCloser(&gateReader{g, ctx, off}), nil
}

type gateReader struct {
	g   *gate
	ctx context.Context
	off int64
}

func (r *gateReader) Read(p []byte) (int, error) {
	if r.off < r.g.at {
		p = p[:min(int64(len(p)), r.g.at-r.off)]
	}
	n, err := r.g.ReadAtContext(r.ctx, p, r.off)
	r.off += int64(n)
	return n, err
}
