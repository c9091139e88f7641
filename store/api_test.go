package store

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"objectmount/objects"
)

func TestLife(t *testing.T) {
	s := start(t, Options{})
	before := time.Now().UnixMilli()
	v := s.create("data.bin", `, "metadata": {"k": "v"}, "ttl_ms": 3600000`)
	if !validID(v.ID) || v.State != objects.StateUploading || v.SizeBytes != nil || v.UploadURL == "" ||
		v.CreateTimeMS < before || v.CreateTimeMS > time.Now().UnixMilli() ||
		v.DeleteAfterTimeMS == nil || *v.DeleteAfterTimeMS != v.CreateTimeMS+3600000 {
		t.Fatalf("created: %+v", v)
	}
	s.want("complete without content", s.call("POST", "/v1/objects/"+v.ID+"/complete", "{}"), 409, "nothing_uploaded")
	s.want("download while uploading", s.call("GET", "/v1/objects/"+v.ID+"/download", ""), 400, "object_not_ready")

	content := []byte("one\x00two\n")
	if a := s.put(v.UploadURL, content); a.status != 200 || len(a.body) != 0 || a.header.Get("Etag") == "" {
		t.Fatalf("upload: %d %s", a.status, a.body)
	}
	if got := s.ask("GET", "/v1/objects/"+v.ID, ""); got.State != objects.StateUploading || got.SizeBytes != nil || got.UploadURL != "" {
		t.Errorf("uploaded, not complete: %+v", got)
	}
	done := s.ask("POST", "/v1/objects/"+v.ID+"/complete", "{}")
	want := v.Object
	size := int64(len(content))
	want.State, want.SizeBytes = objects.StateReadOnly, &size
	if diff := cmp.Diff(view{Object: want}, done); diff != "" {
		t.Errorf("completed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(done, s.ask("GET", "/v1/objects/"+v.ID, "")); diff != "" {
		t.Errorf("get differs from complete:\n%s", diff)
	}
	if got := s.content(v.ID); string(got) != string(content) {
		t.Errorf("content %q", got)
	}
	a := s.call("POST", "/v1/objects/"+v.ID+"/complete", "")
	s.want("second complete", a, 409, "not_uploading")
	if a.header.Get("X-Should-Retry") != "false" {
		t.Error("a lasting conflict must say x-should-retry: false")
	}
	s.want("upload after complete", s.put(v.UploadURL, []byte("x")), 409, "not_uploading")

	url := s.downloadURL(v.ID, "")
	for i := range 2 {
		if got := s.ask("POST", "/v1/objects/"+v.ID+"/delete", ""); got.State != objects.StateDeleted {
			t.Errorf("delete %d: %+v", i+1, got)
		}
	}
	if got := s.ask("GET", "/v1/objects/"+v.ID, ""); got.State != objects.StateDeleted || got.Name != "data.bin" {
		t.Errorf("get of a deleted object: %+v", got)
	}
	s.want("download URL of a deleted object", s.call("GET", "/v1/objects/"+v.ID+"/download", ""), 400, "object_deleted")
	s.want("content of a deleted object", s.get("GET", url), 404, "not_found")
	s.want("complete a deleted object", s.call("POST", "/v1/objects/"+v.ID+"/complete", ""), 409, "not_uploading")
	s.want("upload to a deleted object", s.put(v.UploadURL, nil), 409, "not_uploading")
	if files := s.files(); len(files) != 0 {
		t.Errorf("content of a deleted object stays: %v", files)
	}
}

func TestCreateBodies(t *testing.T) {
	s := start(t, Options{})
	many := map[string]string{}
	for i := range maxMetadata + 1 {
		many[fmt.Sprint(i)] = ""
	}
	tooMany, _ := json.Marshal(many)
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"takes what the SDK sends for no metadata":  {`{"name": "a", "content_type": "text", "metadata": null}`, 200},
		"takes a null ttl":                          {`{"name": "a", "content_type": "tgz", "ttl_ms": null}`, 200},
		"takes fields it does not know":             {`{"name": "a", "content_type": "tar", "x": {"y": [1]}}`, 200},
		"takes any text as a name":                  {`{"name": "ü/🙂 \"q\"", "content_type": "unspecified"}`, 200},
		"refuses no body":                           {``, 400},
		"refuses what is no JSON":                   {`{"name": "a", `, 400},
		"refuses two JSON values":                   {`{"name": "a", "content_type": "text"} {}`, 400},
		"refuses a list":                            {`[]`, 400},
		"refuses null":                              {`null`, 400},
		"refuses no name":                           {`{"content_type": "text"}`, 400},
		"refuses an empty name":                     {`{"name": "", "content_type": "text"}`, 400},
		"refuses a number as a name":                {`{"name": 1, "content_type": "text"}`, 400},
		"refuses a long name":                       {`{"content_type": "text", "name": "` + strings.Repeat("n", maxName+1) + `"}`, 400},
		"refuses a line break in a name":            {`{"name": "a\nb", "content_type": "text"}`, 400},
		"refuses no content type":                   {`{"name": "a"}`, 400},
		"refuses a MIME type":                       {`{"name": "a", "content_type": "text/csv"}`, 400},
		"refuses a ttl of nothing":                  {`{"name": "a", "content_type": "text", "ttl_ms": 0}`, 400},
		"refuses a ttl in the past":                 {`{"name": "a", "content_type": "text", "ttl_ms": -1}`, 400},
		"refuses a ttl that overflows":              {`{"name": "a", "content_type": "text", "ttl_ms": 9223372036854775807}`, 400},
		"refuses a broken ttl":                      {`{"name": "a", "content_type": "text", "ttl_ms": 1.5}`, 400},
		"refuses metadata that is no text":          {`{"name": "a", "content_type": "text", "metadata": {"k": 1}}`, 400},
		"refuses an empty metadata key":             {`{"name": "a", "content_type": "text", "metadata": {"": "v"}}`, 400},
		"refuses a long metadata key":               {`{"name": "a", "content_type": "text", "metadata": {"` + strings.Repeat("k", maxMetaKey+1) + `": "v"}}`, 400},
		"refuses a long metadata value":             {`{"name": "a", "content_type": "text", "metadata": {"k": "` + strings.Repeat("v", maxMetaValue+1) + `"}}`, 400},
		"refuses too many metadata pairs":           {`{"name": "a", "content_type": "text", "metadata": ` + string(tooMany) + `}`, 400},
		"refuses a NUL in metadata":                 {`{"name": "a", "content_type": "text", "metadata": {"k": "\u0000"}}`, 400},
		"refuses a body beyond every limit as 413":  {`{"name": "a", "content_type": "text", "x": "` + strings.Repeat("x", maxCreateBody) + `"}`, 413},
		"refuses deep nesting without falling over": {strings.Repeat("[", 100_000), 400},
	} {
		t.Run("it "+name, func(t *testing.T) {
			a := s.call("POST", "/v1/objects", test.body)
			if a.status != test.status {
				t.Errorf("%d %s, want %d", a.status, a.body, test.status)
			}
			if a.status != 200 && (strings.Contains(a.errorCode(), "not an error") || len(a.body) > 400) {
				t.Errorf("error body %s", a.body)
			}
		})
	}
	t.Run("it refuses a chunked body beyond every limit", func(t *testing.T) {
		req, _ := http.NewRequest("POST", s.url+"/v1/objects", struct{ *strings.Reader }{strings.NewReader(strings.Repeat(" ", 2*maxCreateBody))})
		req.ContentLength = -1
		req.Header.Set("Authorization", "Bearer ak_anna_key")
		if a, err := trySend(s.plain, req); err == nil && a.status != 413 { // the connection may break first
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

func TestRoutes(t *testing.T) {
	s := start(t, Options{})
	v := s.object("a", nil, "")
	for name, test := range map[string]struct {
		method, path string
		status       int
		code         string
	}{
		"no such object":           {"GET", "/v1/objects/obj_0000000000000000000zz", 404, "not_found"},
		"not an id":                {"GET", "/v1/objects/x", 404, "not_found"},
		"an id that is SQL":        {"GET", "/v1/objects/obj_'%20OR%201=1%20--", 404, "not_found"},
		"complete no such object":  {"POST", "/v1/objects/obj_0000000000000000000zz/complete", 404, "not_found"},
		"delete no such object":    {"POST", "/v1/objects/obj_0000000000000000000zz/delete", 404, "not_found"},
		"download no such object":  {"GET", "/v1/objects/obj_0000000000000000000zz/download", 404, "not_found"},
		"an empty id":              {"GET", "/v1/objects/", 404, "not_found"},
		"no such call":             {"GET", "/etc", 404, "not_found"},
		"the root":                 {"GET", "/", 404, "not_found"},
		"the DELETE verb":          {"DELETE", "/v1/objects/" + v.ID, 405, "method_not_allowed"},
		"get by POST":              {"POST", "/v1/objects/" + v.ID, 405, "method_not_allowed"},
		"duration zero":            {"GET", "/v1/objects/" + v.ID + "/download?duration_seconds=0", 400, "invalid_request"},
		"duration negative":        {"GET", "/v1/objects/" + v.ID + "/download?duration_seconds=-5", 400, "invalid_request"},
		"duration beyond the most": {"GET", "/v1/objects/" + v.ID + "/download?duration_seconds=604801", 400, "invalid_request"},
		"duration that overflows":  {"GET", "/v1/objects/" + v.ID + "/download?duration_seconds=9223372036854775807", 400, "invalid_request"},
		"duration in words":        {"GET", "/v1/objects/" + v.ID + "/download?duration_seconds=1h", 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			s.want(test.path, s.call(test.method, test.path, ""), test.status, test.code)
		})
	}
	if a := s.call("DELETE", "/v1/objects/"+v.ID, ""); a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow: %q", a.header.Get("Allow"))
	}
	for _, path := range []string{
		"/v1/objects/" + v.ID + "?unknown=1&=&;",
		"/v1/objects?unknown=1&limit=0&search=&name=&state=&content_type=&starting_after=&include_total_count=&is_public=",
		"/v1/objects/" + v.ID + "/download?duration_seconds=&x=y",
		"/v1/objects/" + v.ID + "/download?duration_seconds=604800",
	} {
		if a := s.call("GET", path, ""); a.status != 200 {
			t.Errorf("GET %s: %d %s", path, a.status, a.body)
		}
	}
	if a := s.call("HEAD", "/v1/objects/"+v.ID, ""); a.status != 200 || len(a.body) != 0 {
		t.Errorf("HEAD: %d %s", a.status, a.body)
	}
}

func TestDownloadURLAnswer(t *testing.T) {
	c := &clock{now: time.Now().Truncate(time.Second)}
	s := start(t, Options{Now: c.Now})
	v := s.object("a", []byte("x"), "")
	a := s.call("GET", "/v1/objects/"+v.ID+"/download?duration_seconds=120", "")
	var got struct {
		DownloadURL string `json:"download_url"`
		ExpiresAtMS int64  `json:"expires_at_ms"`
	}
	if err := json.Unmarshal(a.body, &got); err != nil || got.ExpiresAtMS != c.Now().Add(2*time.Minute).UnixMilli() ||
		!strings.HasPrefix(got.DownloadURL, s.url+contentPath+v.ID+"?") {
		t.Errorf("%s (%v)", a.body, err)
	}
	if strings.Contains(string(a.body), `\u0026`) {
		t.Error("the URL is escaped beyond need")
	}
}

func TestAccounts(t *testing.T) {
	s := start(t, Options{})
	mine := s.object("mine", []byte("secret"), "")
	public := s.object("shared", []byte("for all"), `, "is_public": true`)
	if !public.IsPublic || mine.IsPublic {
		t.Errorf("is_public: %v, %v", public.IsPublic, mine.IsPublic)
	}

	for name, auth := range map[string]string{
		"no key": "", "a wrong key": "Bearer ak_anna_kez", "another scheme": "Basic ak_anna_key", "a part of a key": "Bearer ak_anna_ke", "no word": "Bearer ",
	} {
		for _, path := range []string{"/v1/objects", "/v1/objects/" + public.ID, "/v1/objects/list_public", "/v1/objects/metadata/keys"} {
			a := s.call("GET", path, "", "Authorization: "+auth)
			s.want(name+" "+path, a, 401, "unauthenticated")
			if a.header.Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
		}
	}
	// An account may have several keys, and the scheme's case is free.
	if got := s.ask("GET", "/v1/objects/"+mine.ID, "", "Authorization: bearer ak_anna_second_key"); got.ID != mine.ID {
		t.Errorf("second key: %+v", got)
	}

	// A private object of another account looks like none at all.
	unknown := strings.ReplaceAll(string(s.call("GET", "/v1/objects/obj_0000000000000000000zz", "", asBert).body), "obj_0000000000000000000zz", "ID")
	for _, c := range [][2]string{{"GET", ""}, {"GET", "/download"}, {"POST", "/complete"}, {"POST", "/delete"}} {
		a := s.call(c[0], "/v1/objects/"+mine.ID+c[1], "", asBert)
		s.want(c[1], a, 404, "not_found")
		if got := strings.ReplaceAll(string(a.body), mine.ID, "ID"); got != unknown {
			t.Errorf("%s %s tells that the object exists: %s", c[0], c[1], a.body)
		}
	}
	// A public one can be read, and no more.
	if got := s.ask("GET", "/v1/objects/"+public.ID, "", asBert); got.Name != "shared" {
		t.Errorf("public object: %+v", got)
	}
	if a := s.get("GET", s.downloadURL(public.ID, "", asBert)); string(a.body) != "for all" {
		t.Errorf("public content: %d %s", a.status, a.body)
	}
	s.want("complete", s.call("POST", "/v1/objects/"+public.ID+"/complete", "", asBert), 403, "permission_denied")
	s.want("delete", s.call("POST", "/v1/objects/"+public.ID+"/delete", "", asBert), 403, "permission_denied")
	if got := s.ask("GET", "/v1/objects/"+public.ID, ""); got.State != objects.StateReadOnly {
		t.Errorf("after another's delete: %+v", got)
	}
}

func TestSignedURLBase(t *testing.T) {
	s := start(t, Options{PublicURL: "https://objects.example.com/prefix/"})
	if v := s.create("a", ""); !strings.HasPrefix(v.UploadURL, "https://objects.example.com/prefix/v1/content/"+v.ID+"?") {
		t.Errorf("with a public URL: %s", v.UploadURL)
	}
	s = start(t, Options{})
	req, _ := http.NewRequest("POST", s.url+"/v1/objects", strings.NewReader(`{"name": "a", "content_type": "text"}`))
	req.Header.Set("Authorization", "Bearer ak_anna_key")
	req.Host = "api.localhost:443"
	var v view
	if err := json.Unmarshal(s.send(s.calls, req).body, &v); err != nil || !strings.HasPrefix(v.UploadURL, "http://api.localhost:443/v1/content/") {
		t.Errorf("by the request's host: %s (%v)", v.UploadURL, err)
	}
}
