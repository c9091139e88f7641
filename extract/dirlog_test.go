package extract

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// TestDirLog: what was noted comes again in order, whether it went to the file
// or not, and whatever the lengths are.
func TestDirLog(t *testing.T) {
	for _, n := range []int{0, 1, 3, 2000, 20_000} {
		dir := t.TempDir()
		fd, err := openat(unix.AT_FDCWD, dir, openDirFlags, 0)
		must(t, err)
		defer unix.Close(fd)
		l := dirLog{dir: fd, fd: -1}
		defer l.close()
		wrote := 0
		record := func(i int) dirRecord {
			return dirRecord{
				path: strings.Repeat("p", 1+i*i%4095), mode: uint32(0o700 + i%0o100),
				mtime: unix.Timespec{Sec: int64(i) - 10, Nsec: int64(i)}, chmod: i%3 == 0,
			}
		}
		for i := range n {
			r := record(i)
			must(t, l.add(&r, func(n int) error { wrote += n; return nil }))
		}
		if len(l.shut) > 0 || (n > 1000) != (wrote > 0) || int64(wrote) != l.size {
			t.Fatalf("%d records: %d shut, %d bytes written of %d", n, len(l.shut), wrote, l.size)
		}
		if names, _ := os.ReadDir(dir); len(names) > 0 {
			t.Errorf("its file has a name: %v", names)
		}
		i := 0
		must(t, l.each(t.Context(), func(r *dirRecord) error {
			if want := record(i); *r != want {
				return fmt.Errorf("record %d is %v, want %v", i, *r, want)
			}
			i++
			return nil
		}))
		if i != n {
			t.Errorf("%d of %d records", i, n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.each(ctx, func(*dirRecord) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("each = %v", err)
		}
	}
}

// TestShutDirectories: directories that nobody may enter hold what they should,
// whatever the order of their entries, and the last entry wins.
func TestShutDirectories(t *testing.T) {
	dir := func(name string, mode int64) []byte {
		return archivetest.Entry{Name: name, Type: '5', Mode: mode}.Bytes()
	}
	data := archivetest.Tar(
		dir("a", -1), dir("a/b", 0o100), dir("a/b/c", 0o400), archivetest.File("a/b/c/f", "x"), // outside in
		archivetest.File("d/e/f/g", "x"), dir("d/e/f", 0o200), dir("d/e", -1), dir("d", 0o055), // inside out
		dir("was", -1), dir("was/x", 0o700), dir("was", 0o755),
		dir("is", 0o755), dir("is/x", 0o700), dir("is", -1),
		dir("ro", 0o555), dir("ro", 0o750), dir("rw", 0o755), dir("rw", 0o500),
	)
	path := t.TempDir() + "/x"
	extractBytes(t, data, path, Options{})
	for name, want := range map[string]os.FileMode{
		"d": 0o055, "a": 0, "was": 0o755, "was/x": 0o700, "is": 0, "ro": 0o750, "rw": 0o500,
		"a/b": 0o100, "a/b/c": 0o400, "d/e": 0, "d/e/f": 0o200, "is/x": 0o700,
	} {
		st, err := os.Lstat(path + "/" + name)
		if os.Geteuid() != 0 && errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil || st.Mode().Perm() != want || st.ModTime().Unix() != archivetest.MTime {
			t.Errorf("%s: %v %v, want %v", name, st, err, want)
		}
	}
	if os.Geteuid() == 0 && readFile(t, path+"/a/b/c/f")+readFile(t, path+"/d/e/f/g") != "xx" {
		t.Error("other files")
	}
	writable(path)

	var many [][]byte
	for i := range 2000 {
		many = append(many, archivetest.PAX("path", fmt.Sprintf("%s/%04d", strings.Repeat(strings.Repeat("d", 200)+"/", 11), i)), dir("x", -1))
	}
	err := refuses(t, archivetest.Tar(many...), path+"2", Options{}, ErrLimit)
	if !strings.Contains(err.Error(), "may not enter") {
		t.Error(err)
	}
}
