package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"
)

// diskDir is a directory on a file system that overlayfs takes as upper one.
func diskDir(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := filepath.Join(t.TempDir(), "state")
	if err := CheckLayer(t.Context(), dir); err != nil {
		t.Skipf("no overlayfs on %s: %v", dir, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("CheckLayer left %v", left)
	}
	return dir
}

// operations are those of a working tree, each a shell script in a fresh mount of
// the small tree; the output is compared.
var operations = []struct{ name, script, want string }{
	{"write a new file", `echo new > n; cat n`, "new\n"},
	{"append to a file", `echo more >> hello; cat hello hard`, "hello\nmore\nhello\n"}, // a copy up parts hard links
	{"overwrite in the middle", `printf XX | dd of=big bs=1 seek=1000000 conv=notrunc status=none; dd if=big bs=1 skip=1000000 count=2 status=none; stat -c ' %s' big`, "XX 3146962\n"},
	{"truncate", `: > big; stat -c %s big`, "0\n"},
	{"truncate to a length", `truncate -s 3 hello; cat hello`, "hel"},
	{"rename a file", `mv hello d/moved; cat d/moved; test ! -e hello`, "hello\n"},
	{"rename over a file", `mv hello d/inner; cat d/inner`, "hello\n"},
	{"rename a directory", `mv d e; cat e/inner e/deep/er/file; test ! -e d`, "inner\ndeep\n"},
	{"rename a directory by rename(2)", `perl -e 'rename("d", "e") or die $!'; cat e/inner`, "inner\n"},
	{"remove a file", `rm hello; test ! -e hello; cat hard`, "hello\n"},
	{"remove a tree and make it again", `rm -r d; mkdir d; ls -A d; echo again > d/inner; cat d/inner`, "again\n"},
	{"make directories", `mkdir -p d/deep/x/y; touch d/deep/x/y/z; find d/deep -type f | sort`, "d/deep/er/file\nd/deep/x/y/z\n"},
	{"hard link", `ln d/inner l; stat -c %h l; echo x >> l; cat d/inner`, "2\ninner\nx\n"},
	{"symbolic link", `ln -s hello s; cat s`, "hello\n"},
	{"chmod without reading content", `chmod 600 big; stat -c '%a %s' big`, "600 3146962\n"},
	{"chown", `chown 12:34 hello; stat -c %u:%g hello`, "12:34\n"},
	{"touch", `touch -d @1000000000.5 hello; stat -c %.Y hello`, "1000000000.500000000\n"},
	{"set extended attributes", `setfattr -n user.a -v 1 hello; getfattr --only-values -n user.a hello; getfattr --only-values -n user.colour tagged | head -c 5`, "1green"},
	{"write through a shared map", `/usr/bin/env python3 -IS -c '
import mmap
f = open("big", "r+b")
m = mmap.mmap(f.fileno(), 0)
m[5:8] = b"abc"
m.flush()
print(open("big", "rb").read(8)[5:])'`, "b'abc'\n"},
	{"execute", `cp /bin/true t; ./t; printf '#!/bin/sh\necho ran\n' > s; chmod +x s; ./s`, "ran\n"},
	{"lock", `exec 9< hello; flock -n 9; flock -n hello true && echo both || echo locked`, "locked\n"},
	{"open unlinked", `exec 9<> hello; rm hello; echo bye >&9; cat /proc/self/fd/9`, "bye\no\n"},
	{"keep one device for all", `tar -c --one-file-system -f - . 2>/dev/null | tar -t | grep -c hello`, "1\n"},
	{"use git", `git init -q . 2>&1; git config user.email a@b; git config user.name n; git add d hello; git commit -q -m 1
		echo change >> hello; git status --short hello; git stash -q; cat hello; git stash pop -q; tail -1 hello
		git checkout -q -b other; git checkout -q hello; cat hello; git mv d dd; git status --short | head -2`,
		" M hello\nhello\nchange\nhello\nR  d/deep/er/file -> dd/deep/er/file\nR  d/hard2 -> dd/hard2\n"},
}

func TestOperations(t *testing.T) {
	state := diskDir(t)
	for _, tt := range operations {
		t.Run(tt.name, func(t *testing.T) {
			tree := smallTree()
			dir, fs := show(t, tree, Options{StateDir: state, Identity: tt.name})
			if info := fs.Info(); !info.Writable || info.WhyReadOnly != nil || info.Layer != LayerPath(state, dir, tt.name) {
				t.Fatalf("%+v", info)
			}
			if d := cmp.Diff(tt.want, sh(t, dir, tt.script)); d != "" {
				t.Error(d)
			}
			if strings.HasPrefix(tt.name, "chmod") && tree.readAts.Load() != 0 {
				t.Error("content was read")
			}
			if err := fs.Unmount(false); err != nil {
				t.Error(err)
			}
		})
	}
}

// Changes are there again at the next mount of the same object at the same path,
// and only there.
func TestLayerIsKept(t *testing.T) {
	state := diskDir(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o710); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 55, 66); err != nil {
		t.Fatal(err)
	}
	opt := Options{StateDir: state, Identity: "obj_1 etag"}
	fs := showAt(t, dir, smallTree(), opt)
	sh(t, dir, `echo changed >> hello; mv d e; rm tagged; mkdir e/new; chmod 700 big; echo x > new`)
	if err := fs.Unmount(false); err != nil {
		t.Fatal(err)
	}
	check := `cat hello new e/inner; ls; stat -c %a big; stat -c '%a %u:%g' .; sha256sum < big`
	want := "hello\nchanged\nx\ninner\nbig\ndangling\ne\nempty\nhard\nhello\nlink\nnames\nnew\nsparse\n700\n710 55:66\n" + sum(smallTree().body("big")) + "  -\n"
	for range 2 {
		fs = showAt(t, dir, smallTree(), opt)
		if d := cmp.Diff(want, sh(t, dir, check)); d != "" {
			t.Error(d)
		}
		if err := fs.Unmount(false); err != nil {
			t.Fatal(err)
		}
	}
	other := opt
	other.Identity = "obj_1 another etag"
	fs = showAt(t, dir, smallTree(), other)
	if got := sh(t, dir, "cat hello; test -e new || echo none"); got != "hello\nnone\n" {
		t.Error(got)
	}
	fs.Unmount(false)
	var st unix.Stat_t
	if err := unix.Stat(state, &st); err != nil || st.Mode&0o777 != 0o700 {
		t.Errorf("mode of the state directory: %o %v", st.Mode, err)
	}
}

// One layer is never laid over two trees at a time.
func TestLayerIsLocked(t *testing.T) {
	state := diskDir(t)
	dir := t.TempDir()
	opt := Options{StateDir: state, Identity: "x"}
	l, err := openLayer(t.Context(), state, "x", dir, smallTree().rows[0].attr, &server{})
	if err != nil {
		t.Fatal(err)
	}
	fs := showAt(t, dir, smallTree(), opt)
	var le *LayerError
	if info := fs.Info(); info.Writable || !errors.As(info.WhyReadOnly, &le) || !strings.Contains(le.Error(), "another process uses it") {
		t.Errorf("%+v", info)
	}
	if got := sh(t, dir, "cat hello; touch x 2>&1 || true"); got != "hello\ntouch: cannot touch 'x': Read-only file system\n" {
		t.Error(got)
	}
	l.close()
	if err := fs.Unmount(false); err != nil {
		t.Fatal(err)
	}
	if fs = showAt(t, dir, smallTree(), opt); !fs.Info().Writable {
		t.Error(fs.Info().WhyReadOnly)
	}
}

// Where overlayfs does not work the tree is shown all the same.
func TestNotWritable(t *testing.T) {
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	bad := filepath.Join(dir, "a:b")
	for _, d := range []string{mnt, bad} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, state := range map[string]string{
		"read-only file system": "/proc/nothing",
		"lies below the mount":  mnt + "/state",
		"line feed":             bad,
	} {
		fs := showAt(t, mnt, smallTree(), Options{StateDir: state})
		var le *LayerError
		info := fs.Info()
		if info.Writable || info.Lower != mnt || !errors.As(info.WhyReadOnly, &le) {
			t.Errorf("%s: %+v", name, info)
		}
		if got := sh(t, mnt, "cat hello"); got != "hello\n" {
			t.Error(got)
		}
		if err := fs.Unmount(false); err != nil {
			t.Error(err)
		}
	}
}

// A file system that cannot be the upper one, which turns out at different
// times; in the end the tree moves from below the state directory to the path.
func TestUpperIsRefused(t *testing.T) {
	diskDir(t)
	for _, tt := range []struct{ name, fstype, data, want string }{
		{"ramfs has no extended attributes", "ramfs", "", "setxattr"},
		{"an overlayfs is no upper layer", "overlay", "lowerdir=LOWER,upperdir=UPPER,workdir=WORK", "does not take the file system"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			mnt := filepath.Join(dir, "mnt")
			data := tt.data
			for _, d := range []string{"mnt", "state", "LOWER", "UPPER", "WORK"} {
				d = filepath.Join(dir, d)
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				data = strings.Replace(data, filepath.Base(d), d, 1)
			}
			state := filepath.Join(dir, "state")
			if err := unix.Mount("none", state, tt.fstype, 0, data); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { detachAll(state) })
			fs := showAt(t, mnt, smallTree(), Options{StateDir: state})
			var le *LayerError
			info := fs.Info()
			if info.Writable || info.Lower != mnt || !errors.As(info.WhyReadOnly, &le) || !strings.Contains(le.Error(), tt.want) {
				t.Errorf("%+v", info)
			}
			if got := sh(t, mnt, "cat hello; findmnt -n -o FSTYPE .; find . | wc -l"); got != "hello\nfuse.objectmount\n21\n" {
				t.Error(got)
			}
			if err := fs.Unmount(false); err != nil {
				t.Error(err)
			}
		})
	}
}

// go-fuse's own conformance tests, on the writable view. They use the mount from
// this process, so another one serves it.
func TestPosix(t *testing.T) {
	state := diskDir(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := serveElsewhere(t, serveJob{Dir: dir, StateDir: state})
	if !c.info.Writable {
		t.Fatal("not writable")
	}
	for name, test := range posixtest.All {
		switch name {
		case "FcntlFlockLocksFile", "OpenSymlinkRace": // not ready, says go-fuse's own test
			continue
		}
		t.Run(name, func(t *testing.T) {
			sub := filepath.Join(dir, name)
			if err := os.Mkdir(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			test(t, sub)
		})
	}
	c.stop(t)
}

// The only one of them that writes nothing, on the read-only tree; and that
// positions in a directory mean the same whenever they are asked for.
func TestPosixReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := serveElsewhere(t, serveJob{Dir: dir, Tree: "many"})
	for _, sub := range []string{".", "d00"} {
		sub = filepath.Join(dir, sub)
		posixtest.All["ReadDirConsistency"](t, sub)
		fd, err := unix.Open(sub, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		all := direntries(t, fd)
		if len(all) != manyDirs+2 && len(all) != 502 {
			t.Errorf("%d entries", len(all))
		}
		for i := len(all) - 1; i > 0; i-- {
			if _, err := unix.Seek(fd, int64(all[i-1].Off), 0); err != nil {
				t.Fatal(err)
			}
			if rest := direntries(t, fd); len(rest) != len(all)-i || rest[0] != all[i] {
				t.Fatalf("from entry %d on there are %d of %d, the first is %v", i, len(rest), len(all), rest[0])
			}
		}
		unix.Close(fd)
	}
	c.stop(t)
}

func direntries(t *testing.T, fd int) (all []fuse.DirEntry) {
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return all
		}
		for b := buf[:n]; len(b) > 0; {
			var e fuse.DirEntry
			b = b[e.Parse(b):]
			all = append(all, e)
		}
	}
}
