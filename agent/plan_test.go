package agent

import (
	"fmt"
	"strings"
	"testing"
)

// TestPlan writes spec and receipts as lines, so that a case can be read:
// "path object", and for receipts also "origin spec state".
func TestPlan(t *testing.T) {
	for name, c := range map[string]struct{ spec, have, want string }{
		"nothing":                {"", "", ""},
		"first boot":             {"/b o1\n/a o2", "", "add /b\nadd /a"},
		"second boot":            {"/a o1\n/b o2", "/a o1 spec S\n/b o2 spec S", "keep /a\nkeep /b"},
		"another object":         {"/a o2", "/a o1 spec S", "change /a"},
		"no longer wanted":       {"/b o1", "/a o1 spec S\n/b o1 spec S", "keep /b\nremove /a"},
		"inner before outer":     {"", "/a o1 spec S\n/a/b o1 spec S\n/a/b/c o1 spec S", "remove /a/b/c\nremove /a/b\nremove /a"},
		"manual mounts stay":     {"", "/a o1 manual", ""},
		"manual and wanted":      {"/a o1\n/b o2", "/a o1 manual\n/b o1 manual", "keep /a\nchange /b"},
		"another spec's":         {"", "/a o1 spec T", ""},
		"died while staging":     {"/a o1", "/a o1 spec S staging", "add /a"},
		"half made, not wanted":  {"", "/a o1 spec S staging", "remove /a"},
		"path is cleaned":        {"/x/../a/ o1", "/a o1 spec S", "change /a"}, // a slash at the end asks for another place
		"order of entries":       {"/c o1\n/a o1\n/b o1", "/b o1 spec S\n/z o1 spec S", "add /c\nadd /a\nkeep /b\nremove /z"},
		"moved to another path":  {"/b o1", "/a o1 spec S", "add /b\nremove /a"},
		"a prefix is no parent":  {"/ab o1", "/a o1 spec S", "add /ab\nremove /a"},
		"same object, two paths": {"/a o1\n/b o1", "/a o1 spec S", "keep /a\nadd /b"},
	} {
		t.Run(name, func(t *testing.T) {
			var mounts []Mount
			for _, line := range lines(c.spec) {
				f := strings.Fields(line)
				mounts = append(mounts, Mount{ObjectPath: f[0], ObjectID: f[1]})
			}
			var have []*receipt
			for _, line := range lines(c.have) {
				f := append(strings.Fields(line), "", "")
				m := Mount{ObjectPath: f[0], ObjectID: f[1]}
				rc := &receipt{Path: f[0], Origin: Origin(f[2]), Spec: f[3]}
				if f[4] == "staging" {
					rc.Staging = &staging{wanted: m.wanted(nil, "")}
				} else {
					rc.Published = &published{wanted: m.wanted(nil, "")}
				}
				have = append(have, rc)
			}
			var got []string
			for _, s := range plan(mounts, have, "S", "") {
				got = append(got, fmt.Sprintf("%s %s", s.action, s.path))
				if (s.mount == nil) != (s.action == actionRemove) {
					t.Errorf("%s %s has mount %v", s.action, s.path, s.mount)
				}
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

func lines(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == '\n' }) }

// TestDigest: what concerns the files makes another mount, and nothing else.
func TestDigest(t *testing.T) {
	base := Mount{ObjectID: "o1", ObjectPath: "/a"}
	for name, c := range map[string]struct {
		change func(*Mount)
		same   bool
	}{
		"required":        {func(m *Mount) { m.Required = true }, true},
		"place in a file": {func(m *Mount) { m.File, m.Line = "f", 3 }, true},
		"conflict":        {func(m *Mount) { m.OnConflict = "merge" }, true},
		"mode":            {func(m *Mount) { m.Mode = "extract" }, true},
		"url of an id":    {func(m *Mount) { m.DownloadURL = "https://h/x?sig=1" }, true},
		"path":            {func(m *Mount) { m.ObjectPath = "/b/../a" }, true},
		"into":            {func(m *Mount) { m.ObjectPath = "/a/" }, false},
		"object":          {func(m *Mount) { m.ObjectID = "o2" }, false},
		"owner":           {func(m *Mount) { m.Owner = "1" }, false},
		"preserve owner":  {func(m *Mount) { m.PreserveOwner = true }, false},
		"xattrs":          {func(m *Mount) { m.Xattrs = true }, false},
		"sha256":          {func(m *Mount) { m.SHA256 = "ab" }, false},
	} {
		m := base
		c.change(&m)
		if got := m.wanted(nil, "").Digest == base.wanted(nil, "").Digest; got != c.same {
			t.Errorf("%s: the same mount: %v", name, got)
		}
	}
	// An id is an object only together with its server; without a key nobody
	// knows which server it is, and nothing can be fetched anyway.
	for _, c := range []struct {
		a, b string
		same bool
	}{{"https://a", "https://a", true}, {"https://a", "https://b", false}, {"https://a", "", true}, {"", "https://b", true}} {
		if got := (&published{wanted: base.wanted(nil, c.a)}).same(base.wanted(nil, c.b)); got != c.same {
			t.Errorf("of %q and %q: the same mount: %v", c.a, c.b, got)
		}
	}
	one, two := Mount{DownloadURL: "https://h/x?sig=1"}, Mount{DownloadURL: "https://h/x?sig=2"}
	if a, b := one.wanted(nil, ""), two.wanted(nil, ""); a.Digest == b.Digest || a.Options != b.Options || a.Source != "https://h/x" {
		t.Errorf("two signatures of one URL: %+v %+v", a, b)
	}
}
