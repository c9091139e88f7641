package mount

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/index"
)

func smallTree() *memTree {
	return newTree(
		entry{name: "hello", body: "hello\n", mode: 0o640, uid: 1000, gid: 1001, sec: 1234567890, nsec: 123456789},
		entry{name: "empty"},
		entry{name: "big", body: content(3<<20+1234, 1)},
		entry{name: "d/", mode: 0o750, sec: 1111111111, nsec: 1},
		entry{name: "d/inner", body: "inner\n", mode: 0o755},
		entry{name: "d/deep/er/file", body: "deep\n"},
		entry{name: "link", link: "d/inner"},
		entry{name: "dangling", link: "/nowhere/" + strings.Repeat("x", 300)},
		entry{name: "hard", hard: "hello"},
		entry{name: "d/hard2", hard: "hello"},
		entry{name: "tagged", body: "x", xattrs: []index.Xattr{
			{Name: []byte("user.colour"), Value: []byte("green\x00ish")},
			{Name: []byte("user.empty"), Value: nil},
		}},
		entry{name: "sparse", body: content(8192, 2), holes: []index.Extent{{Off: 1 << 20, Len: 4096}, {Off: 5 << 20, Len: 4096}}, size: 8 << 20},
		entry{name: "names/with space"},
		entry{name: "names/newline\nin it"},
		entry{name: "names/\xff\xfe not utf-8"},
		entry{name: "names/" + strings.Repeat("n", 255)},
	)
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestTree(t *testing.T) {
	tree := smallTree()
	dir, fs := show(t, tree, Options{})
	for _, tt := range []struct{ name, script, want string }{
		{"shows sizes, modes, owners, links and nanoseconds",
			`stat -c '%n %F %a %u:%g %s %h %y' hello d link d/hard2`,
			"hello regular file 640 1000:1001 6 3 2009-02-13 23:31:30.123456789 +0000\n" +
				"d directory 750 0:0 0 3 2005-03-18 01:58:31.000000001 +0000\n" +
				"link symbolic link 777 0:0 7 1 2023-11-14 22:13:20.000000000 +0000\n" +
				"d/hard2 regular file 640 1000:1001 6 3 2009-02-13 23:31:30.123456789 +0000\n"},
		{"gives hard links one inode", `stat -c %i hello hard d/hard2 | sort -u | wc -l`, "1\n"},
		{"reads small files", `cat hello d/inner d/deep/er/file empty`, "hello\ninner\ndeep\n"},
		{"reads through links", `cat link`, "inner\n"},
		{"reads links", `readlink link dangling`, "d/inner\n/nowhere/" + strings.Repeat("x", 300) + "\n"},
		{"reads large files", `sha256sum < big`, sum(tree.body("big")) + "  -\n"},
		{"reads the end of large files", `tail -c 1300 big | sha256sum`, sum(tree.body("big")[3<<20+1234-1300:]) + "  -\n"},
		{"reads holes as zeros", `head -c 1M sparse | tr -d '\0' | wc -c; tail -c 3M sparse | tr -d '\0' | wc -c`, "0\n" + zeroFree(tree.body("sparse")[4096:]) + "\n"},
		{"shows that sparse files are sparse", `stat -c '%s %b' sparse`, "8388608 16\n"},
		{"seeks to data and holes", `python3 -c '
import os
f = os.open("sparse", os.O_RDONLY)
print(os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 1 << 20, os.SEEK_HOLE), os.lseek(f, 0, os.SEEK_HOLE), os.lseek(f, 5 << 20, os.SEEK_HOLE))
try: os.lseek(f, 6 << 20, os.SEEK_DATA)
except OSError as e: print(e.errno)
f = os.open("hello", os.O_RDONLY)
print(os.lseek(f, 3, os.SEEK_DATA), os.lseek(f, 3, os.SEEK_HOLE))'`,
			fmt.Sprintln(1<<20, 1<<20+4096, 0, 5<<20+4096) + "6\n3 6\n"},
		{"lists", `ls -a; ls -a d`, ". .. big d dangling empty hard hello link names sparse tagged . .. deep hard2 inner "},
		{"lists types", `find . -path ./names -prune -o -printf '%y %p\n' | sort`, `d .
d ./d
d ./d/deep
d ./d/deep/er
f ./big
f ./d/deep/er/file
f ./d/hard2
f ./d/inner
f ./empty
f ./hard
f ./hello
f ./sparse
f ./tagged
l ./dangling
l ./link
`},
		{"has names of any bytes", `cd names; ls | wc -c; cat "$(printf 'newline\nin it')" 'with space' "$(printf '\xff\xfe not utf-8')" ` + strings.Repeat("n", 255), "294\n"},
		{"has extended attributes", `getfattr --only-values -n user.colour tagged | od -An -c | tr -d ' \n'; getfattr -d tagged | grep -c user; (getfattr -n user.none tagged 2>&1 || true) | tail -1; getfattr -d hello`,
			"green\\0ish2\ntagged: user.none: No such attribute\n"},
		{"says that names are missing", `ls nothing d/nothing hello/x 2>&1 | sed 's/.*: //' || true`, "No such file or directory\nNo such file or directory\nNot a directory\n"},
		{"refuses writes", `for c in "touch x" "rm hello" "mkdir e" "chmod 1 hello"; do ($c 2>&1 || true) | grep -o 'Read-only file system'; done`, strings.Repeat("Read-only file system\n", 4)},
		{"maps files, shared too", `python3 -c '
import mmap, hashlib
f = open("big", "rb")
m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
print(hashlib.sha256(m).hexdigest())'`, sum(tree.body("big")) + "\n"},
		{"reads with O_DIRECT", `dd if=big iflag=direct bs=1M status=none | sha256sum`, sum(tree.body("big")) + "  -\n"},
		{"can be walked up", `cd d/deep/er; ls -di ../../.. ../.. | sed 's/ .*//' | tr '\n' ' '; stat -c %i ../../.. ../.. | tr '\n' ' '`, "5 1 1 5 "},
		{"answers statfs", `stat -f -c '%T %s %l %f' .`, "fuseblk 4096 255 0\n"},
		{"is what findmnt finds", `findmnt -n -t fuse.objectmount -o SOURCE,FSTYPE,OPTIONS . | tr -s ' '`,
			"objectmount fuse.objectmount ro,nosuid,nodev,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := sh(t, dir, tt.script)
			if strings.HasPrefix(tt.script, "ls -a;") {
				got = strings.ReplaceAll(got, "\n", " ")
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
		})
	}
	if got := fs.Stats(); got.Failed != 0 || got.Missed != 0 || got.Pending != 0 || got.Lookups == 0 || got.Bytes == 0 || got.LastError != "" {
		t.Errorf("stats: %+v", got)
	}
	if err := fs.Unmount(false); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("after unmounting: %v", left)
	}
	if err := fs.Unmount(false); err != nil {
		t.Errorf("unmounted again: %v", err)
	}
}

func zeroFree(s string) string { return strconv.Itoa(len(s) - strings.Count(s, "\x00")) }

func (t *memTree) body(name string) string {
	for _, r := range t.rows {
		if r.name == name {
			return r.body
		}
	}
	panic(name)
}

// The kernel keeps all it was told: it asks nothing twice.
func TestKernelKeepsAnswers(t *testing.T) {
	tree := smallTree()
	for i := range tree.rows { // no attributes at all
		tree.rows[i].xattrs, tree.rows[i].attr.Xattrs = nil, false
	}
	dir, fs := show(t, tree, Options{})
	use := `find . > /dev/null; ls -lR > /dev/null; cat hello big link > /dev/null; readlink link > /dev/null
		getfattr -R . > /dev/null 2>&1 || true; test ! -e nothing; test -x d/inner`
	sh(t, dir, use)
	asked := func() Stats {
		st := fs.Stats()
		st.Other = 0 // statfs is never kept
		return st
	}
	before := asked()
	if before.Xattrs == 0 || before.Xattrs > 2 {
		t.Errorf("asked %d times for extended attributes that do not exist", before.Xattrs)
	}
	sh(t, dir, use)
	if d := cmp.Diff(before, asked()); d != "" {
		t.Errorf("the kernel asked again: %s", d)
	}
}

func TestReadAheadIsRaised(t *testing.T) {
	dir, fs := show(t, smallTree(), Options{})
	rows, err := at(dir)
	if err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", rows[0].Major, rows[0].Minor))
	if string(b) != "1024\n" {
		t.Errorf("read_ahead_kb is %s: %v", b, err)
	}
	sh(t, dir, "cat big > /dev/null")
	if n := fs.Stats().Reads; n > 8 {
		t.Errorf("%d reads for 3 MiB", n)
	}
}

func TestRootIsAFile(t *testing.T) {
	tree := newTree()
	body := content(200000, 7)
	tree.rows = []memRow{{attr: index.Attr{Type: index.TypeFile, Mode: 0o644, Size: int64(len(body)), Stored: int64(len(body)), Nlink: 1},
		body: body, pieces: []index.Piece{{Len: int64(len(body))}}}}
	dir := t.TempDir()
	path := filepath.Join(dir, "model.bin")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fs := showAt(t, path, tree, Options{StateDir: t.TempDir()})
	if got := sh(t, dir, "stat -c '%F %s %a' model.bin; sha256sum < model.bin"); got != "regular file 200000 644\n"+sum(body)+"  -\n" {
		t.Error(got)
	}
	var le *LayerError
	if info := fs.Info(); info.Writable || !errors.As(info.WhyReadOnly, &le) || info.Lower != path {
		t.Errorf("%+v", info)
	}
	if err := fs.Unmount(false); err != nil {
		t.Error(err)
	}
	if _, err := Mount(t.Context(), dir, tree, tree, Options{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Error("a file mounted on a directory:", err)
	}
	small := smallTree()
	if _, err := Mount(t.Context(), path, small, small, Options{}); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Error("a directory mounted on a file:", err)
	}
}

func TestOwnerAndTime(t *testing.T) {
	dir, _ := show(t, smallTree(), Options{Owner: &Owner{4711, 4712}})
	if got := sh(t, dir, "stat -c '%u:%g' hello d big; stat -c '%u:%g %a' ."); got != "4711:4712\n4711:4712\n4711:4712\n0:0 755\n" {
		t.Error(got)
	}
}

// manyTree has 50,000 small files in 100 directories (5,000 under the race
// detector).
func manyTree() *memTree {
	var entries []entry
	for d := range manyDirs {
		for f := range 500 {
			entries = append(entries, entry{name: fmt.Sprintf("d%02d/f%03d", d, f), body: fmt.Sprintf("content of %d/%d\n", d, f)})
		}
	}
	return newTree(entries...)
}

func TestManyEntries(t *testing.T) {
	dir, fs := show(t, manyTree(), Options{})
	var names, bodies strings.Builder
	for d := range manyDirs {
		for f := range 500 {
			fmt.Fprintf(&names, "./d%02d/f%03d\n", d, f)
			fmt.Fprintf(&bodies, "content of %d/%d\n", d, f)
		}
	}
	want := fmt.Sprintf("%s  -\n%d\n%s  -\nf000\ncontent of 4/123\n", sum(names.String()), 500*manyDirs, sum(bodies.String()))
	if got := sh(t, dir, `find . -type f | sort | sha256sum; ls -lR | grep -c ^-; cat d*/* | sha256sum; ls d04 | sed 1q; cat d04/f123`); got != want {
		t.Error(got)
	}
	if st := fs.Stats(); st.Lookups > 1000 {
		t.Errorf("%d lookups although listings came with attributes", st.Lookups)
	}
}

// A program in the tree runs.
func TestExec(t *testing.T) {
	elf, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, fs := show(t, newTree(entry{name: "bin/prog", body: string(elf), mode: 0o755}), Options{})
	if out := sh(t, dir, readVar+"=hello bin/prog"); out != "read hello\n" {
		t.Error(out)
	}
	if err := fs.Unmount(false); err != nil {
		t.Error(err)
	}
}
