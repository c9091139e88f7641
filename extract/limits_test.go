package extract

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"objectmount/internal/archivetest"
)

// TestLimits: each limit refuses one more than it allows, says its name, and
// takes as much as it allows.
func TestLimits(t *testing.T) {
	file := archivetest.File
	ranges := func(n int) []byte { // a sparse file with n ranges of one byte
		var m strings.Builder
		fmt.Fprintf(&m, "%d\n", n)
		for i := range n {
			fmt.Fprintf(&m, "%d\n1\n", 2*i)
		}
		return archivetest.Tar(
			archivetest.PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", fmt.Sprint(2*n)),
			file("s", string(archivetest.Pad(m.String()))+strings.Repeat("x", n)))
	}
	header := func(n int) []byte {
		return archivetest.Tar(archivetest.PAX("comment", strings.Repeat("c", n-len("1000 comment=\n"))), file("a", "x"))
	}
	for _, c := range []struct {
		name     string
		lim      Limits
		ok, over []byte
		sentinel error
	}{
		{"max-entries", Limits{Entries: 3}, archivetest.Many(1, 2, 1), archivetest.Many(1, 3, 1), ErrLimit},
		{"max-entries", Limits{Entries: 3}, // directories again and again make nothing, and count
			archivetest.Tar(archivetest.Dir("d"), archivetest.Dir("d"), archivetest.Dir("./")),
			archivetest.Tar(archivetest.Dir("d"), archivetest.Dir("d"), archivetest.Dir("./"), archivetest.Dir("./")), ErrLimit},
		{"max-bytes", Limits{Bytes: 1000}, archivetest.Many(1, 2, 500), archivetest.Many(1, 3, 500), ErrLimit},
		{"max-bytes", Limits{Bytes: 5}, []byte("plain"), []byte("plain "), ErrLimit},
		{"max-bytes", Limits{Bytes: 5}, archivetest.Gzip([]byte("plain")), archivetest.Gzip([]byte("plain ")), ErrLimit},
		{"max-file-size", Limits{FileBytes: 4}, archivetest.Tar(file("a", "1234")), archivetest.Tar(file("a", "12345")), ErrLimit},
		{"max-file-size", Limits{FileBytes: 4}, []byte("1234"), []byte("12345"), ErrLimit},
		{"max-path", Limits{Path: 7}, archivetest.Tar(file("abc/def", "")), archivetest.Tar(file("abc/defg", "")), ErrLimit},
		{"max-component", Limits{Component: 3}, archivetest.Tar(file("abc/def", "")), archivetest.Tar(file("abc/defg", "")), ErrLimit},
		{"max-depth", Limits{Depth: 3}, archivetest.Tar(file("a/b/c", "")), archivetest.Tar(file("a/b/c/d", "")), ErrLimit},
		{"max-link", Limits{Link: 3}, archivetest.Tar(archivetest.Symlink("l", "abc")), archivetest.Tar(archivetest.Symlink("l", "abcd")), ErrLimit},
		{"max-header", Limits{Header: 1000}, header(1000), header(1001), ErrLimit},
		{"max-header", Limits{Header: 151}, archivetest.Tar(archivetest.LongName(strings.Repeat("n", 150)), file("a", "")),
			archivetest.Tar(archivetest.LongName(strings.Repeat("n", 151)), file("a", "")), ErrLimit},
		{"max-fragments", Limits{Fragments: 100}, ranges(100), ranges(101), ErrLimit},
		{"reserve", Limits{Reserve: 1 << 60}, nil, archivetest.Tar(file("a", "")), ErrNoSpace},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSandbox(t)
			before := s.around(t)
			err := refuses(t, c.over, s.target, Options{Limits: c.lim}, c.sentinel)
			if !strings.Contains(err.Error(), "("+c.name+")") {
				t.Errorf("the error does not name the limit: %v", err)
			}
			if exists(s.target) || s.around(t) != before {
				t.Error("something is left")
			}
			var entry *EntryError
			if bytes.HasPrefix(c.over, []byte("abc/")) && (!errors.As(err, &entry) || entry.Entry == "") {
				t.Errorf("the error does not name the entry: %v", err)
			}
			if c.ok != nil {
				extractBytes(t, c.ok, s.target, Options{Limits: c.lim})
			}
		})
	}
}

// TestErrorsSayWhere: a refusal names the entry, the offset of its first
// header in the uncompressed stream, and the rule.
func TestErrorsSayWhere(t *testing.T) {
	for _, c := range []struct {
		what, entry string
		bad         []byte
	}{
		{"a name", "../up", archivetest.File("../up", "x")},
		{"a type", "fifo", archivetest.Entry{Name: "fifo", Type: '6'}.Bytes()},
		{"a link", "h", archivetest.HardLink("h", "nothing")},
		{"the tree", "first/x", archivetest.File("first/x", "x")},
		{"a PAX record", "x", archivetest.Join(archivetest.PAX("size", "x"), archivetest.File("x", ""))},
		{"a sparse map", "s", archivetest.Join(archivetest.PAX("GNU.sparse.size", "10", "GNU.sparse.map", "8,5"), archivetest.File("s", "12345"))},
		{"a long name", "after", archivetest.Join(archivetest.LongName("../after"), archivetest.File("after", ""))},
	} {
		t.Run(c.what, func(t *testing.T) {
			first := archivetest.File("first", "x")
			data := archivetest.Gzip(archivetest.Tar(first, c.bad, archivetest.File("z", "")))
			_, err := Extract(t.Context(), bytes.NewReader(data), t.TempDir()+"/x", Options{})
			var e *EntryError
			if !errors.As(err, &e) {
				t.Fatalf("error %v", err)
			}
			if !strings.HasSuffix(e.Entry, c.entry) || e.Offset != int64(len(first)) || e.Rule == "" {
				t.Errorf("entry %q at %d (want %q at %d): %s", e.Entry, e.Offset, c.entry, len(first), e.Rule)
			}
			for _, part := range []string{quote(e.Entry), fmt.Sprint(e.Offset), e.Rule} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q is not in %v", part, err)
				}
			}
		})
	}
}
