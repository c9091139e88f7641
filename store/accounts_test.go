package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"objectmount/objects"
)

func TestLoadKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	load := func(content string) ([]Account, error) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return LoadKeys(path)
	}
	got, err := load("# people\n\n anna : ak_anna:key \r\nbert:ak_bert_key\nanna:ak_anna_second")
	want := []Account{{"anna", "ak_anna:key"}, {"bert", "ak_bert_key"}, {"anna", "ak_anna_second"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for content, line := range map[string]string{
		"":                                     "no account:key line",
		"# only\n":                             "no account:key line",
		"ak_canary_bare\n":                     ":1: ",
		"anna:ak_anna_key\n:ak_canary\n":       ":2: ",
		"a b:ak_canary_key\n":                  ":1: ",
		"anna:canary\n":                        ":1: ",
		"anna:ak_canary key\n":                 ":1: ",
		"anna:ak_canary\x00key\n":              ":1: ",
		"anna:ak_canaryü\n":                    ":1: ",
		"anna:" + strings.Repeat("canary", 99): ":1: ",
		"anna:ak_canary_key\n\nbert:ak_canary_key\n":  ":3: ",
		strings.Repeat("# canary\n", maxKeysFile/9+1): "larger than",
	} {
		_, err := load(content)
		if err == nil || !strings.Contains(err.Error(), line) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%.40q: %v", content, err)
		}
	}
	if _, err := LoadKeys(path + ".nosuch"); err == nil {
		t.Error("a file that is not there")
	}
}

func TestLocalKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	key, made, err := LocalKey(dir)
	if err != nil || !made || !strings.HasPrefix(key.Reveal(), "ak_") || len(key.Reveal()) < 20 {
		t.Fatalf("%d characters, made %v, %v", len(key.Reveal()), made, err)
	}
	again, made, err := LocalKey(dir)
	if err != nil || made || again != key {
		t.Errorf("the second time: made %v, same %v, %v", made, again == key, err)
	}
	path := filepath.Join(dir, LocalKeyFile)
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("other files: %v", names)
	}
	for what, spoil := range map[string]func() error{
		"readable by others": func() error { return os.Chmod(path, 0o644) },
		"empty":              func() error { return os.WriteFile(path, nil, 0o600) },
		"a link":             func() error { return os.Symlink("/etc/hostname", path) },
	} {
		os.Remove(path)
		if what != "a link" {
			if _, _, err := LocalKey(dir); err != nil {
				t.Fatal(err)
			}
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := LocalKey(dir); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("a key file that is %s: %v", what, err)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a dir? with%20odd#name")
	good := Options{DataDir: dir, Keys: testKeys}
	s, err := Open(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "objects.db": 0o600, "objects.db-wal": 0o600, urlSecretFile: 0o600, "lock": 0o600, "content": 0o700, "incoming": 0o700} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Mode().Perm() != want {
			t.Errorf("%q: %v %v, want mode %v", name, fi, err, want)
		}
	}
	if _, err := Open(t.Context(), good); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server on one directory: %v", err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for name, bad := range map[string]Options{
		"no directory":       {Keys: testKeys},
		"no keys":            {DataDir: dir},
		"a bad key":          {DataDir: dir, Keys: []Account{{"a", "short"}}},
		"a relative URL":     {DataDir: dir, Keys: testKeys, PublicURL: "example.com"},
		"a URL with a query": {DataDir: dir, Keys: testKeys, PublicURL: "https://example.com/?a=b"},
		"a negative limit":   {DataDir: dir, Keys: testKeys, MaxObjectSize: -1},
	} {
		if s, err := Open(t.Context(), bad); err == nil {
			s.Close()
			t.Errorf("it takes %s", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, urlSecretFile), []byte("xyz"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), good); err == nil || !strings.Contains(err.Error(), urlSecretFile) {
		t.Errorf("a spoilt secret: %v", err)
	}
	os.Remove(filepath.Join(dir, urlSecretFile))
	s, err = Open(t.Context(), good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.write.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), good); err == nil || !strings.Contains(err.Error(), "newer program") {
		t.Errorf("a directory of a later version: %v", err)
	}
}

func TestIDs(t *testing.T) {
	var m idMaker
	at := time.UnixMilli(1_800_000_000_000)
	var all []string
	for i := range seqLimit + 10 { // more than fit into a millisecond
		if i%1000 == 0 {
			at = at.Add(-time.Millisecond) // and the clock goes back
		}
		all = append(all, m.next(at))
	}
	for _, id := range []string{all[0], all[len(all)-1]} {
		if !validID(id) || len(id) != 25 {
			t.Errorf("id %s", id)
		}
	}
	if !sort.StringsAreSorted(all) {
		t.Error("ids do not grow")
	}
	if m.next(at.Add(time.Hour)) <= all[len(all)-1] {
		t.Error("a later id is smaller")
	}
	for _, bad := range []string{"", "obj_", "obj_00000000000000000000", "obj_0000000000000000000000", "obj_00000000000000000000-", "dbx_000000000000000000000"} {
		if validID(bad) {
			t.Errorf("%q is taken for an id", bad)
		}
	}
	if v := int64(1_763_829_123_456); parse62(format62(v, timeDigits)) != v {
		t.Error("base 62 does not come back")
	}
}

// Ids go on growing over a restart with a clock that went back.
func TestIDsAfterRestart(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: time.Now().Add(time.Hour)}
	var first string
	t.Run("ahead", func(t *testing.T) { first = start(t, Options{DataDir: dir, Now: c.Now}).create("a", "").ID })
	t.Run("back", func(t *testing.T) {
		s := start(t, Options{DataDir: dir})
		if second := s.create("b", "").ID; second <= first {
			t.Errorf("%s is not after %s", second, first)
		}
		if got := names(s.list("/v1/objects", nil)); fmt.Sprint(got) != "[b a]" {
			t.Errorf("list: %v", got)
		}
	})
}

func TestStatsAreJSON(t *testing.T) {
	s := start(t, Options{})
	s.object("a", []byte("four"), "")
	s.call("GET", "/v1/objects/x", "")
	eventually(t, "the last request is counted", func() bool { return s.store.Stats().Requests == 4 })
	got := s.store.Stats()
	got.BytesOut = 0
	want := Stats{Requests: 4, ClientErrors: 1, Created: 1, Completed: 1, Uploads: 1, BytesIn: 4}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(fmt.Sprintf("%+v %#v", testKeys, testKeys), "ak_") {
		t.Error("accounts print their keys")
	}
	var _ objects.Secret = testKeys[0].Key
}
