package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// writeFiles puts files below a new directory and returns it.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSpecFull(t *testing.T) {
	mounts, skipped, err := parseSpec("s.json", []byte(`{"mounts": [
  {"type": "object_mount", "object_id": "obj_1", "object_path": "/home/user/data/",
   "mode": "extract", "read_only": false, "owner": "user:1000", "required": false, "on_conflict": "merge",
   "sha256": "`+strings.Repeat("Ab", 32)+`", "download_url": "https://h/p?sig=s", "publish_index": false,
   "preserve_owner": true, "xattrs": true},
  {"type": "object_mount", "object_id": "obj_2", "object_path": "/b//c/../d",
   "mode": null, "read_only": null, "owner": null, "required": null, "on_conflict": null,
   "sha256": null, "download_url": null, "publish_index": null, "preserve_owner": null, "xattrs": null}
]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{ObjectID: "obj_1", ObjectPath: "/home/user/data/", Mode: "extract", Owner: "user:1000", OnConflict: "merge",
			SHA256: strings.Repeat("ab", 32), DownloadURL: "https://h/p?sig=s", PreserveOwner: true, Xattrs: true, File: "s.json", Line: 2, Column: 3},
		{ObjectID: "obj_2", ObjectPath: "/b//c/../d", Required: true, File: "s.json", Line: 6, Column: 3},
	}
	if diff := cmp.Diff(want, mounts); diff != "" || skipped != nil {
		t.Errorf("(-want +got)\n%s%v", diff, skipped)
	}
	if got := mounts[0].Path() + mounts[1].Path(); got != "/home/user/data/b/d" {
		t.Errorf("paths are %s", got)
	}
}

func TestSpecForms(t *testing.T) {
	const one = `{"object_path": "/a", "object_id": "obj_1", "type": "object_mount"}`
	for name, c := range map[string]struct {
		text    string
		mounts  int
		skipped []string
	}{
		"object":       {`{"mounts": [` + one + `]}`, 1, nil},
		"bare array":   {"\n [" + one + "]\n", 1, nil},
		"empty array":  {`[]`, 0, nil},
		"null mounts":  {`{"name": "x", "mounts": null}`, 0, nil},
		"empty mounts": {`{"mounts": []}`, 0, nil},
		"create request": {`{"name": "d", "environment_variables": {"A": "b", "mounts": [1, {"x": []}]}, "launch_parameters":
  {"launch_commands": ["x"], "keep_alive_time_seconds": 12e3}, "mounts": [` + one + `], "blueprint_id": null}`, 1, nil},
		"other types": {`[{"type": "code_mount", "repo_name": "r", "token": {"a": [1, 2]}},
` + one + `, {"unknown": 1, "type": "file_mount", "target": "/x", "content": ""}]`, 1,
			[]string{`s.json:1:2: mount of type "code_mount" left to others`, `s.json:2:70: mount of type "file_mount" left to others`}},
		"url without id": {`[{"type": "object_mount", "object_path": "/a", "download_url": "http://h/x"}]`, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			mounts, skipped, err := parseSpec("s.json", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.skipped, skipped); diff != "" || len(mounts) != c.mounts {
				t.Errorf("%d mounts, skipped (-want +got)\n%s", len(mounts), diff)
			}
		})
	}
}

// TestSpecRefused has one entry for each thing that can be wrong. Each must
// name the place and say what to do.
func TestSpecRefused(t *testing.T) {
	// with is an object_mount with one more line of keys, which is line 2.
	with := func(keys string) string {
		return "[{\"type\": \"object_mount\", \"object_id\": \"obj_1\", \"object_path\": \"/a\",\n " + keys + "}]"
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty file":               {" \n", `1:1: the file is empty`},
		"not JSON":                 {"mounts:\n", `1:1: invalid character 'm' looking for beginning of value`},
		"cut off":                  {"[\n {", `2:3: unexpected end of JSON input`},
		"trailing comma":           {"[\n 1,\n]", `3:1: invalid character ']' looking for beginning of value`},
		"comment":                  {"[] // none", `1:4: invalid character '/' after top-level value`},
		"trailing garbage":         {"[]\n[]", `2:1: invalid character '[' after top-level value`},
		"byte order mark":          {"\xef\xbb\xbf[]", `1:1: the file begins with a byte order mark`},
		"not UTF-8":                {"[\"é\", \"\xff\"]", `1:8: the text is not UTF-8`},
		"UTF-16":                   {"[\x00]\x00", `1:2: invalid character`},
		"a string":                 {`"mounts"`, `1:1: a spec is`},
		"no mounts":                {` {"mount": []}`, `1:2: the object has no key "mounts"`},
		"mounts is an object":      {`{"mounts": {}}`, `1:12: mounts must be a list, not an object`},
		"mounts twice":             {`{"mounts": [], "mounts": []}`, `1:16: key "mounts" for the second time`},
		"entry is text":            {`["obj_1"]`, `1:2: a mount is an object, not text`},
		"no type":                  {`[{"object_id": "obj_1", "object_path": "/a"}]`, `1:2: type is missing`},
		"type is a number":         {`[{"type": 3}]`, `1:11: type must be text, not a number`},
		"no object_id":             {`[{"type": "object_mount", "object_path": "/a"}]`, `1:2: object_id is missing`},
		"null object_id":           {`[{"type": "object_mount", "object_id": null, "object_path": "/a"}]`, `1:2: object_id is missing`},
		"empty object_id":          {`[{"type": "object_mount", "object_id": "", "object_path": "/a"}]`, `1:40: object_id is missing`},
		"object_id climbs":         {`[{"type": "object_mount", "object_id": "../x", "object_path": "/a"}]`, `1:40: object_id "../x" cannot be an object's id`},
		"object_id is a number":    {`[{"type": "object_mount", "object_id": 1, "object_path": "/a"}]`, `1:40: object_id must be text, not a number`},
		"no object_path":           {`[{"type": "object_mount", "object_id": "obj_1"}]`, `1:2: object_path is missing`},
		"relative path":            {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "a/b"}]`, `1:64: object_path "a/b" is not absolute`},
		"root":                     {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "/a/.."}]`, `1:64: object_path is the root directory`},
		"path with NUL":            {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "/a\u0000"}]`, `1:64: object_path "/a\x00" has control characters`},
		"path with lone surrogate": {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "/a\ud800"}]`, `has control characters or is not Unicode`},
		"long component":           {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "/` + strings.Repeat("x", 256) + `"}]`, `1:64: object_path has a component of 256 bytes`},
		"long path":                {`[{"type": "object_mount", "object_id": "obj_1", "object_path": "` + strings.Repeat("/x", 2048) + `"}]`, `1:64: object_path is 4096 bytes long`},
		"unknown key":              {with(`"object_pth": "/b"`), `2:2: unknown key "object_pth" in an object_mount`},
		"duplicate key":            {with(`"object_id": "obj_2"`), `2:2: key "object_id" for the second time`},
		"text for a boolean":       {with(`"required": "true"`), `2:14: required must be true or false, not text`},
		"object for text":          {with(`"owner": {"uid": 1}`), `2:11: owner must be text, not an object`},
		"empty owner":              {with(`"owner": ""`), `2:11: owner is empty`},
		"three owners":             {with(`"owner": "a:b:c"`), `2:11: owner "a:b:c" is not USER or USER:GROUP`},
		"no group":                 {with(`"owner": "a:"`), `2:11: owner "a:" is not`},
		"owner -1":                 {with(`"owner": "4294967295"`), `2:11: owner "4294967295" is not`},
		"lazy and merge":           {with(`"mode": "lazy", "on_conflict": "merge"`), `2:33: a lazy mount cannot be merged`},
		"unknown mode":             {with(`"mode": "fast"`), `2:10: mode "fast" is unknown`},
		"read_only":                {with(`"read_only": true, "mode": "extract"`), `2:15: read_only needs a lazy mount`},
		"publish_index":            {with(`"publish_index": true, "mode": "extract"`), `2:19: publish_index needs a lazy mount`},
		"on_conflict":              {with(`"on_conflict": "ask"`), `2:17: on_conflict "ask" is unknown`},
		"short sha256":             {with(`"sha256": "abc"`), `2:12: sha256 "abc" is not 64 hexadecimal digits`},
		"ftp":                      {with(`"download_url": "ftp://h/x"`), `2:18: download_url is not an http(s) URL`},
		"local_file":               {with(`"local_file": "/etc/shadow"`), `2:2: unknown key "local_file"`},
		"column counts characters": {`{"é€😀": 1, "mounts": 2}`, `1:22: mounts must be a list, not a number`},
		"too many mounts":          {"[" + strings.Repeat(`{"type":"x"},`, maxMounts) + `{"type":"x"}]`, `more than 10000 mounts`},
		"endless nesting":          {`{"a":` + strings.Repeat("[", 20000), `exceeded max depth`},
	} {
		t.Run(name, func(t *testing.T) {
			mounts, _, err := parseSpec("s.json", []byte(c.text))
			var se *SpecError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, %v; want a SpecError", mounts, err)
			}
			if !strings.HasPrefix(err.Error(), "s.json:") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %s\nwant s.json:%s", err, c.want)
			}
			if mounts != nil {
				t.Errorf("part of a wrong spec was taken: %v", mounts)
			}
		})
	}
}

func TestSpecHints(t *testing.T) {
	for key, want := range map[string]string{
		"object_pth":                     `did you mean "object_path"?`,
		"readonly":                       `did you mean "read_only"?`,
		"Required":                       `did you mean "required"?`,
		"compression":                    "known keys: download_url, mode, ",
		strings.Repeat("required", 1000): "known keys: ",
	} {
		_, _, err := parseSpec("s", fmt.Appendf(nil, `[{"type": "object_mount", %q: 1}]`, key))
		if got := ErrorHint(err); !strings.HasPrefix(got, want) {
			t.Errorf("%.20s: hint %q, want %q", key, got, want)
		}
	}
}

// TestSpecErrorKeepsSecrets: a wrong URL is not quoted.
func TestSpecErrorKeepsSecrets(t *testing.T) {
	for _, url := range []string{"hhtps://h/p?sig=canary", "https://%zz/canary", "canary"} {
		_, _, err := parseSpec("s", fmt.Appendf(nil, `[{"type": "object_mount", "object_id": "o", "object_path": "/a", "download_url": %q}]`, url))
		if err == nil || strings.Contains(err.Error()+ErrorHint(err), "canary") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func entry(id, path string) string {
	return fmt.Sprintf(`{"type": "object_mount", "object_id": %q, "object_path": %q}`, id, path)
}

func TestLoadSpecFiles(t *testing.T) {
	paths := func(s *Spec) (all []string) {
		for i := range s.Mounts {
			all = append(all, s.Mounts[i].Path())
		}
		return all
	}
	dir := writeFiles(t, map[string]string{
		"mounts.json":            "[" + entry("obj_1", "/m") + "]",
		"mounts.d/20.json":       "[" + entry("obj_2", "/d20") + "]",
		"mounts.d/10.json":       "[" + entry("obj_3", "/d10") + "]",
		"mounts.d/.hidden.json":  "not read",
		"mounts.d/README":        "not read",
		"mounts.d/sub.json/x":    "not read",
		"mounts.d/20.json.~save": "not read",
		"other.d/a.json":         "[" + entry("obj_4", "/o") + "]",
	})
	for name, want := range map[string][]string{
		"mounts.json": {"/m", "/d10", "/d20"},
		"mounts.d":    {"/d10", "/d20"},
		"other.json":  {"/o"}, // drop-ins alone will do
	} {
		s, err := LoadSpec(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, paths(s)); diff != "" || len(s.Sources) != len(want) {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestLoadSpecConflict(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"mounts.json":     "[" + entry("obj_1", "/m/x") + "]",
		"mounts.d/a.json": "[\n" + entry("obj_1", "/m/y/../x/") + "]",
	})
	_, err := LoadSpec(filepath.Join(dir, "mounts.json"))
	want := fmt.Sprintf("%s/mounts.d/a.json:2:1: two mounts of /m/x: here and at %s/mounts.json:1:2", dir, dir)
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

func TestLoadSpecRefused(t *testing.T) {
	dir := writeFiles(t, map[string]string{
		"big.json":        "[" + strings.Repeat(" ", maxSpecFile) + "]",
		"dir.json/x.json": "{",
	})
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"empty":     "there is no spec",
		"none.json": "there is no spec",
		"big.json":  "is larger than 4 MiB",
		"fifo.json": "is not a regular file",
		"dir.json":  "x.json:1:2: unexpected end of JSON input",
	} {
		_, err := LoadSpec(filepath.Join(dir, name))
		var se *SpecError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), want) || se.Hint == "" {
			t.Errorf("%s: %v; want %s, and a hint", name, err, want)
		}
		if got := errors.Is(err, fs.ErrNotExist); got != (name == "none.json" || name == "empty") {
			t.Errorf("%s: is fs.ErrNotExist: %v", name, got)
		}
	}
}

// FuzzSpec: whatever the bytes, the parser ends with mounts that passed every
// check, or with an error whose position lies inside the text.
func FuzzSpec(f *testing.F) {
	for _, seed := range []string{
		"", "[]", "{}", `{"mounts":[` + entry("obj_1", "/a") + `]}`, "[" + entry("obj_1", "/a") + "," + entry("obj_2", "/b") + "]",
		`[{"type":"object_mount","object_id":"o","object_path":"/a","owner":"u:g","required":false,"sha256":null}]`,
		`{"a":[[{"mounts":[]}]],"mounts":null}`, "[1e999]", "[\"\\ud800\"]", "\xff", `[{"type":"x","type":"y"}]`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, _, err := parseSpec("s", data)
		if err != nil {
			var se *SpecError
			if !errors.As(err, &se) {
				t.Fatalf("%v is no SpecError", err)
			}
			lines := strings.Split(string(data), "\n")
			if se.Line < 1 || se.Line > len(lines) || se.Column < 1 || se.Column > len(lines[se.Line-1])+1 {
				t.Fatalf("%v is outside the text", err)
			}
			return
		}
		for i := range mounts {
			m := &mounts[i]
			if fe := m.check(); fe != nil {
				t.Fatalf("%+v was taken: %s", m, fe.msg)
			}
			if !filepath.IsAbs(m.Path()) || m.Path() == "/" || m.Line < 1 || m.LocalFile != "" {
				t.Fatalf("%+v was taken", m)
			}
		}
		// What was read means the same when it is written plainly.
		var again []string
		for i := range mounts {
			again = append(again, entry(mounts[i].ObjectID, mounts[i].ObjectPath))
		}
		second, _, err := parseSpec("s", []byte("["+strings.Join(again, ",\n")+"]"))
		if err == nil {
			if diff := cmp.Diff(mounts, second, cmpopts.IgnoreFields(Mount{}, "Mode", "Owner", "Required", "OnConflict", "SHA256", "DownloadURL", "PreserveOwner", "Xattrs", "Line", "Column")); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

// BenchmarkSpec reads the largest spec that is taken, all on one line.
func BenchmarkSpec(b *testing.B) {
	text := []byte("[" + strings.Repeat(entry("obj_1", "/a/b/c")+",", maxMounts-1) + entry("obj_1", "/a") + "]")
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, _, err := parseSpec("s", text); err != nil {
			b.Fatal(err)
		}
	}
}
