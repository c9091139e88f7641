package objects

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestContentRange(t *testing.T) {
	for _, c := range []struct {
		in               string
		first, end, size int64
		ok               bool
	}{
		{"bytes 0-0/1", 0, 1, 1, true},
		{"bytes 10-19/4000000000000", 10, 20, 4000000000000, true},
		{"bytes 0-9/10", 0, 10, 10, true},
		{"bytes 0-10/10", 0, 0, 0, false},
		{"bytes 5-4/10", 0, 0, 0, false},
		{"bytes 0-9/*", 0, 0, 0, false},
		{"bytes */10", 0, 0, 0, false},
		{"bytes=0-9/10", 0, 0, 0, false},
		{"Bytes 0-9/10", 0, 0, 0, false},
		{"items 0-9/10", 0, 0, 0, false},
		{"bytes +0-9/10", 0, 0, 0, false},
		{"bytes 0-9/10 ", 0, 0, 0, false},
		{"bytes 0--9/10", 0, 0, 0, false},
		{"bytes 0-9/99999999999999999999", 0, 0, 0, false},
		{"bytes 0-9/9223372036854775807", 0, 0, 0, false},
		{"", 0, 0, 0, false},
	} {
		first, end, size, err := parseContentRange(c.in)
		if (err == nil) != c.ok || first != c.first || end != c.end || size != c.size {
			t.Errorf("%q: [%d,%d) of %d, %v", c.in, first, end, size, err)
		}
	}
}

// FuzzContentRange: what is accepted is exactly what it says, within bounds.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 1-2/*", "bytes */5", "bytes 007-08/9", "bytes 0-9/4611686018427387904"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, end, size, err := parseContentRange(s)
		if err != nil {
			if first != 0 || end != 0 || size != 0 {
				t.Error("numbers beside an error")
			}
			return
		}
		if first < 0 || end <= first || size < end {
			t.Errorf("[%d,%d) of %d", first, end, size)
		}
		again := fmt.Sprintf("bytes %d-%d/%d", first, end-1, size)
		if f2, e2, s2, err := parseContentRange(again); err != nil || f2 != first || e2 != end || s2 != size {
			t.Errorf("%q is not %q", again, s)
		}
	})
}

// FuzzJudge: whatever an answer's head says, a grant lies within what was
// asked for and within the pinned object, and bears the pinned identity.
func FuzzJudge(f *testing.F) {
	f.Add(206, "bytes 100-199/1000", `"v"`, "", "", int64(100))
	f.Add(206, "bytes 100-149/1000", `"v"`, "", "identity", int64(-1))
	f.Add(200, "", `"v"`, "", "", int64(1000))
	f.Add(200, "", ``, "Sun, 01 Nov 2026 12:00:00 GMT", "gzip", int64(1000))
	f.Fuzz(func(t *testing.T, status int, contentRange, etag, modified, encoding string, length int64) {
		if length < -1 {
			length = -1 // net/http gives no others
		}
		h := http.Header{"Content-Range": {contentRange}, "Etag": {etag}, "Last-Modified": {modified}, "Content-Encoding": {encoding}}
		pinned := Identity{ETag: `"v"`, LastModified: "Sun, 01 Nov 2026 12:00:00 GMT", Size: 1000}
		a := ask{off: 100, end: 200, pinned: &pinned}
		if status != 200 {
			status = 206
		}
		g, err := a.judge(status, h, length)
		if err != nil {
			return
		}
		if g.n <= 0 || g.n > 100 || g.skip < 0 || g.skip > maxDiscard || g.id.Size != 1000 {
			t.Errorf("%+v", g)
		}
		if g.id.ETag != "" && g.id.ETag != pinned.ETag {
			t.Errorf("another ETag was let in: %+v", g)
		}
	})
}

// TestPinning has the cases in which the validators decide.
func TestPinning(t *testing.T) {
	const day, later = "Sun, 01 Nov 2026 12:00:00 GMT", "Mon, 02 Nov 2026 12:00:00 GMT"
	both := Identity{ETag: `"v"`, LastModified: day, Size: 10}
	for _, c := range []struct {
		name   string
		pinned Identity
		got    Identity
		whole  bool
		want   string // "", "changed", "garbled" or "patient"
	}{
		{"the same", both, both, false, ""},
		{"another ETag", both, Identity{`"w"`, day, 10}, false, "changed"},
		{"another size, same ETag", both, Identity{`"v"`, day, 11}, false, "changed"},
		{"ETag missing, date the same", both, Identity{"", day, 10}, false, ""},
		{"ETag missing, date another", both, Identity{"", later, 10}, false, "changed"},
		{"both missing", both, Identity{"", "", 10}, false, "garbled"},
		{"ETag the same, date another", both, Identity{`"v"`, later, 10}, false, ""},
		{"only a date, the same", Identity{"", day, 10}, Identity{"", day, 10}, false, ""},
		{"only a date, another", Identity{"", day, 10}, Identity{"", later, 10}, false, "changed"},
		{"only a date, ETag appears", Identity{"", day, 10}, Identity{`"v"`, day, 10}, false, ""},
		{"a login page", both, Identity{"", "", 77}, true, "patient"},
		{"a whole other object", both, Identity{`"w"`, day, 77}, true, "changed"},
		{"nothing pinned but the size", Identity{"", "", 10}, Identity{"", "", 10}, false, ""},
		{"nothing pinned but the size, another", Identity{"", "", 10}, Identity{"", "", 11}, false, "changed"},
	} {
		err := ask{off: 0, end: 10, pinned: &c.pinned}.identify(c.got, c.whole)
		got := ""
		if g := (*protocolError)(nil); errors.As(err, &g) {
			got = "garbled"
			if g.patient {
				got = "patient"
			}
		} else if errors.Is(err, ErrChanged) {
			got = "changed"
		} else if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for etag, want := range map[string]string{`"v"`: `"v"`, `W/"v"`: "", `v`: "", `""`: "", `"a"b"`: "", `"`: ""} {
		if got := identityOf(http.Header{"Etag": {etag}}, 1).ETag; got != want {
			t.Errorf("ETag %s: %q", etag, got)
		}
	}
}

func TestErrorBody(t *testing.T) {
	for _, c := range []struct{ kind, body, want string }{
		{"application/json", `{"code":"not_found","message":"Object not found"}`, "not_found: Object not found"},
		{"application/json", `{"message":"bad name"}`, "bad name"},
		{"application/json", `{"error":{"type":"bad_kind","message":"nested"}}`, "bad_kind: nested"},
		{"application/json", `{"error":"just text"}`, "just text"},
		{"application/json", `{"errors":[{"message":"first"},{"message":"second"}]}`, "first"},
		{"application/json", `{"detail":{"error":{"error":{"error":{"error":{"message":"deep"}}}}}}`, ""},
		{"application/json", `{"message":"cut of`, `{"message":"cut of`},
		{"application/xml", `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Slow</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>`, "SlowDown: Slow"},
		{"application/xml", `<Error><Code>AccessDenied</Code><Message>No</Message><StringToSign>GET /x`, "AccessDenied: No"},
		{"application/xml", `<Error><StringToSign>GET /x</StringToSign></Error>`, ""},
		{"text/html", "<!DOCTYPE html><html><head><title>502\n Bad   Gateway</title></head>", "502 Bad Gateway"},
		{"text/html", "<html><body>no title</body></html>", "an HTML page"},
		{"text/plain", "one line\nand another\x07", "one line"},
		{"", "\x00\xff\x1b[31mred", "� [31mred"},
		{"", "", ""},
	} {
		resp := answerOf(400, strings.NewReader(c.body), "Content-Type", c.kind)
		if got := refusal("", resp).said(); got != c.want {
			t.Errorf("%s: got %q, want %q", c.body, got, c.want)
		}
	}
}

// FuzzErrorBody: whatever a server says, what is shown is short, printable
// and free of what was sent.
func FuzzErrorBody(f *testing.F) {
	f.Add("application/json", []byte(`{"error":{"message":"SECRETKEY"}}`))
	f.Add("application/xml", []byte(`<Error><Code>C</Code><Message>sig=SECRETKEY</Message></Error>`))
	f.Add("text/html", []byte(`<html><title>https://h/p?x=SECRETKEY</title>`))
	f.Add("text/plain", []byte(strings.Repeat("é", 600)))
	f.Fuzz(func(t *testing.T, kind string, b []byte) {
		e := refusal("", answerOf(400, strings.NewReader(string(b)), "Content-Type", kind), "SECRETKEY")
		for _, s := range []string{e.Code, e.Message} {
			if len(s) > errorBodyShown || !utf8.ValidString(s) || strings.Contains(s, "SECRETKEY") || strings.ContainsAny(s, "\n\x1b\x00") {
				t.Errorf("%q", s)
			}
		}
	})
}
