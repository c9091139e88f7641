package store

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

func TestRanges(t *testing.T) {
	s := start(t, Options{})
	content := noise(100_000, 3)
	v := s.object("päth/to/ü \"x\".bin", content, "")
	url := s.downloadURL(v.ID, "")
	whole := s.get("GET", url)
	etag := whole.header.Get("Etag")
	if !strings.HasPrefix(etag, `"`) || len(etag) < 10 {
		t.Errorf("ETag %s is not strong", etag)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", "Content-Length": "100000",
		"Content-Encoding": "", "X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment; filename*=utf-8''%C3%BC%20%22x%22.bin",
	} {
		if got := whole.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, test := range map[string]struct {
		method  string
		headers []string
		status  int
		body    []byte
	}{
		"a range":                     {"GET", []string{"Range: bytes=10-19"}, 206, content[10:20]},
		"the rest":                    {"GET", []string{"Range: bytes=99990-"}, 206, content[99990:]},
		"the whole as a range":        {"GET", []string{"Range: bytes=0-"}, 206, content},
		"the last bytes":              {"GET", []string{"Range: bytes=-5"}, 206, content[99995:]},
		"a range over the end":        {"GET", []string{"Range: bytes=99990-200000"}, 206, content[99990:]},
		"a range of the same object":  {"GET", []string{"Range: bytes=1-1", "If-Range: " + etag}, 206, content[1:2]},
		"a range of another object":   {"GET", []string{"Range: bytes=1-1", `If-Range: "x"`}, 200, content},
		"only this object":            {"GET", []string{"If-Match: " + etag}, 200, content},
		"only another object":         {"GET", []string{`If-Match: "x"`}, 412, nil},
		"only if it changed":          {"GET", []string{"If-None-Match: " + etag}, 304, nil},
		"what encodings there may be": {"GET", []string{"Accept-Encoding: gzip, br, deflate"}, 200, content},
		"the header of a range":       {"HEAD", []string{"Range: bytes=10-19"}, 206, nil},
		"units that nobody knows":     {"GET", []string{"Range: lines=1-2"}, 416, nil},
		"a range after the end":       {"GET", []string{"Range: bytes=100000-"}, 416, nil},
	} {
		a := s.get(test.method, url, test.headers...)
		if a.status != test.status {
			t.Errorf("%s: %d %.100s", name, a.status, a.body)
			continue
		}
		if test.status == 416 {
			s.want(name, a, 416, "range_not_satisfiable")
			if name == "a range after the end" && a.header.Get("Content-Range") != "bytes */100000" {
				t.Errorf("%s: Content-Range %q", name, a.header.Get("Content-Range"))
			}
		} else if !bytes.Equal(a.body, test.body) {
			t.Errorf("%s: %d bytes", name, len(a.body))
		}
		if a.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: Content-Encoding %s", name, a.header.Get("Content-Encoding"))
		}
		if test.status < 400 && a.header.Get("Etag") != etag {
			t.Errorf("%s: ETag %s, want %s", name, a.header.Get("Etag"), etag)
		}
	}
	empty := s.downloadURL(s.object("empty", nil, "").ID, "")
	if a := s.get("GET", empty, "Range: bytes=0-"); a.status != 200 || len(a.body) != 0 {
		t.Errorf("range of an empty object: %d", a.status)
	}
	if a := s.get("GET", s.downloadURL(s.object("other", content, "").ID, "")); a.header.Get("Etag") == etag {
		t.Error("two uploads have one ETag")
	}
}

// A download that has begun goes on though the object is deleted.
func TestDeleteDuringDownload(t *testing.T) {
	s := start(t, Options{})
	content := noise(8<<20, 5)
	v := s.object("a", content, "")
	resp, err := s.plain.Get(s.downloadURL(v.ID, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.ask("POST", "/v1/objects/"+v.ID+"/delete", "")
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if len(s.files()) != 0 {
		t.Error("the content stays")
	}
}

func TestDamagedContent(t *testing.T) {
	s := start(t, Options{})
	v := s.object("a", []byte("content"), "")
	url := s.downloadURL(v.ID, "")
	file := s.files()[0]
	if err := os.Truncate(file, 3); err != nil {
		t.Fatal(err)
	}
	s.want("a file cut short", s.get("GET", url), 500, "internal")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.want("a file gone", s.get("GET", url), 500, "internal")
}
