package extract

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// mountFS mounts something for the time of a test.
func mountFS(t *testing.T, dir string, args ...string) {
	t.Helper()
	needRoot(t)
	must(t, os.MkdirAll(dir, 0o755))
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		lacking(t, "mount %q: %v %s", args, err, out)
	}
	t.Cleanup(func() {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil { // whatever lies above it too
		}
	})
}

// TestBind: where no rename can replace what is there, the tree is bound over
// it, can be bound again, edited, and taken away, and then shows what was there.
func TestBind(t *testing.T) {
	needRoot(t)
	for name, place := range map[string]func(t *testing.T, dir string) (path, old string){
		"mount point": func(t *testing.T, dir string) (string, string) {
			mountFS(t, dir+"/p", "-t", "tmpfs", "tmpfs")
			writeFile(t, dir+"/p/old", "old")
			return dir + "/p", "/old"
		},
		"empty mount point": func(t *testing.T, dir string) (string, string) {
			mountFS(t, dir+"/p", "-t", "tmpfs", "tmpfs")
			return dir + "/p", ""
		},
		"lower layer": func(t *testing.T, dir string) (string, string) {
			mountFS(t, dir+"/layers", "-t", "tmpfs", "tmpfs") // an overlay cannot lie on an overlay
			for _, d := range []string{"lower", "upper", "work"} {
				must(t, os.Mkdir(dir+"/layers/"+d, 0o755))
			}
			writeFile(t, dir+"/layers/lower/p/old", "old")
			mountFS(t, dir+"/merged", "-t", "overlay", "overlay", "-o",
				"lowerdir="+dir+"/layers/lower,upperdir="+dir+"/layers/upper,workdir="+dir+"/layers/work")
			return dir + "/merged/p", "/old"
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, old := place(t, dir)
			if old != "" || name == "empty mount point" {
				refuses(t, oneFile, path, Options{}, ErrConflict)
			}
			var st Staged
			opts := Options{OnConflict: ConflictReplace, StageID: "one", FlushLater: true, Staged: func(s Staged) error { st = s; return nil }}
			must(t, CheckPath(path, opts))
			res := extractBytes(t, oneFile, path, opts)
			if res.Path != path || res.Tree == "" || res.Tree != BoundTree(st.Root) || res.Unflushed || !IsBound(path, res.Fingerprint) {
				t.Fatalf("%+v", res)
			}
			if got := readFile(t, path+"/a"); got != "new" {
				t.Errorf("holds %q", got)
			}
			if m := modeOf(t, filepath.Dir(res.Tree)); m.Perm() != 0o700 {
				t.Errorf("it is kept in a directory with mode %v", m)
			}
			must(t, Sweep(path, "one")) // not what is in use
			if edited, err := Edited(res.Tree, res.Fingerprint); edited || err != nil {
				t.Errorf("edited %v, %v", edited, err)
			}

			// After a reboot it is bound again, with its edits.
			writeFile(t, path+"/mine", "mine")
			if edited, err := Edited(res.Tree, res.Fingerprint); !edited || err != nil {
				t.Errorf("edited %v, %v", edited, err)
			}
			must(t, Unbind(path, res.Fingerprint))
			must(t, Unbind(path, res.Fingerprint))
			if IsBound(path, res.Fingerprint) || exists(path+"/a") || (old != "" && !exists(path+old)) {
				t.Errorf("taken down, %v", listTree(t, dir))
			}
			must(t, Bind(path, res.Tree, res.Fingerprint))
			must(t, Bind(path, res.Tree, res.Fingerprint))
			if got := readFile(t, path+"/a") + readFile(t, path+"/mine"); got != "newmine" {
				t.Errorf("bound again it holds %q", got)
			}

			// Another takes its place, and does not pile up on it.
			res2 := extractBytes(t, archivetest.Tar(archivetest.File("b", "2")), path,
				Options{OnConflict: ConflictReplace, StageID: "two", Over: &res.Fingerprint})
			if got := readFile(t, path+"/b"); got != "2" || exists(path+"/a") {
				t.Errorf("replaced it holds %q", got)
			}
			must(t, RemoveBound(res.Tree))
			must(t, RemoveBound(res.Tree))
			must(t, os.Mkdir(path+"/inner", 0o755))
			mountFS(t, path+"/inner", "-t", "tmpfs", "tmpfs")
			if err := Unbind(path, res2.Fingerprint); !errors.Is(err, ErrConflict) {
				t.Errorf("with a mount inside it was taken down: %v", err)
			}
			must(t, unix.Unmount(path+"/inner", 0))

			kept, err := ReleaseBound(path, res2.Tree, res2.Fingerprint)
			must(t, err)
			if got := readFile(t, kept+"/b"); got != "2" || kept != path+".kept" || exists(path+"/b") || (old != "" && !exists(path+old)) {
				t.Errorf("released to %s it holds %q\n%v", kept, got, listTree(t, dir))
			}
			if left, _ := filepath.Glob(filepath.Dir(path) + "/.*"); len(left) > 0 {
				t.Errorf("left %q", left)
			}
		})
	}
}

// TestBindNever: a tree that was kept but never bound is swept, and a tree is
// bound only where it can be.
func TestBindNever(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	mountFS(t, dir+"/p", "-t", "tmpfs", "tmpfs")
	writeFile(t, dir+"/f", "old")
	must(t, unix.Mount(dir+"/f", dir+"/f", "", unix.MS_BIND, ""))
	t.Cleanup(func() { unix.Unmount(dir+"/f", unix.MNT_DETACH) })

	refuses(t, oneFile, dir+"/f", Options{OnConflict: ConflictReplace}, ErrConflict)
	file := extractBytes(t, []byte("text"), dir+"/f", Options{OnConflict: ConflictReplace})
	if got := readFile(t, dir+"/f"); got != "text" || file.Tree == "" {
		t.Errorf("the file holds %q, %+v", got, file)
	}
	must(t, Unbind(dir+"/f", file.Fingerprint))
	must(t, RemoveBound(file.Tree))

	res := extractBytes(t, oneFile, dir+"/p", Options{OnConflict: ConflictReplace, StageID: "x"})
	must(t, Unbind(dir+"/p", res.Fingerprint))
	must(t, Sweep(dir+"/p", "x"))
	if err := Bind(dir+"/p", res.Tree, res.Fingerprint); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("swept, and bound: %v", err)
	}
	if err := RemoveBound(dir + "/p"); !errors.Is(err, ErrConflict) {
		t.Errorf("removed what is no bound tree: %v", err)
	}
	if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	// Where the path is gone, there is something to mount on again.
	res = extractBytes(t, oneFile, dir+"/p", Options{OnConflict: ConflictReplace, StageID: "x"})
	must(t, Unbind(dir+"/p", res.Fingerprint))
	must(t, unix.Unmount(dir+"/p", 0))
	must(t, os.Remove(dir+"/p"))
	must(t, Bind(dir+"/p", res.Tree, res.Fingerprint))
	if got := readFile(t, dir+"/p/a"); got != "new" {
		t.Errorf("holds %q", got)
	}
	must(t, Unbind(dir+"/p", res.Fingerprint))
	must(t, RemoveBound(res.Tree))
}

// TestFlush: where it waits for nothing it says so, and what is not there, or
// is something else, is not flushed in silence.
func TestFlush(t *testing.T) {
	dir := t.TempDir()
	var st Staged
	later := Options{FlushLater: true, Staged: func(s Staged) error { st = s; return nil }}
	res := extractBytes(t, oneFile, dir+"/x", later)
	if st.Path != dir+"/x" || st.Fills || st.Later != res.Unflushed || !strings.Contains(st.Root, ".stage-") {
		t.Errorf("%+v, %+v", st, res)
	}
	must(t, Flush(dir+"/x", res.Fingerprint))
	must(t, os.Chmod(dir+"/x", 0))
	must(t, Flush(dir+"/x", res.Fingerprint))
	must(t, os.Chmod(dir+"/x", 0o755))
	file := extractBytes(t, []byte("text"), dir+"/f", later)
	must(t, Flush(dir+"/f", file.Fingerprint))
	if err := Flush(dir+"/f", res.Fingerprint); !errors.Is(err, ErrConflict) {
		t.Error(err)
	}
	if err := Flush(dir+"/none", res.Fingerprint); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	must(t, os.Remove(dir+"/f"))
	must(t, unix.Mkfifo(dir+"/f", 0o600))
	if err := Flush(dir+"/f", file.Fingerprint); !errors.Is(err, ErrConflict) {
		t.Error(err)
	}
	// What replaces something is on disk when Extract returns.
	later.OnConflict = ConflictReplace
	if res := extractBytes(t, oneFile, dir+"/x", later); res.Unflushed || st.Later {
		t.Errorf("%+v, %+v", st, res)
	}
	must(t, os.Mkdir(dir+"/e", 0o755))
	extractBytes(t, oneFile, dir+"/e", later)
	if !st.Fills {
		t.Errorf("%+v", st)
	}
	mountFS(t, dir+"/m", "-t", "tmpfs", "tmpfs")
	if res := extractBytes(t, oneFile, dir+"/m/x", later); res.Unflushed {
		t.Error("memory is to be flushed")
	}
}

// TestStagedRefuses: who cannot write down what is coming, or looks once more
// and finds a reason, stops it; and nothing is left.
func TestStagedRefuses(t *testing.T) {
	dir := t.TempDir()
	no := errors.New("no")
	refuses(t, oneFile, dir+"/p/x", Options{Staged: func(Staged) error { return no }}, no)
	refuses(t, oneFile, dir+"/p/x", Options{MayPublish: func() error { return no }}, no)
	if list := listTree(t, dir); len(list) != 0 {
		t.Errorf("left %v", list)
	}
}

// TestSetAside: never over anything.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	for i, want := range []string{"/x.aside", "/x.aside-2"} {
		res := extractBytes(t, oneFile, dir+"/x", Options{})
		if i == 0 {
			if _, err := SetAside(dir+"/none", res.Fingerprint, ".aside"); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
		aside, err := SetAside(dir+"/x", res.Fingerprint, ".aside")
		must(t, err)
		if aside != dir+want || exists(dir+"/x") || readFile(t, aside+"/a") != "new" {
			t.Errorf("it is at %s, want %s", aside, want)
		}
		if _, err := SetAside(aside, Fingerprint{Dev: 1, Ino: 1}, ".x"); !errors.Is(err, ErrConflict) {
			t.Error(err)
		}
	}
}
