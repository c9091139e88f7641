package extract

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// TestReaderErrors: an error of the reader comes through as it is, wherever
// it happens, and leaves nothing.
func TestReaderErrors(t *testing.T) {
	broken := errors.New("connection reset")
	tar := archivetest.Tar(archivetest.Dir("d/"), archivetest.File("d/a", strings.Repeat("x", 3000)), archivetest.Symlink("l", "d"))
	for name, data := range map[string][]byte{"tar": tar, "gzip": archivetest.Gzip(tar), "text": []byte("text"), "gz": archivetest.Gzip([]byte("text"))} {
		for at := 0; at <= len(data); at += 1 + len(data)/40 {
			s := newSandbox(t)
			path := s.target + "/deep/er"
			before := s.around(t)
			r := io.MultiReader(bytes.NewReader(data[:at]), iotest.ErrReader(broken))
			_, err := Extract(t.Context(), r, path, Options{})
			if !errors.Is(err, broken) || errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s broken at %d: %v", name, at, err)
			}
			if diff := cmp.Diff(before, s.around(t)); diff != "" || exists(s.target) {
				t.Fatalf("%s broken at %d leaves something:\n%s", name, at, diff)
			}
		}
	}
}

// TestOddReaders: readers that give little at a time, or the last bytes
// together with io.EOF, make no difference.
func TestOddReaders(t *testing.T) {
	tar := archivetest.Tar(archivetest.Dir("d/"), archivetest.File("d/a", strings.Repeat("x", 3000)))
	for _, data := range [][]byte{tar, archivetest.Members(tar[:700], tar[700:])} {
		want := ""
		for i, odd := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
		} {
			s := newSandbox(t)
			_, err := Extract(t.Context(), odd(bytes.NewReader(data)), s.target, Options{Size: int64(len(data))})
			must(t, err)
			if got := s.list(t).String(); i == 0 {
				want = got
			} else if got != want {
				t.Errorf("reader %d:\n%s\nwant\n%s", i, got, want)
			}
		}
	}
}

// TestSize: the object must have the size that it should have.
func TestSize(t *testing.T) {
	for _, data := range [][]byte{oneFile, archivetest.Gzip(oneFile), []byte("text")} {
		for _, size := range []int64{int64(len(data)) - 1, int64(len(data)) + 1, 1 << 40} {
			s := newSandbox(t)
			refuses(t, data, s.target, Options{Size: size}, ErrCorrupt)
			if exists(s.target) {
				t.Error("something is there")
			}
		}
	}
	// Cut between two entries a tar looks whole; its size tells.
	cut := archivetest.Join(archivetest.File("a", "x"), archivetest.File("b", "x"))
	err := refuses(t, cut[:1024], t.TempDir()+"/x", Options{Size: int64(len(cut))}, ErrCorrupt)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "after 1024 of 2048 bytes") {
		t.Errorf("error %v", err)
	}
}

// TestCancel: a context that ends, at whatever moment, leaves nothing.
func TestCancel(t *testing.T) {
	data := archivetest.Gzip(archivetest.Many(20, 20, 100))
	s := newSandbox(t)
	before := s.around(t)
	for range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		stop := rand.IntN(len(data))
		r := io.MultiReader(bytes.NewReader(data[:stop]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }),
			bytes.NewReader(data[stop:]))
		_, err := Extract(ctx, r, s.target, Options{})
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("error %v", err)
		}
		if diff := cmp.Diff(before, s.around(t)); diff != "" || exists(s.target) {
			t.Fatalf("cancelled at %d leaves something:\n%s", stop, diff)
		}
	}
	// At any time, in any phase: either nothing or all.
	want := ""
	for i := range 40 {
		ctx, cancel := context.WithCancel(t.Context())
		if i > 0 {
			time.AfterFunc(time.Duration(rand.IntN(60))*time.Millisecond, cancel)
		}
		res, err := Extract(ctx, bytes.NewReader(data), s.target, Options{})
		cancel()
		switch {
		case err == nil:
			got := s.list(t).String()
			if want == "" {
				want = got
			}
			if got != want {
				t.Fatal("published, but not all")
			}
			must(t, Remove(res.Path, res.Fingerprint))
		case !errors.Is(err, context.Canceled) || exists(s.target):
			t.Fatalf("error %v; something there: %v", err, exists(s.target))
		}
		if diff := cmp.Diff(before, s.around(t)); diff != "" {
			t.Fatalf("something is left:\n%s", diff)
		}
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestNoSpace: a full file system ends it with ErrNoSpace and leaves nothing,
// and what cannot fit is not begun.
func TestNoSpace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m,nr_inodes=200"); err != nil {
		lacking(t, "cannot mount: %v", err)
	}
	defer func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) }()
	large := strings.Repeat("large", 1<<20)
	for name, data := range map[string][]byte{
		"a large file":          archivetest.Tar(archivetest.File("a", large[:4<<20-1])),
		"a large plain file":    []byte(large),
		"a large gzip":          archivetest.Gzip([]byte(large)),
		"many files":            archivetest.Many(1, 250, 1),
		"many directories":      archivetest.Many(250, 0, 0),
		"many bytes, in a gzip": archivetest.Gzip(archivetest.Many(3, 30, 100_000)),
	} {
		err := refuses(t, data, dir+"/x", Options{}, ErrNoSpace)
		if got := listTree(t, dir); len(got) != 0 {
			t.Errorf("%s leaves something:\n%v", name, got)
		}
		t.Logf("%s: %v", name, err)
	}
	// With a reserve there is no space at all.
	refuses(t, oneFile, dir+"/x", Options{Limits: Limits{Reserve: 5 << 20}}, ErrNoSpace)
	// A file that no free space would be enough for is a matter of limits.
	refuses(t, archivetest.Tar(archivetest.File("a", large)), dir+"/x", Options{}, ErrLimit)
	extractBytes(t, oneFile, dir+"/x", Options{})
}

// TestHoles: sparse files keep their holes, and may be larger than what is
// free when a limit allows it.
func TestHoles(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		lacking(t, "there is no tar to make a sparse archive")
	}
	dir := t.TempDir()
	src := dir + "/sparse"
	f, err := os.Create(src)
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 50<<20)
	must(t, err)
	must(t, f.Truncate(100<<20))
	must(t, f.Close())
	for _, format := range []string{"--format=gnu", "--format=posix", "--sparse-version=0.0", "--sparse-version=0.1"} {
		args := []string{"-C", dir, "-cSf", "-", format, "sparse"}
		if strings.HasPrefix(format, "--sparse") {
			args = append([]string{"--format=posix"}, args...)
		}
		data, err := exec.Command("tar", args...).Output()
		must(t, err)
		if len(data) > 1<<20 {
			t.Fatalf("tar made no sparse archive, but %d bytes", len(data))
		}
		res := extractBytes(t, data, t.TempDir()+"/x", Options{})
		var st unix.Stat_t
		must(t, unix.Stat(res.Path+"/sparse", &st))
		if st.Size != 100<<20 || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: size %d, on disk %d", format, st.Size, st.Blocks*512)
		}
		if readFile(t, res.Path+"/sparse") != readFile(t, src) {
			t.Errorf("%s: content differs", format)
		}
	}
}

// TestStages: who may take a staging directory away.
func TestStages(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/x"
	begun, goOn := make(chan bool), make(chan bool)
	var wait sync.WaitGroup
	wait.Go(func() {
		// What is decoded comes a buffer at a time, so it takes more than one
		// for the stage to be there.
		big := archivetest.Tar(archivetest.File("a", "new"), archivetest.File("b", strings.Repeat("b", 2*ringBuffer)))
		r := io.MultiReader(bytes.NewReader(big[:ringBuffer+600]), readerFunc(func([]byte) (int, error) {
			close(begun)
			<-goOn
			return 0, io.EOF
		}), bytes.NewReader(big[ringBuffer+600:]))
		if _, err := Extract(t.Context(), r, path, Options{StageID: "run-1"}); err != nil {
			t.Error(err)
		}
	})
	deadline := time.After(30 * time.Second)
	for !exists(dir + "/.x.stage-run-1/new") { // the reader is ahead of it, and the lock comes before
		select {
		case <-deadline:
			t.Fatalf("no stage:\n%v", listTree(t, dir))
		case <-time.After(time.Millisecond):
		}
	}
	select {
	case <-begun:
	case <-deadline:
		t.Fatal("it never read the rest")
	}
	if err := Sweep(path, "run-1"); !errors.Is(err, ErrBusy) {
		t.Errorf("Sweep of a living one = %v", err)
	}
	refuses(t, oneFile, path, Options{StageID: "run-1"}, ErrBusy)
	must(t, Sweep(path, "run-2"))
	close(goOn)
	wait.Wait()
	if readFile(t, path+"/a") != "new" {
		t.Error("not there")
	}

	// A dead one, with what makes trees hard to delete.
	stage := dir + "/.x.stage-dead"
	must(t, os.Mkdir(stage, 0o700))
	must(t, os.MkdirAll(stage+"/new/"+strings.Repeat("deep/", 300), 0o755))
	writeFile(t, stage+"/new/ro/file", "x")
	must(t, os.Chmod(stage+"/new/ro", 0o500))
	must(t, os.Symlink(dir, stage+"/new/link"))
	must(t, Sweep(path, "dead"))
	if exists(stage) || !exists(path+"/a") {
		t.Error("the wrong things were swept")
	}
	must(t, Sweep(path, "dead"))
	must(t, Sweep(dir+"/no/such/parent", "dead"))

	// One in the directory that a file went into.
	must(t, os.Mkdir(path+"/.name.stage-dead", 0o700))
	must(t, Sweep(path, "dead"))
	if exists(path + "/.name.stage-dead") {
		t.Error("not swept")
	}

	// What only looks like one.
	must(t, os.Mkdir(stage, 0o755))
	writeFile(t, stage+"/mine", "x")
	if err := Sweep(path, "dead"); !errors.Is(err, ErrConflict) || !exists(stage+"/mine") {
		t.Errorf("Sweep of a stranger = %v", err)
	}
	must(t, os.RemoveAll(stage))
	must(t, os.Symlink(path, stage))
	if err := Sweep(path, "dead"); !errors.Is(err, ErrConflict) || !exists(path+"/a") {
		t.Errorf("Sweep of a link = %v", err)
	}
	for _, id := range []string{"", "UPPER", "a/b", "..", strings.Repeat("a", 65)} {
		if err := Sweep(path, id); err == nil {
			t.Errorf("Sweep took id %q", id)
		}
	}

	// Two at once: one wins, none is harmed.
	both := make([]error, 2)
	for i := range both {
		wait.Go(func() {
			_, both[i] = Extract(t.Context(), bytes.NewReader(oneFile), dir+"/both", Options{})
		})
	}
	wait.Wait()
	if (both[0] == nil) == (both[1] == nil) || !errors.Is(errors.Join(both...), ErrConflict) {
		t.Errorf("errors %v", both)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) != 1 { // the link from above
		t.Errorf("left %q", left)
	}
}

// TestDeleteDeep: a tree that is deeper than there are descriptors, as users
// can make one, can be replaced.
func TestDeleteDeep(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/x"
	res := extractBytes(t, oneFile, path, Options{})
	old, err := os.Getwd()
	must(t, err)
	defer os.Chdir(old)
	must(t, os.Chdir(path))
	for range 3000 {
		must(t, os.Mkdir("d", 0o755))
		must(t, os.Chdir("d"))
	}
	must(t, os.WriteFile("f", nil, 0o644))
	must(t, os.Chdir(old))
	if edited, err := Edited(path, res.Fingerprint); !edited || err != nil {
		t.Errorf("Edited = %v, %v", edited, err)
	}
	res = extractBytes(t, oneFile, path, Options{OnConflict: ConflictReplace})
	if res.Leftover != "" {
		t.Errorf("leftover %s", res.Leftover)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// TestRemove: only what was published is taken away.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := dir + "/x"
	res := extractBytes(t, oneFile, path, Options{})
	must(t, os.Rename(path, dir+"/moved"))
	if err := Remove(path, res.Fingerprint); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove of nothing = %v", err)
	}
	must(t, os.Mkdir(path, 0o755))
	if err := Remove(path, res.Fingerprint); !errors.Is(err, ErrConflict) || !exists(path) {
		t.Errorf("Remove of another = %v", err)
	}
	must(t, os.Remove(path))
	must(t, os.Symlink("moved", path))
	if err := Remove(path, res.Fingerprint); !errors.Is(err, ErrConflict) || !exists(path) {
		t.Errorf("Remove of a link to it = %v", err)
	}
	must(t, os.Mkdir(dir+"/.moved.stage-"+RemoveStageID, 0o700)) // of one that died
	writeFile(t, dir+"/.moved.stage-"+RemoveStageID+"/old/file", "x")
	must(t, Remove(dir+"/moved", res.Fingerprint))
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left %v", left)
	}
}

// TestProgress: it grows and ends with the result.
func TestProgress(t *testing.T) {
	data := archivetest.Gzip(archivetest.Many(10, 10, 1000))
	var last Progress
	res := extractBytes(t, data, t.TempDir()+"/x", Options{Progress: func(p Progress) {
		if p.Bytes < last.Bytes || p.Entries < last.Entries || p.BytesIn < last.BytesIn {
			t.Errorf("%v after %v", p, last)
		}
		last = p
	}})
	want := Progress{BytesIn: int64(len(data)), Bytes: res.Bytes, Entries: res.Entries}
	if last != want || res.Entries != 110 || res.Bytes != 100_000 {
		t.Errorf("last %v, want %v", last, want)
	}
}
