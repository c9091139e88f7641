package extract

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// xattrsOf lists what is not the kernel's own business of a file.
func xattrsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	must(t, err)
	got := map[string]string{}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" || name == "security.selinux" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		got[name] = string(value[:n])
	}
	return got
}

// hasXattrs skips a test where files cannot have user attributes.
func hasXattrs(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Setxattr(dir, "user.probe", []byte("x"), 0); err != nil {
		lacking(t, "no user attributes in %s: %v", dir, err)
	}
	must(t, unix.Removexattr(dir, "user.probe"))
}

func attrs(pairs ...string) []byte {
	for i := 0; i < len(pairs); i += 2 {
		pairs[i] = "SCHILY.xattr." + pairs[i]
	}
	return archivetest.PAX(pairs...)
}

// TestXattrs: those of the user are set when asked for, all others never, and
// what is not set is counted.
func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	hasXattrs(t, dir)
	evil := func() []byte {
		return attrs("user.a", "1", "user.b", "x\x00=\n", "user.a", "2", "user.overlay.opaque", "y", "user.", "?", "user", "?",
			"security.capability", "\x01\x00\x00\x02", "security.evil", "x", "trusted.overlay.opaque", "y", "system.posix_acl_access", "x", "", "?")
	}
	data := archivetest.Tar(
		attrs("user.root", "x"), archivetest.Dir("./"),
		evil(), archivetest.File("small", "x"),
		evil(), archivetest.Entry{Name: "readonly", Mode: 0o444, Body: "x"}.Bytes(),
		evil(), archivetest.File("large", strings.Repeat("x", maxJob+1)),
		attrs("user.old", "x"), archivetest.Dir("d/"), archivetest.File("d/x", ""),
		evil(), archivetest.Entry{Name: "d/", Type: '5', Mode: 0o555}.Bytes(),
		attrs("user.link", "x"), archivetest.Symlink("l", "small"),
		attrs("user.hard", "x"), archivetest.HardLink("h", "small"),
		archivetest.File("none", "x"),
	)
	res := extractBytes(t, data, dir+"/asked", Options{Xattrs: true})
	want := map[string]string{"user.a": "2", "user.b": "x\x00=\n"}
	for _, name := range []string{"small", "readonly", "large", "d", "h"} {
		if diff := cmp.Diff(want, xattrsOf(t, dir+"/asked/"+name)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for _, name := range []string{"", "none", "d/x", "l"} {
		if got := xattrsOf(t, dir+"/asked/"+name); len(got) > 0 {
			t.Errorf("%q has %v", name, got)
		}
	}
	if st, err := os.Stat(dir + "/asked/readonly"); err != nil || st.Mode().Perm() != 0o444 || st.ModTime().Unix() != archivetest.MTime {
		t.Errorf("%v %v", st, err)
	}
	each := int64(8) // of an evil list, 3 are set (one name twice)
	if want := 4*each + 3; res.Skipped.Xattrs != want {
		t.Errorf("%d skipped, want %d", res.Skipped.Xattrs, want)
	}
	if edited, err := Edited(res.Path, res.Fingerprint); edited || err != nil {
		t.Errorf("Edited = %v, %v", edited, err)
	}

	res = extractBytes(t, data, dir+"/plain", Options{})
	for _, name := range []string{"", "small", "readonly", "large", "d", "l"} {
		if got := xattrsOf(t, dir+"/plain/"+name); len(got) > 0 {
			t.Errorf("not asked for: %q has %v", name, got)
		}
	}
	defer writable(dir)
	if want := 4*(each+3) + 4; res.Skipped.Xattrs != want {
		t.Errorf("%d skipped, want %d", res.Skipped.Xattrs, want)
	}
}

// TestXattrBounds: what Linux cannot hold is refused, and so is what this file
// system cannot.
func TestXattrBounds(t *testing.T) {
	dir := t.TempDir()
	hasXattrs(t, dir)
	var names []string
	for i := range 300 {
		names = append(names, "user."+strings.Repeat("n", 245)+string(rune('a'+i/26))+string(rune('a'+i%26)), "")
	}
	for what, list := range map[string][]string{
		"name":   {"user." + strings.Repeat("n", 251), "x"},
		"value":  {"user.a", strings.Repeat("v", 64<<10+1)},
		"names":  names,
		"system": {"user.a", strings.Repeat("v", 64<<10), "user.b", strings.Repeat("v", 64<<10), "user.c", strings.Repeat("v", 64<<10)},
	} {
		for _, entry := range [][]byte{archivetest.File("a", "x"), archivetest.Dir("a")} {
			data := archivetest.Tar(attrs(append([]string(nil), list...)...), entry)
			_, err := Extract(t.Context(), bytes.NewReader(data), dir+"/"+what, Options{Xattrs: true})
			var e *EntryError
			if what == "system" && err == nil { // a file system without such bounds
				must(t, os.RemoveAll(dir+"/"+what))
				continue
			}
			if !errors.Is(err, ErrLimit) || !errors.As(err, &e) || e.Entry != "a" || exists(dir+"/"+what) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// TestSkipped: what was left out is counted.
func TestSkipped(t *testing.T) {
	data := archivetest.Tar(
		archivetest.Entry{Name: "u", Mode: 0o4755, Body: "x"}.Bytes(), archivetest.Entry{Name: "g/", Type: '5', Mode: 0o2755}.Bytes(),
		archivetest.Entry{Name: "both", Mode: 0o6755}.Bytes(), archivetest.File("none", ""))
	res := extractBytes(t, data, t.TempDir()+"/x", Options{})
	if res.Skipped.SetIDs != 3 || res.BytesIn != int64(len(data)) || res.Took <= 0 {
		t.Errorf("%+v", res)
	}
}
