package store

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"objectmount/objects"
)

func TestSignedURLs(t *testing.T) {
	c := &clock{now: time.Now()}
	s := start(t, Options{Now: c.Now})
	v := s.object("a", []byte("content"), "")
	other := s.object("b", []byte("other"), "")
	good := s.downloadURL(v.ID, "?duration_seconds=60")
	u, err := url.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	expires, signature := u.Query().Get("Expires"), u.Query().Get("Signature")
	base := s.url + contentPath + v.ID

	if a := s.get("GET", good); string(a.body) != "content" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := s.get("HEAD", good); a.status != 200 || a.header.Get("Content-Length") != "7" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	if a := s.get("GET", good, "Authorization: Bearer nonsense"); a.status != 200 {
		t.Errorf("a signed URL needs no key, nor a good one: %d", a.status)
	}
	// Order and percent-encoding say the same in other words.
	if a := s.get("GET", base+"?Signature="+signature+"&Expires=%3"+expires[:1]+expires[1:]); a.status != 200 {
		t.Errorf("the same query spelled otherwise: %d %s", a.status, a.body)
	}

	flip := func(i int) string {
		b := []byte(signature)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		return string(b)
	}
	for name, bad := range map[string]string{
		"no query":                 base,
		"no signature":             base + "?Expires=" + expires,
		"an empty signature":       base + "?Expires=" + expires + "&Signature=",
		"no expiry":                base + "?Signature=" + signature,
		"a later expiry":           base + "?Expires=9" + expires + "&Signature=" + signature,
		"an expiry with a sign":    base + "?Expires=%2B" + expires + "&Signature=" + signature,
		"an expiry with a zero":    base + "?Expires=0" + expires + "&Signature=" + signature,
		"an expiry twice":          base + "?Expires=" + expires + "&Expires=9999999999&Signature=" + signature,
		"a further parameter":      good + "&x=1",
		"an altered first letter":  base + "?Expires=" + expires + "&Signature=" + flip(0),
		"an altered last letter":   base + "?Expires=" + expires + "&Signature=" + signature[:42] + "A",
		"a cut signature":          base + "?Expires=" + expires + "&Signature=" + signature[:42],
		"a padded signature":       base + "?Expires=" + expires + "&Signature=" + signature + "%3D",
		"a signature with a break": base + "?Expires=" + expires + "&Signature=" + signature[:20] + "%0A" + signature[20:],
		"another object":           s.url + contentPath + other.ID + "?" + u.RawQuery,
		"no object":                s.url + contentPath + "x?" + u.RawQuery,
		"a long query":             good + strings.Repeat("&", 600),
	} {
		a := s.get("GET", bad)
		if name == "an altered last letter" && signature[42:] == "A" {
			continue // that is no alteration
		}
		s.want(name, a, 403, "signature_invalid")
	}
	s.want("a download URL for an upload", s.put(good, nil), 403, "signature_invalid")
	up := s.create("c", "")
	s.want("an upload URL for a download", s.get("GET", up.UploadURL), 403, "signature_invalid")
	if a := s.get("POST", good); a.status != 405 || a.header.Get("Allow") != "GET, HEAD, PUT" {
		t.Errorf("POST: %d, Allow %q", a.status, a.header.Get("Allow"))
	}

	c.add(59 * time.Second)
	if a := s.get("GET", good); a.status != 200 {
		t.Errorf("a second before its end: %d %s", a.status, a.body)
	}
	c.add(2 * time.Second)
	s.want("after its end", s.get("GET", good), 403, "url_expired")
	s.want("altered and after its end", s.get("GET", base+"?Expires="+expires+"&Signature="+flip(3)), 403, "signature_invalid")
	c.add(24 * time.Hour)
	s.want("upload URL after its end", s.put(up.UploadURL, nil), 403, "url_expired")
}

func TestURLsOutliveARestartButNotTheirSecret(t *testing.T) {
	dir := t.TempDir()
	var good string
	t.Run("first", func(t *testing.T) {
		s := start(t, Options{DataDir: dir})
		good = s.downloadURL(s.object("a", []byte("content"), "").ID, "")
	})
	_, rest, _ := strings.Cut(strings.TrimPrefix(good, "http://"), "/")
	t.Run("again", func(t *testing.T) {
		s := start(t, Options{DataDir: dir})
		if a := s.get("GET", s.url+"/"+rest); string(a.body) != "content" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	t.Run("with another secret", func(t *testing.T) {
		s := start(t, Options{DataDir: dir})
		var err error
		if s.store.signer, err = newSigner(objects.Secret(newURLSecret())); err != nil {
			t.Fatal(err)
		}
		s.want("URL of the old secret", s.get("GET", s.url+"/"+rest), 403, "signature_invalid")
	})
}

// FuzzSignedQuery: whatever the query, only the values that were signed pass.
func FuzzSignedQuery(f *testing.F) {
	signer, err := newSigner(objects.Secret(strings.Repeat("5f", urlSecretLen)))
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	const id = "obj_000000000000000000000"
	signed, _ := signer.sign(&url.URL{Scheme: "http", Host: "h"}, http.MethodGet, id, now, time.Hour)
	_, good, _ := strings.Cut(signed, "?")
	goodExpires, goodSignature, err := parseSignedQuery(good)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{good, good + "&x=1", strings.Replace(good, "Expires=", "Expires=0", 1), "Expires=1&Signature=AA",
		"Signature=&Expires=", "Expires=-1&Signature=AAAA", "%", ";", "Expires=1;Signature=A", good + "&" + good, "a=b&c=d",
		"Expires=1700003600&Signature=", "Expires=%31700003600&Signature=AAAA", strings.Repeat("&", 600)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		expires, signature, err := parseSignedQuery(query)
		if err == nil && expires < 0 {
			t.Errorf("expiry %d", expires)
		}
		same := err == nil && expires == goodExpires && bytes.Equal(signature, goodSignature)
		if passed := signer.verify(query, http.MethodGet, id, now) == nil; passed != same {
			t.Errorf("%q: passed %v, same values %v", query, passed, same)
		}
		if signer.verify(query, http.MethodPut, id, now) == nil {
			t.Errorf("%q passes for another method", query)
		}
		if signer.verify(query, http.MethodGet, id, now.Add(2*time.Hour)) == nil {
			t.Errorf("%q passes after its end", query)
		}
	})
}

// FuzzCreate: what parseCreate lets through keeps every limit and comes out
// of the database as it went in.
func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		`{"name": "manual.txt", "content_type": "text", "metadata": {"k": "v"}, "ttl_ms": 60000}`,
		`{"name": "a", "content_type": "tgz", "metadata": null, "ttl_ms": null, "is_public": true}`,
		`{"NAME": "a", "content_type": "text", "name": "b"}`, `{"name": "\ud800", "content_type": "text"}`,
		"{\"name\": \"\xff\", \"content_type\": \"text\"}", `null`, `[]`, `{}`, ``, `{"name": 1}`, `{"metadata": {"": ""}}`, `{"ttl_ms": 1e3}`,
	} {
		f.Add([]byte(seed))
	}
	s, err := Open(f.Context(), Options{DataDir: f.TempDir(), Keys: testKeys})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := parseCreate(body)
		if err != nil {
			if asRefusal(err).status != 400 {
				t.Errorf("%v", err)
			}
			return
		}
		if req.Name == "" || len(req.Name) > maxName || !req.ContentType.Valid() || len(req.Metadata) > maxMetadata {
			t.Fatalf("%+v", req)
		}
		rec, err := s.create(t.Context(), call{account: "anna", op: "create"}, req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.find(t.Context(), "anna", rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		a, _ := json.Marshal(req.Metadata)
		b, _ := json.Marshal(got.Metadata)
		if got.State == objects.StateUploading && (got.Name != req.Name || got.ContentType != req.ContentType || got.IsPublic != req.IsPublic || !bytes.Equal(a, b)) {
			t.Errorf("%+v came out as %+v", req, got.Object)
		}
	})
}
