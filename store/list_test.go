package store

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"objectmount/objects"
)

func (s *server) list(path string, q url.Values, headers ...string) objects.ListPage {
	s.t.Helper()
	a := s.call("GET", path+"?"+q.Encode(), "", headers...)
	if a.status != 200 {
		s.t.Fatalf("list %v: %d %s", q, a.status, a.body)
	}
	var page objects.ListPage
	if err := json.Unmarshal(a.body, &page); err != nil {
		s.t.Fatal(err)
	}
	return page
}

func names(page objects.ListPage) (all []string) {
	for _, o := range page.Objects {
		all = append(all, o.Name)
	}
	return all
}

func TestListPages(t *testing.T) {
	s := start(t, Options{})
	for i := range 45 {
		s.create(fmt.Sprint("n", i), "")
	}
	s.create("of another account", "", asBert)

	page := s.list("/v1/objects", nil)
	if len(page.Objects) != 20 || !page.HasMore || *page.TotalCount != 45 || page.Objects[0].Name != "n44" {
		t.Errorf("first page: %d objects, more %v, total %d, first %s", len(page.Objects), page.HasMore, *page.TotalCount, page.Objects[0].Name)
	}
	for _, limit := range []string{"0", "-1", "", "-9223372036854775808"} {
		if got := s.list("/v1/objects", url.Values{"limit": {limit}}); len(got.Objects) != 20 {
			t.Errorf("limit %q: %d objects", limit, len(got.Objects))
		}
	}
	if got := s.list("/v1/objects", url.Values{"limit": {"2147483647"}}); len(got.Objects) != 45 || got.HasMore {
		t.Errorf("large limit: %d objects, more %v", len(got.Objects), got.HasMore)
	}

	var all []string
	q := url.Values{"limit": {"7"}}
	for {
		page := s.list("/v1/objects", q)
		if *page.TotalCount != 45 {
			t.Errorf("total %d on a later page", *page.TotalCount)
		}
		all = append(all, names(page)...)
		if !page.HasMore {
			break
		}
		last := page.Objects[len(page.Objects)-1].ID
		q.Set("starting_after", last)
		// A cursor is a position: it outlives its object.
		s.call("POST", "/v1/objects/"+last+"/delete", "")
		if _, err := s.store.write.Exec("DELETE FROM objects WHERE id = ?", last); err != nil {
			t.Fatal(err)
		}
		s.create("n45", "") // as if nothing had been deleted; it is before the first page
	}
	for i, name := range all {
		if name != fmt.Sprint("n", 44-i) {
			t.Fatalf("object %d of the pages is %s: %v", i, name, all)
		}
	}
	if len(all) != 45 {
		t.Errorf("the pages have %d objects", len(all))
	}
	if page := s.list("/v1/objects", url.Values{"starting_after": {"obj_000000000000000000000"}}); len(page.Objects) != 0 || page.HasMore || *page.TotalCount != 45 {
		t.Errorf("after the end: %+v", page)
	}
	if page := s.list("/v1/objects", url.Values{"include_total_count": {"false"}}); page.TotalCount != nil {
		t.Errorf("a total that was not wanted: %d", *page.TotalCount)
	}
	// null and [] are not the same to a client that iterates.
	if a := s.call("GET", "/v1/objects?name=nosuch", ""); !strings.Contains(string(a.body), `"objects":[],"has_more":false,"total_count":0`) {
		t.Errorf("empty list: %s", a.body)
	}
	for _, bad := range []string{"limit=x", "limit=1.5", "starting_after=x", "content_type=text/plain", "state=deleted",
		"include_total_count=perhaps", "is_public=2", "name=" + strings.Repeat("n", maxTerm+1), "search=%00", "name=%ff"} {
		s.want(bad, s.call("GET", "/v1/objects?"+bad, ""), 400, "invalid_request")
	}
}

// A page of large metadata ends early instead of filling memory.
func TestListPageIsBounded(t *testing.T) {
	s := start(t, Options{})
	meta, _ := json.Marshal(map[string]string{"a": strings.Repeat("v", maxMetaValue), "b": strings.Repeat("v", maxMetaValue), "c": strings.Repeat("v", maxMetaValue)})
	const n = 1000
	tx, err := s.store.write.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := tx.Exec(`INSERT INTO objects (id, account, name, content_type, state, is_public, create_ms, metadata)
			VALUES (?, 'anna', ?, 'text', 'UPLOADING', 0, 0, ?)`, s.store.ids.next(s.store.now()), strconv.Itoa(i), string(meta)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	q := url.Values{"limit": {"5000"}}
	seen, pages := 0, 0
	for {
		a := s.call("GET", "/v1/objects?"+q.Encode(), "")
		if len(a.body) > maxPage+maxPage/4 {
			t.Fatalf("a page of %d bytes", len(a.body))
		}
		var page objects.ListPage
		if err := json.Unmarshal(a.body, &page); err != nil {
			t.Fatal(err)
		}
		seen, pages = seen+len(page.Objects), pages+1
		if !page.HasMore {
			break
		}
		q.Set("starting_after", page.Objects[len(page.Objects)-1].ID)
	}
	if seen != n || pages < 2 {
		t.Errorf("%d objects on %d pages", seen, pages)
	}
}

// TestListLaw holds every answer of list against a filter written in Go.
func TestListLaw(t *testing.T) {
	s := start(t, Options{})
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(all ...string) string { return all[rnd.IntN(len(all))] }
	words := []string{"alpha.txt", "ALPHA.TXT", "be_ta.tgz", "beXta.tgz", "100%.bin", "100x.bin", `back\slash`, "gamma/delta", "ünicode"}
	var all []objects.Object // newest first
	for range 120 {
		as := pick("Authorization: Bearer ak_anna_key", asBert)
		body, _ := json.Marshal(map[string]any{
			"name": pick(words...), "content_type": pick("text", "tgz", "binary"), "is_public": rnd.IntN(3) == 0,
			"metadata": map[string]string{"owner": as},
		})
		o := s.ask("POST", "/v1/objects", string(body), as)
		switch rnd.IntN(4) {
		case 0:
			s.put(o.UploadURL, []byte("x"))
			o = s.ask("POST", "/v1/objects/"+o.ID+"/complete", "", as)
		case 1:
			o = s.ask("POST", "/v1/objects/"+o.ID+"/delete", "", as)
		}
		o.UploadURL = ""
		all = append([]objects.Object{o.Object}, all...)
	}
	has := func(text, part string) bool { // as LIKE: ASCII letters of any case
		lower := func(s string) string {
			return strings.Map(func(r rune) rune {
				if r >= 'A' && r <= 'Z' {
					r += 'a' - 'A'
				}
				return r
			}, s)
		}
		return strings.Contains(lower(text), lower(part))
	}
	for range 400 {
		q := url.Values{}
		set := func(key, value string) {
			if rnd.IntN(3) == 0 {
				q.Set(key, value)
			}
		}
		some := all[rnd.IntN(len(all))]
		set("limit", pick("1", "3", "500"))
		set("starting_after", some.ID)
		set("name", pick("a", "_", "%", "alpha", `\`, "Ü", "ü", "/", "nosuch", ".t"))
		set("search", pick(some.ID, some.ID[:12], "OBJ_", "bin", some.ID[20:], "%"))
		set("content_type", pick("text", "tgz", "unspecified"))
		set("state", pick("UPLOADING", "READ_ONLY", "DELETED", "ERROR"))
		set("is_public", pick("true", "false"))
		path := pick("/v1/objects", "/v1/objects/list_public")
		as := pick("Authorization: Bearer ak_anna_key", asBert)

		want := objects.ListPage{Objects: []objects.Object{}}
		total := int32(0)
		limit := 20
		if text := q.Get("limit"); text != "" {
			limit, _ = strconv.Atoi(text)
		}
		for _, o := range all {
			switch {
			case path == "/v1/objects" && o.Metadata["owner"] != as,
				path != "/v1/objects" && !o.IsPublic,
				path == "/v1/objects" && q.Get("is_public") != "" && q.Get("is_public") != strconv.FormatBool(o.IsPublic),
				q.Get("state") == "" && o.State == objects.StateDeleted,
				q.Get("state") != "" && string(o.State) != q.Get("state"),
				q.Get("content_type") != "" && string(o.ContentType) != q.Get("content_type"),
				!has(o.Name, q.Get("name")),
				!has(o.Name, q.Get("search")) && !has(o.ID, q.Get("search")):
				continue
			}
			total++
			if q.Get("starting_after") != "" && o.ID >= q.Get("starting_after") {
				continue
			}
			if len(want.Objects) == limit {
				want.HasMore = true
			} else {
				want.Objects = append(want.Objects, o)
			}
		}
		want.TotalCount = &total
		if diff := cmp.Diff(want, s.list(path, q, as)); diff != "" {
			t.Fatalf("%s %s %v (-want +got):\n%s", as, path, q, diff)
		}
	}
}

// Lists must go along an index, never through all rows or a sort.
func TestListPlans(t *testing.T) {
	s := start(t, Options{})
	yes := true
	for name, f := range map[string]filter{
		"own":      {},
		"public":   {everyAccounts: true},
		"filtered": {contentType: "text", state: "READ_ONLY", public: &yes, name: "a", search: "b"},
		"deleted":  {state: "DELETED"},
	} {
		counted, args, text, textArgs := f.where("anna")
		where := append([]string{"deleted = 0", "id < 'obj_x'"}, append(counted, text...)...)
		rows, err := s.store.read.Query("EXPLAIN QUERY PLAN SELECT "+columns+" FROM objects WHERE "+strings.Join(where, " AND ")+
			" ORDER BY id DESC LIMIT 21", append(args, textArgs...)...)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var a, b, c int
			var detail string
			if err := rows.Scan(&a, &b, &c, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		want := "objects_own (account=? AND deleted=? AND id<?)"
		if f.everyAccounts {
			want = "objects_public (deleted=? AND id<?)"
		}
		if len(plan) != 1 || !strings.HasPrefix(plan[0], "SEARCH objects USING INDEX "+want) {
			t.Errorf("%s: %q", name, plan)
		}
	}
}

func TestMetadataCalls(t *testing.T) {
	s := start(t, Options{})
	s.create("a", `, "metadata": {"team": "red", "stage": "dev", "a/b c": "1"}`)
	s.create("b", `, "metadata": {"team": "blue", "stage": "dev"}`)
	gone := s.create("c", `, "metadata": {"team": "green", "only": "here"}`)
	s.create("d", `, "metadata": {"team": "other", "private": "x"}, "is_public": true`, asBert)
	s.ask("POST", "/v1/objects/"+gone.ID+"/delete", "")

	get := func(path string, headers ...string) (all map[string]any) {
		t.Helper()
		a := s.call("GET", path, "", headers...)
		if err := json.Unmarshal(a.body, &all); err != nil || a.status != 200 {
			t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
		return all
	}
	check := func(path string, want map[string]any, headers ...string) {
		t.Helper()
		if diff := cmp.Diff(want, get(path, headers...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	list := func(texts ...any) []any { return append([]any{}, texts...) }
	check("/v1/objects/metadata/keys", map[string]any{"keys": list("a/b c", "stage", "team")})
	check("/v1/objects/metadata/keys", map[string]any{"keys": list("private", "team")}, asBert)
	check("/v1/objects/metadata/keys/team/values", map[string]any{"key": "team", "values": list("blue", "red")})
	check("/v1/objects/metadata/keys/a%2Fb%20c/values", map[string]any{"key": "a/b c", "values": list("1")})
	check("/v1/objects/metadata/keys/only/values", map[string]any{"key": "only", "values": list()})
	for _, bad := range []string{"%0a", "%ff", strings.Repeat("k", maxMetaKey+1)} {
		s.want(bad, s.call("GET", "/v1/objects/metadata/keys/"+bad+"/values", ""), 400, "invalid_request")
	}
}
