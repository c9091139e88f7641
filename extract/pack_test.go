package extract

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// packed packs dir and returns the archive.
func packed(t testing.TB, dir string, opts PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	must(t, Pack(t.Context(), dir, &b, opts))
	return b.Bytes()
}

// names lists the entries of a packed archive.
func names(t testing.TB, data []byte) []string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	var all []string
	for r := tar.NewReader(z); ; {
		hdr, err := r.Next()
		if err == io.EOF {
			return all
		}
		must(t, err)
		if hdr.Uid != 1000 || hdr.Gid != 1000 || hdr.Uname != "" || hdr.Gname != "" {
			t.Errorf("%s belongs to %d:%d %q %q", hdr.Name, hdr.Uid, hdr.Gid, hdr.Uname, hdr.Gname)
		}
		all = append(all, hdr.Name)
	}
}

// source makes a directory with everything that can be packed.
func packSource(t testing.TB) string {
	dir := t.TempDir() + "/src"
	writeFile(t, dir+"/file", "content")
	writeFile(t, dir+"/sub/run", "#!/bin/sh\n")
	must(t, os.Chmod(dir+"/sub/run", 0o755))
	writeFile(t, dir+"/sub/"+strings.Repeat("long-", 40), "x")
	writeFile(t, dir+"/ünï/"+string([]byte{0xff, 0xfe}), "no UTF-8")
	writeFile(t, dir+"/large", strings.Repeat("large", 200_000))
	must(t, os.Mkdir(dir+"/empty", 0o700))
	must(t, os.Symlink("../file", dir+"/sub/link"))
	must(t, os.Symlink("/not/there/"+strings.Repeat("x", 200), dir+"/dangling"))
	must(t, os.Link(dir+"/file", dir+"/sub/hard"))
	must(t, os.Link(dir+"/file", dir+"/a-hard-one-that-sorts-first"))
	must(t, os.Chtimes(dir+"/file", time.Time{}, time.Unix(1234567890, 123456789)))
	must(t, os.Chtimes(dir+"/large", time.Time{}, time.Unix(-1, 5e8)))
	must(t, os.Chtimes(dir+"/empty", time.Time{}, time.Unix(1e9, 1)))
	return dir
}

// TestPackRoundTrip: what is packed and extracted is the same tree, to the
// nanosecond, and the same tree packs to the same bytes.
func TestPackRoundTrip(t *testing.T) {
	src := packSource(t)
	data := packed(t, src, PackOptions{})
	if again := packed(t, src, PackOptions{}); !bytes.Equal(data, again) {
		t.Error("packed twice, it is not the same")
	}
	everything := time.Now().Add(time.Hour)
	want, err := archivetest.List(src, everything)
	must(t, err)
	for range 2 {
		out := t.TempDir() + "/out"
		extractBytes(t, data, out, Options{ContentType: "tgz"})
		got, err := archivetest.List(out, everything)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("not the same (-packed +extracted):\n%s", diff)
		}
		// All but the root's own time, which extraction does not take over.
		must(t, os.Chtimes(out, time.Time{}, modTime(t, src)))
		if again := packed(t, out, PackOptions{}); !bytes.Equal(data, again) {
			t.Error("packed, extracted and packed again, it is not the same")
		}
	}
}

func modTime(t testing.TB, path string) time.Time {
	info, err := os.Stat(path)
	must(t, err)
	return info.ModTime()
}

// TestPackForTar: GNU tar lists and extracts what we pack.
func TestPackForTar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		lacking(t, "there is no tar to ask")
	}
	src := packSource(t)
	cmd := exec.Command("tar", "-tvzf", "-")
	cmd.Stdin = bytes.NewReader(packed(t, src, PackOptions{}))
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		" ./\n", "-rwxr-xr-x 1000/1000        10 ", " ./sub/run\n", " ./sub/link -> ../file\n",
		" ./sub/hard link to ./a-hard-one-that-sorts-first\n", " 2009-02-13 23:31 ", "drwx------ 1000/1000         0 2001-09-09 01:46 ./empty/\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("tar does not list %q:\n%s", want, out)
		}
	}
	theirs := t.TempDir()
	cmd = exec.Command("tar", "-xpzf", "-", "-C", theirs)
	cmd.Stdin = bytes.NewReader(packed(t, src, PackOptions{}))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	everything := time.Now().Add(time.Hour)
	want, err := archivetest.List(src, everything)
	must(t, err)
	got, err := archivetest.List(theirs, everything)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tar extracts another tree (-packed +tar):\n%s", diff)
	}
}

// TestPackIgnore: .dockerignore means what it means to docker.
func TestPackIgnore(t *testing.T) {
	files := []string{"keep", "a.log", "sub/b.log", "sub/keep", "node_modules/x/index.js", "node_modules/wanted/index.js", "build/out", "deep/build/out"}
	for _, tt := range []struct {
		name, ignore string
		want         string
	}{
		{"without patterns", "# nothing\n\n", "./ ./a.log ./build/ ./build/out ./deep/ ./deep/build/ ./deep/build/out ./keep " +
			"./node_modules/ ./node_modules/wanted/ ./node_modules/wanted/index.js ./node_modules/x/ ./node_modules/x/index.js ./sub/ ./sub/b.log ./sub/keep"},
		{"at the root only", "*.log\n/build\nnode_modules/\n", "./ ./deep/ ./deep/build/ ./deep/build/out ./keep ./sub/ ./sub/b.log ./sub/keep"},
		{"anywhere", "**/*.log\n**/build\nnode_modules\n", "./ ./deep/ ./keep ./sub/ ./sub/keep"},
		{"all but some", "*\n!keep\n!sub\nsub/*.log\n", "./ ./keep ./sub/ ./sub/keep"},
		{"with an exception in what is left out, and the directories to it",
			"node_modules\n!node_modules/wanted\nsub\nbuild\ndeep\n*.log", "./ ./keep ./node_modules/ ./node_modules/wanted/ ./node_modules/wanted/index.js"},
		{"with windows line ends and a BOM", "\ufeff*.log\r\nsub\r\nnode_modules\r\nbuild\r\ndeep\r\n", "./ ./keep"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range files {
				writeFile(t, dir+"/"+f, f)
			}
			other := t.TempDir() + "/patterns"
			writeFile(t, other, tt.ignore)
			if got := strings.Join(names(t, packed(t, dir, PackOptions{IgnoreFile: other})), " "); got != tt.want {
				t.Errorf("from another file: %s\nwant %s", got, tt.want)
			}
			writeFile(t, dir+"/.dockerignore", tt.ignore)
			if got := strings.Join(names(t, packed(t, dir, PackOptions{})), " "); got != tt.want {
				t.Errorf("%s\nwant %s", got, tt.want)
			}
			if all := names(t, packed(t, dir, PackOptions{NoIgnore: true})); !slices.Contains(all, "./.dockerignore") || !slices.Contains(all, "./a.log") {
				t.Errorf("NoIgnore gives %q", all)
			}
		})
	}
	dir := t.TempDir()
	writeFile(t, dir+"/.dockerignore", "[")
	if err := Pack(t.Context(), dir, io.Discard, PackOptions{}); err == nil || !strings.Contains(err.Error(), ".dockerignore") {
		t.Errorf("a bad pattern: %v", err)
	}
	if err := Pack(t.Context(), dir, io.Discard, PackOptions{IgnoreFile: dir + "/none"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no ignore file: %v", err)
	}
	writeFile(t, dir+"/.dockerignore", strings.Repeat("pattern\n", 1<<18))
	if err := Pack(t.Context(), dir, io.Discard, PackOptions{}); err == nil {
		t.Error("an ignore file of 2 MiB was taken")
	}
}

// TestPackRefuses: what cannot be packed, and what must not be half packed.
func TestPackRefuses(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/big", strings.Repeat("x", 10<<20))

	fails := func(name, want string, ctx context.Context, w io.Writer) {
		t.Helper()
		if err := Pack(ctx, dir, w, PackOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		}
	}
	must(t, unix.Mkfifo(dir+"/fifo", 0o600))
	fails("a FIFO", `"./fifo" is a FIFO`, t.Context(), io.Discard)
	must(t, os.Remove(dir+"/fifo"))

	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s"})
	must(t, err)
	if got := names(t, packed(t, dir, PackOptions{})); !slices.Equal(got, []string{"./", "./big"}) {
		t.Errorf("with a socket: %q", got)
	}
	must(t, l.Close())

	broken := errors.New("connection reset")
	if err := Pack(t.Context(), dir, errWriter{broken}, PackOptions{}); !errors.Is(err, broken) {
		t.Errorf("error of the writer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Pack(ctx, dir, io.Discard, PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}

	// Writers that change the directory while it is packed.
	meddle := func(change func()) io.Writer {
		written := 0
		return writerFunc(func(p []byte) (int, error) {
			if written += len(p); written > 1<<20 && change != nil {
				change()
				change = nil
			}
			return len(p), nil
		})
	}
	random := make([]byte, 10<<20) // or nothing is written before all is read
	rand.NewChaCha8([32]byte{}).Read(random)
	must(t, os.WriteFile(dir+"/big", random, 0o644))
	fails("a file that grows", "changed while it was packed", t.Context(), meddle(func() {
		f, _ := os.OpenFile(dir+"/big", os.O_APPEND|os.O_WRONLY, 0)
		f.Write([]byte("more"))
		f.Close()
	}))
	fails("a file that shrinks", "changed while it was packed", t.Context(), meddle(func() { os.Truncate(dir+"/big", 100) }))
	must(t, os.WriteFile(dir+"/big", random, 0o644))
	fails("a file that is written to", "changed while it was packed", t.Context(), meddle(func() {
		f, _ := os.OpenFile(dir+"/big", os.O_WRONLY, 0)
		f.Write([]byte("other"))
		f.Close()
	}))
	fails("a directory that gets a file", "changed while it was packed", t.Context(), meddle(func() { writeFile(t, dir+"/new", "") }))

	deep := dir + strings.Repeat("/d", 600)
	must(t, os.MkdirAll(deep, 0o755))
	fails("what Extract would refuse", "more than 512", t.Context(), io.Discard)
	if err := Pack(t.Context(), dir+"/big", io.Discard, PackOptions{}); err == nil {
		t.Error("a file was packed")
	}
	if err := Pack(t.Context(), dir+"/none", io.Discard, PackOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing to pack: %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

type errWriter struct{ err error }

func (w errWriter) Write([]byte) (int, error) { return 0, w.err }
