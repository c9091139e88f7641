package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// TestExtractMemory: whatever is in an archive, extracting it takes at most
// 64 MiB more than a process that does nothing. Each archive is written as it
// is made, and most of it compresses to nothing.
func TestExtractMemory(t *testing.T) {
	const moreKiB = 64 << 10
	c := &canary{t: t, dir: t.TempDir()}
	idle := c.command("version")
	if out, err := idle.CombinedOutput(); err != nil {
		t.Fatalf("version: %v\n%s", err, out)
	}
	t.Logf("idle: %d KiB", maxRSS(idle))
	memory := c.path("memory") // a million inodes cost seconds on a disk, and a flush
	if err := os.Mkdir(memory, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("tmpfs", memory, "tmpfs", 0, "size=2g,nr_inodes=2000000"); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Unmount(memory, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}()
	}
	for _, x := range []struct {
		name  string // of an archive in memoryArchives
		flags []string
		want  string // in the error; "" if it is to be made
		check func(dir string)
	}{
		{"a million entries", nil, "", func(dir string) {
			if st, err := os.Stat(dir + "/d/199999"); err != nil || !st.IsDir() || st.ModTime().Unix() != archivetest.MTime {
				t.Errorf("%v %v", st, err)
			}
		}},
		{"long names", nil, "", nil},
		{"a sparse file of 20 GiB", []string{"--max-file-size", "21GiB"}, "", func(dir string) {
			var st unix.Stat_t
			if err := unix.Stat(dir+"/sparse", &st); err != nil || st.Size != 20<<30 || st.Blocks*512 > 1<<20 {
				t.Errorf("%d bytes, %d on disk, %v", st.Size, st.Blocks*512, err)
			}
		}},
		{"a sparse file of a million parts", nil, "", nil},
		{"a sparse file of more parts", nil, "(max-fragments)", nil},
		{"an old sparse file of a million", nil, "", nil},
		{"a bomb", []string{"--max-bytes", "500MiB"}, "(max-bytes)", nil},
		{"a bomb", nil, "", nil},
		{"attributes", []string{"--xattrs", "--max-header", "4MiB"}, "", nil},
		{"a header without end", nil, "(max-header)", nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			archive, out := filepath.Join(c.dir, "archive.tar.gz"), filepath.Join(memory, "out")
			// Made by another process: what this one holds would be counted as
			// its children's until they have become something else.
			mk := exec.Command("memory-archive", x.name, archive)
			if out, err := mk.CombinedOutput(); err != nil {
				t.Fatalf("make the archive: %v\n%s", err, out)
			}
			cmd := c.command(append([]string{"mount", "--extract", archive, out}, x.flags...)...)
			text, err := cmd.CombinedOutput()
			if (err == nil) != (x.want == "") || !strings.Contains(string(text), x.want) {
				t.Errorf("%v\n%s", err, text)
			}
			if err == nil && x.check != nil {
				x.check(out)
			}
			t.Logf("%d KiB more than idle: %s", maxRSS(cmd)-maxRSS(idle), text)
			if more := maxRSS(cmd) - maxRSS(idle); more > moreKiB {
				t.Errorf("it held %d KiB more than idle, over %d", more, moreKiB)
			}
			if out, err := c.command("unmount", "--all", "--delete").CombinedOutput(); err != nil {
				t.Errorf("unmount: %v\n%s", err, out)
			}
		})
	}
}

// memoryArchives write archives without their end.
var memoryArchives = map[string]func(w io.Writer){
	"a million entries":                millionEntries,
	"a million files":                  millionFiles,
	"long names":                       longNames,
	"a sparse file of 20 GiB":          sparse20GiB,
	"a sparse file of a million parts": manyFragments(1_000_000),
	"a sparse file of more parts":      manyFragments(1_000_001),
	"an old sparse file of a million":  oldFragments,
	"a bomb":                           bomb,
	"attributes":                       manyAttributes,
	"a header without end":             endlessHeader,
}

// memoryArchive is a program: memory-archive NAME FILE.
func memoryArchive() {
	f, err := os.Create(os.Args[2])
	if err != nil {
		panic(err)
	}
	z, _ := gzip.NewWriterLevel(f, gzip.BestSpeed)
	w := bufio.NewWriterSize(z, 1<<20)
	memoryArchives[os.Args[1]](w)
	w.Write(archivetest.Zeros(2))
	if err := errors.Join(w.Flush(), z.Close(), f.Close()); err != nil {
		panic(err)
	}
}

// entries writes n headers with the names that name gives, quicker than one by
// one from the start.
func entries(w io.Writer, e archivetest.Entry, n int, name func(i int) string) {
	block := e.Bytes()
	for i := range n {
		clear(block[:100])
		copy(block[:100], name(i))
		archivetest.Checksum(block)
		w.Write(block)
	}
}

func millionEntries(w io.Writer) {
	entries(w, archivetest.Entry{Type: '5'}, 200_000, func(i int) string { return fmt.Sprintf("d/%d", i) })
	entries(w, archivetest.Entry{}, 300_000, func(i int) string { return fmt.Sprintf("d/%d/%d", i/3, i) })
	entries(w, archivetest.Entry{Type: '1', Link: "d/7/21"}, 500_000, func(i int) string { return fmt.Sprintf("d/%d/l%d", i/100, i) })
}

// longNames has directories and files of the longest names there can be.
func longNames(w io.Writer) {
	dir := strings.Repeat(strings.Repeat("n", 255)+"/", 15)
	for i := range 10_000 {
		w.Write(archivetest.PAX("path", fmt.Sprintf("%s%0250d/", dir, i)))
		w.Write(archivetest.Dir("d"))
		w.Write(archivetest.PAX("path", fmt.Sprintf("%s%0250d-", dir, i)))
		w.Write(archivetest.File("f", "x"))
	}
}

func sparse20GiB(w io.Writer) {
	w.Write(archivetest.PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize", fmt.Sprint(20<<30)))
	w.Write(archivetest.File("x", string(archivetest.Pad(fmt.Sprintf("3\n0\n1000\n%d\n1000\n%d\n0\n", 10<<30, 20<<30)))+strings.Repeat("x", 2000)))
}

func manyFragments(n int) func(w io.Writer) {
	return func(w io.Writer) {
		var m strings.Builder
		fmt.Fprintf(&m, "%d\n", n)
		for i := range n {
			fmt.Fprintf(&m, "%d\n1\n", 2*i)
		}
		w.Write(archivetest.PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize", fmt.Sprint(2*n)))
		w.Write(archivetest.File("x", string(archivetest.Pad(m.String()))+strings.Repeat("x", n)))
	}
}

// oldFragments is the same in GNU's old format, which does not say how many
// there will be.
func oldFragments(w io.Writer) {
	const n, inBlock = 1_000_000, 21
	b := archivetest.Entry{Name: "sparse", Type: 'S', Size: n, Flavor: archivetest.GNU, Edit: func(b []byte) {
		b[482] = 1
		copy(b[483:495], fmt.Sprintf("%011o\x00", 2*n))
	}}.Bytes()
	w.Write(b)
	for i := 0; i < n; i += inBlock {
		b := make([]byte, archivetest.BlockSize)
		for k := range min(inBlock, n-i) {
			copy(b[24*k:], fmt.Sprintf("%011o\x00%011o\x00", 2*(i+k), 1))
		}
		if i+inBlock < n {
			b[504] = 1
		}
		w.Write(b)
	}
	w.Write(archivetest.Pad(strings.Repeat("x", n)))
}

// bomb is 512 MiB of zeros, a thousand times less in a gzip.
func bomb(w io.Writer) {
	zeros := make([]byte, 1<<20)
	w.Write(archivetest.Entry{Name: "bomb", Size: 512 << 20}.Bytes())
	for range 512 {
		w.Write(zeros)
	}
}

// manyAttributes fills the largest headers.
func manyAttributes(w io.Writer) {
	var body strings.Builder
	for i := range 4<<20/44 - 1 {
		fmt.Fprintf(&body, "44 SCHILY.xattr.user.overlay.%012d=x\n", i)
	}
	header := archivetest.Entry{Name: "x", Type: 'x', Body: body.String()}.Bytes()
	for i := range 20 {
		w.Write(header)
		w.Write(archivetest.File(fmt.Sprint(i), "x"))
	}
}

// endlessHeader is a PAX header of 8 GiB, as far as it comes.
func endlessHeader(w io.Writer) {
	w.Write(archivetest.Entry{Name: "x", Type: 'x', Size: 8 << 30}.Bytes())
	for range 64 {
		w.Write(make([]byte, 1<<20))
	}
}
