package extract

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

var oneFile = archivetest.Tar(archivetest.File("a", "new"))

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func ownerOf(t testing.TB, path string) Owner {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	st := info.Sys().(*syscall.Stat_t)
	return Owner{int(st.Uid), int(st.Gid)}
}

func modeOf(t testing.TB, path string) os.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	must(t, err)
	return info.Mode()
}

// TestPaths: what object paths mean.
func TestPaths(t *testing.T) {
	text, gz := []byte("text"), archivetest.Gzip([]byte("text"))
	for _, tt := range []struct {
		name   string
		path   string // below the sandbox
		data   []byte
		object string
		setup  func(dir string)
		want   string // where it ends up, below the sandbox; "" is refused with ErrConflict
	}{
		{name: "puts a file at its path", path: "x", data: text, want: "x"},
		{name: "makes parents", path: "p/q/x", data: text, want: "p/q/x"},
		{name: "cleans the path lexically", path: "p/./q/..//x", data: text, want: "p/x"},
		{name: "puts a file into a directory that a slash asks for", path: "d/", data: text, object: "name.txt", want: "d/name.txt"},
		{name: "puts a file into a directory that is there", path: "d", data: text, object: "name.txt", want: "d/name.txt",
			setup: func(dir string) { os.Mkdir(dir+"/d", 0o755) }},
		{name: "puts a file into a full directory", path: "d", data: text, object: "name.txt", want: "d/name.txt",
			setup: func(dir string) { os.MkdirAll(dir+"/d/e", 0o755) }},
		{name: "takes .gz off the name of what it decompressed", path: "d/", data: gz, object: "name.txt.gz", want: "d/name.txt"},
		{name: "takes no .gz off a path", path: "x.gz", data: gz, object: "x.gz", want: "x.gz"},
		{name: "leaves a name that is nothing but .gz", path: "d/", data: gz, object: ".gz", want: "d/.gz"},
		{name: "takes a slash after an archive's path for nothing", path: "t/", data: oneFile, want: "t"},
		{name: "refuses a directory for a file without name", path: "d/", data: text},
		{name: "refuses an object name with a slash", path: "d/", data: text, object: "a/b"},
		{name: "refuses an object name that leads up", path: "d/", data: text, object: ".."},
		{name: "refuses an object name with a NUL", path: "d/", data: text, object: "a\x00b"},
		{name: "refuses a path with a NUL", path: "a\x00b", data: text},
		{name: "refuses a long component", path: strings.Repeat("n", 256), data: text},
		{name: "takes a component of 255 bytes", path: strings.Repeat("n", 255), data: oneFile, want: strings.Repeat("n", 255)},
		{name: "refuses a file as a parent", path: "f/x", data: text, setup: func(dir string) { os.WriteFile(dir+"/f", nil, 0o644) }},
		{name: "refuses a directory where the file in it would be", path: "d", data: text, object: "e",
			setup: func(dir string) { os.MkdirAll(dir+"/d/e", 0o755) }},
		{name: "follows a link of ours", path: "l/x", data: text, want: "l/x",
			setup: func(dir string) { os.Mkdir(dir+"/d", 0o755); os.Symlink("d", dir+"/l") }},
		{name: "follows a link and dots in its target", path: "l/x", data: text, want: "l/x",
			setup: func(dir string) { os.MkdirAll(dir+"/d/e", 0o755); os.Symlink("d/e/../../d", dir+"/l") }},
		{name: "refuses a link that leads nowhere", path: "l/x", data: text, setup: func(dir string) { os.Symlink("none/at/all", dir+"/l") }},
		{name: "refuses links in a circle", path: "l/x", data: text, setup: func(dir string) { os.Symlink("l", dir+"/l") }},
		{name: "refuses a link at the path itself", path: "l", data: oneFile,
			setup: func(dir string) { os.Mkdir(dir+"/d", 0o755); os.Symlink("d", dir+"/l") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.setup != nil {
				tt.setup(dir)
			}
			before := listTree(t, dir)
			opts := Options{Name: tt.object}
			if tt.want == "" {
				refuses(t, tt.data, dir+"/"+tt.path, opts, ErrConflict)
				if diff := cmp.Diff(before, listTree(t, dir)); diff != "" {
					t.Errorf("refused, but something changed:\n%s", diff)
				}
				return
			}
			must(t, CheckPath(dir+"/"+tt.path, opts))
			res := extractBytes(t, tt.data, dir+"/"+tt.path, opts)
			if want := filepath.Join(dir, tt.want); res.Path != want || !exists(want) {
				t.Errorf("is at %s, want %s\n%v", res.Path, want, listTree(t, dir))
			}
			if res.Kind == KindFile && readFile(t, res.Path) != "text" {
				t.Errorf("content %q", readFile(t, res.Path))
			}
		})
	}
	for _, path := range []string{"", "relative", "./x", "/", "//", "/..", "/a/..", "/" + strings.Repeat("a/", 2100)} {
		refuses(t, text, path, Options{}, ErrConflict)
		if err := CheckPath(path, Options{}); !errors.Is(err, ErrConflict) {
			t.Errorf("CheckPath(%q) = %v", path, err)
		}
	}
}

// TestConflicts: what is there, what comes, what is asked, and what becomes.
func TestConflicts(t *testing.T) {
	there := map[string]func(path string){
		"empty dir": func(p string) { os.Mkdir(p, 0o750) },
		"full dir":  func(p string) { os.MkdirAll(p+"/old/deep", 0o755); os.WriteFile(p+"/a", []byte("old"), 0o600) },
		"file":      func(p string) { os.WriteFile(p, []byte("old"), 0o600) },
		"link":      func(p string) { os.Symlink("/nowhere", p) },
		"fifo":      func(p string) { unix.Mkfifo(p, 0o600) },
	}
	const refused = "refused"
	for _, tt := range []struct {
		there, comes string
		on           OnConflict
		want         string // the listing after it, or refused
	}{
		{"empty dir", "tree", ConflictError, "a=new"},
		{"empty dir", "tree", ConflictReplace, "a=new"},
		{"empty dir", "tree", ConflictMerge, "a=new"},
		{"full dir", "tree", ConflictError, refused},
		{"full dir", "tree", ConflictReplace, "a=new"},
		{"full dir", "tree", ConflictMerge, "a=new old old/deep"},
		{"file", "tree", ConflictError, refused},
		{"file", "tree", ConflictReplace, "a=new"},
		{"file", "tree", ConflictMerge, refused},
		{"link", "tree", ConflictError, refused},
		{"link", "tree", ConflictReplace, "a=new"},
		{"link", "tree", ConflictMerge, refused},
		{"fifo", "tree", ConflictReplace, "a=new"},
		{"file", "file", ConflictError, refused},
		{"file", "file", ConflictReplace, ".=new"},
		{"file", "file", ConflictMerge, ".=new"},
		{"link", "file", ConflictError, refused},
		{"link", "file", ConflictReplace, ".=new"},
		{"full dir", "file", ConflictError, refused}, // its "a" is a file too
		{"full dir", "file", ConflictReplace, "a=new old old/deep"},
	} {
		t.Run(fmt.Sprintf("%s, %s comes, %s", tt.there, tt.comes, tt.on), func(t *testing.T) {
			dir := t.TempDir()
			path := dir + "/target"
			there[tt.there](path)
			before := listTree(t, dir)
			opts := Options{OnConflict: tt.on, Name: "a", ContentType: "tar"}
			data := oneFile
			if tt.comes == "file" {
				data, opts.ContentType = []byte("new"), "text"
			}
			if tt.want == refused {
				refuses(t, data, path, opts, ErrConflict)
				if diff := cmp.Diff(before, listTree(t, dir)); diff != "" {
					t.Errorf("refused, but something changed:\n%s", diff)
				}
				if err := CheckPath(path, opts); tt.comes == "tree" && !errors.Is(err, ErrConflict) {
					t.Errorf("CheckPath = %v", err)
				}
				return
			}
			must(t, CheckPath(path, opts))
			mode := modeOf(t, path)
			res := extractBytes(t, data, path, opts)
			if edited, err := Edited(res.Path, res.Fingerprint); edited || err != nil {
				t.Errorf("Edited right after = %v, %v", edited, err)
			}
			if tt.there == "empty dir" && modeOf(t, path) != mode {
				t.Errorf("mode %v, was %v", modeOf(t, path), mode)
			}
			var got []string
			filepath.WalkDir(path, func(p string, d os.DirEntry, _ error) error {
				rel, _ := filepath.Rel(path, p)
				if d.Type().IsRegular() {
					got = append(got, rel+"="+readFile(t, p))
				} else if rel != "." {
					got = append(got, rel)
				}
				return nil
			})
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("now %q, want %q", s, tt.want)
			}
			if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if res.Leftover != "" {
				t.Errorf("leftover %q", res.Leftover)
			}
			if err := Remove(res.Path, res.Fingerprint); errors.Is(err, ErrConflict) != res.Fingerprint.Merged {
				t.Errorf("Remove = %v, merged %v", err, res.Fingerprint.Merged)
			}
		})
	}
}

// TestMerge: the cases of merging that are about more than one name.
func TestMerge(t *testing.T) {
	path := t.TempDir() + "/target"
	writeFile(t, path+"/d/keep", "old")
	writeFile(t, path+"/d/file", "old")
	writeFile(t, path+"/outside", "canary")
	must(t, os.Symlink("../outside", path+"/d/link"))
	must(t, os.Chmod(path+"/d", 0o700))
	data := archivetest.Tar(archivetest.Dir("d/"), archivetest.File("d/file", "new"), archivetest.File("d/link", "new"),
		archivetest.Entry{Name: "ro/", Type: '5', Mode: 0o555}.Bytes(), archivetest.File("ro/x", "new"))
	res := extractBytes(t, data, path, Options{OnConflict: ConflictMerge})
	for file, want := range map[string]string{"d/keep": "old", "d/file": "new", "d/link": "new", "ro/x": "new", "outside": "canary"} {
		if got := readFile(t, path+"/"+file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	if modeOf(t, path+"/d/link")&os.ModeSymlink != 0 {
		t.Error("a link of the existing tree is still there: was it written through?")
	}
	if m := modeOf(t, path+"/d").Perm(); m != 0o700 {
		t.Errorf("an existing directory got mode %v", m)
	}
	if m := modeOf(t, path+"/ro").Perm(); m != 0o555 {
		t.Errorf("a new directory has mode %v", m)
	}
	if edited, err := Edited(path, res.Fingerprint); edited || err != nil {
		t.Errorf("Edited = %v, %v", edited, err)
	}
	must(t, os.Chmod(path+"/ro", 0o755)) // let the test clean up

	// A directory against a link to a directory: nothing may move, not even
	// what comes before it.
	before := listTree(t, path)
	data = archivetest.Tar(archivetest.File("aaa", "new"), archivetest.Dir("d/link/"), archivetest.File("zzz", "new"))
	refuses(t, data, path, Options{OnConflict: ConflictMerge}, ErrConflict)
	if diff := cmp.Diff(before, listTree(t, path)); diff != "" {
		t.Errorf("refused, but something changed:\n%s", diff)
	}
}

// TestPlantedLinks: links of users are not followed to where they could not
// have gone themselves.
func TestPlantedLinks(t *testing.T) {
	needRoot(t)
	const user = 12345
	dir := t.TempDir()
	for _, d := range []string{"home", "theirs", "roots"} {
		must(t, os.Mkdir(dir+"/"+d, 0o755))
	}
	must(t, os.Chown(dir+"/home", user, user))
	must(t, os.Chown(dir+"/theirs", user, user))
	plant := func(target, link string) {
		must(t, os.Symlink(target, link))
		must(t, os.Lchown(link, user, user))
	}
	plant(dir+"/roots", dir+"/home/evil")
	plant(dir+"/theirs", dir+"/home/good")
	plant("evil", dir+"/home/chain")
	must(t, os.Symlink(dir+"/roots", dir+"/home/byroot"))
	for _, path := range []string{"/home/evil/x", "/home/evil/deep/x", "/home/chain/x"} {
		refuses(t, oneFile, dir+path, Options{}, ErrConflict)
		refuses(t, oneFile, dir+path, Options{Owner: &Owner{user, user}}, ErrConflict)
		if err := CheckPath(dir+path, Options{}); !errors.Is(err, ErrConflict) {
			t.Errorf("CheckPath(%s) = %v", path, err)
		}
	}
	if got := listTree(t, dir+"/roots"); len(got) != 0 {
		t.Errorf("something was put there:\n%v", got)
	}
	extractBytes(t, oneFile, dir+"/home/good/x", Options{})
	if o := ownerOf(t, dir+"/theirs/x/a"); o != (Owner{user, user}) {
		t.Errorf("owner %v", o)
	}
	extractBytes(t, oneFile, dir+"/home/byroot/x", Options{})
	if !exists(dir + "/roots/x/a") {
		t.Error("root's link was not followed")
	}
	// An archive of root's can bring links of root's.
	refuses(t, oneFile, dir+"/home/byroot/y", Options{Within: dir + "/home"}, ErrConflict)
	extractBytes(t, oneFile, dir+"/home/byroot/y", Options{Within: dir + "/home/byroot"})
}

// TestOwners: whom things belong to.
func TestOwners(t *testing.T) {
	needRoot(t)
	data := archivetest.Tar(
		archivetest.Entry{Name: "d/", Type: '5', UID: 7, GID: 8}.Bytes(),
		archivetest.Entry{Name: "d/f", Body: "x", UID: 7, GID: 8, Mode: 0o6755}.Bytes(),
		archivetest.Entry{Name: "d/l", Type: '2', Link: "f", UID: 7, GID: 8}.Bytes())
	all := []string{"", "/d", "/d/f", "/d/l"}
	check := func(t *testing.T, root string, want Owner, paths ...string) {
		t.Helper()
		for _, p := range paths {
			if got := ownerOf(t, root+p); got != want {
				t.Errorf("%s belongs to %v, want %v", root+p, got, want)
			}
		}
	}
	home := func(t *testing.T) string {
		dir := t.TempDir() + "/home"
		must(t, os.Mkdir(dir, 0o755))
		must(t, os.Chown(dir, 1000, 1001))
		return dir
	}
	t.Run("the nearest parent's", func(t *testing.T) {
		dir := home(t)
		extractBytes(t, data, dir+"/p/q/x", Options{})
		check(t, dir+"/p/q/x", Owner{1000, 1001}, all...)
		check(t, dir, Owner{1000, 1001}, "/p", "/p/q")
		if m := modeOf(t, dir+"/p/q"); m.Perm() != 0o755 {
			t.Errorf("parent's mode %v", m)
		}
		extractBytes(t, []byte("text"), dir+"/file", Options{})
		check(t, dir, Owner{1000, 1001}, "/file")
	})
	t.Run("the existing directory's", func(t *testing.T) {
		dir := home(t)
		must(t, os.Mkdir(dir+"/x", 0o701))
		must(t, os.Chown(dir+"/x", 5, 6))
		extractBytes(t, data, dir+"/x", Options{})
		check(t, dir+"/x", Owner{5, 6}, all...)
		if m := modeOf(t, dir+"/x"); m.Perm() != 0o701 {
			t.Errorf("its mode became %v", m)
		}
	})
	t.Run("the one asked for", func(t *testing.T) {
		dir := home(t)
		extractBytes(t, data, dir+"/p/x", Options{Owner: &Owner{3, 4}})
		check(t, dir+"/p/x", Owner{3, 4}, all...)
		check(t, dir, Owner{3, 4}, "/p")
	})
	t.Run("the archive's", func(t *testing.T) {
		dir := home(t)
		extractBytes(t, data, dir+"/x", Options{PreserveOwner: true})
		check(t, dir+"/x", Owner{7, 8}, all[1:]...)
		check(t, dir+"/x", Owner{1000, 1001}, "")
		if m := modeOf(t, dir+"/x/d/f"); m != 0o755 {
			t.Errorf("mode %v", m)
		}
		stranger := archivetest.Tar(archivetest.PAX("uid", "4294967295"), archivetest.File("f", ""))
		refuses(t, stranger, dir+"/y", Options{PreserveOwner: true}, ErrUnsafe)
		extractBytes(t, stranger, dir+"/y", Options{})
	})
	t.Run("no set-group-ID from a parent", func(t *testing.T) {
		dir := home(t)
		must(t, os.Chmod(dir, 0o2775|os.ModeSetgid))
		extractBytes(t, data, dir+"/p/x", Options{})
		check(t, dir+"/p/x", Owner{1000, 1001}, all...)
		for _, p := range []string{"/p", "/p/x", "/p/x/d"} {
			if m := modeOf(t, dir+p); m&os.ModeSetgid != 0 {
				t.Errorf("%s has mode %v", p, m)
			}
		}
	})
	if _, err := Extract(t.Context(), strings.NewReader("x"), t.TempDir()+"/x", Options{Owner: &Owner{-1, 0}}); err == nil {
		t.Error("owner -1 was taken")
	}
}

// TestMountPoints: a rename cannot replace a mount point, and must not carry
// one away.
func TestMountPoints(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	mount := func(path string) {
		must(t, os.MkdirAll(path, 0o755))
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=1m"); err != nil {
			lacking(t, "cannot mount: %v", err)
		}
		t.Cleanup(func() { must(t, unix.Unmount(path, unix.MNT_DETACH)) })
	}
	mount(dir + "/m")
	mount(dir + "/full/with space/m")
	for _, on := range []OnConflict{ConflictError, ConflictMerge} { // replace: see TestBind
		refuses(t, oneFile, dir+"/m", Options{OnConflict: on}, ErrConflict)
		if err := CheckPath(dir+"/m", Options{OnConflict: on, ContentType: "tar"}); !errors.Is(err, ErrConflict) {
			t.Errorf("CheckPath = %v", err)
		}
	}
	refuses(t, oneFile, dir+"/full", Options{OnConflict: ConflictReplace}, ErrConflict)
	inMerge := archivetest.Tar(archivetest.File("with space/m/x", "y"))
	refuses(t, inMerge, dir+"/full", Options{OnConflict: ConflictMerge}, ErrConflict)
	extractBytes(t, oneFile, dir+"/m/below", Options{})
	extractBytes(t, []byte("text"), dir+"/m", Options{Name: "file"})

	res := extractBytes(t, archivetest.Tar(archivetest.Dir("d")), dir+"/x", Options{})
	mount(dir + "/x/d")
	if edited, err := Edited(res.Path, res.Fingerprint); !edited || err != nil {
		t.Errorf("Edited with a mount in it = %v, %v", edited, err)
	}
	if err := Remove(res.Path, res.Fingerprint); !errors.Is(err, ErrConflict) {
		t.Errorf("Remove with a mount in it = %v", err)
	}
	if !exists(dir + "/x/d") {
		t.Error("it was taken away")
	}
}
