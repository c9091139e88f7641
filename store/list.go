package store

import (
	"context"
	"math"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"objectmount/objects"
)

const (
	defaultLimit = 20
	maxLimit     = 5000
	maxPage      = 8 << 20 // bytes of names and metadata on one page
	maxTerm      = 1024    // bytes of name and search
	maxMetaKeys  = 5000    // keys, and values, that the metadata calls list
)

// filter is a list query, checked.
type filter struct {
	limit         int
	after         string // id; "" = from the newest on
	name, search  string
	contentType   objects.ContentType
	state         objects.State // "" = all but DELETED
	public        *bool         // is_public
	total         bool
	everyAccounts bool // list_public
}

// parseFilter reads a list query. Empty values count as absent, parameters it
// does not know as not there.
func parseFilter(q url.Values) (filter, error) {
	f := filter{
		limit: defaultLimit, after: q.Get("starting_after"), name: q.Get("name"), search: q.Get("search"),
		contentType: objects.ContentType(q.Get("content_type")), state: objects.State(q.Get("state")), total: true,
	}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return f, badRequest("limit is not a whole number")
		}
		if n > 0 {
			f.limit = int(min(n, maxLimit))
		}
	}
	if f.after != "" && !validID(f.after) {
		return f, badRequest("starting_after is not an object id: one is obj_ and 21 letters and digits")
	}
	for param, term := range map[string]string{"name": f.name, "search": f.search} {
		if len(term) > maxTerm || !utf8.ValidString(term) || strings.ContainsRune(term, 0) {
			return f, badRequest("%s must be text of at most %d bytes", param, maxTerm)
		}
	}
	if f.contentType != "" && !f.contentType.Valid() {
		return f, badRequest("content_type must be one of unspecified, text, binary, gzip, tar, tgz")
	}
	switch f.state {
	case "", objects.StateUploading, objects.StateReadOnly, objects.StateDeleted, objects.StateError:
	default:
		return f, badRequest("state must be one of UPLOADING, READ_ONLY, DELETED, ERROR")
	}
	total, err := parseBool(q, "include_total_count")
	if err != nil {
		return f, err
	}
	f.total = total == nil || *total
	f.public, err = parseBool(q, "is_public")
	return f, err
}

// parseBool gives nil for an absent parameter.
func parseBool(q url.Values, param string) (*bool, error) {
	text := q.Get(param)
	if text == "" {
		return nil, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return nil, badRequest("%s must be true or false", param)
	}
	return &v, nil
}

// where gives the conditions of f but for its cursor. counted are those that
// the table totals knows of, text those that need a look at each object.
func (f filter) where(account string) (counted []string, countedArgs []any, text []string, textArgs []any) {
	and := func(cond string, arg any) {
		counted, countedArgs = append(counted, cond), append(countedArgs, arg)
	}
	if f.everyAccounts {
		counted = append(counted, "is_public = 1") // literally, to use the index
	} else {
		and("account = ?", account)
	}
	if f.public != nil {
		and("is_public = ?", *f.public)
	}
	if f.state != "" {
		and("state = ?", f.state)
	}
	if f.contentType != "" {
		and("content_type = ?", f.contentType)
	}
	if f.name != "" {
		text, textArgs = append(text, `name LIKE ? ESCAPE '\'`), append(textArgs, anywhere(f.name))
	}
	if f.search != "" {
		text = append(text, `(name LIKE ? ESCAPE '\' OR id LIKE ? ESCAPE '\')`)
		textArgs = append(textArgs, anywhere(f.search), anywhere(f.search))
	}
	return counted, countedArgs, text, textArgs
}

// anywhere is the LIKE pattern of a text with something before and after it.
func anywhere(term string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(term) + "%"
}

// list gives one page, newest first.
func (s *Store) list(ctx context.Context, account string, f filter) (objects.ListPage, error) {
	page := objects.ListPage{Objects: []objects.Object{}}
	counted, args, text, textArgs := f.where(account)
	deleted := 0
	if f.state == objects.StateDeleted {
		deleted = 1
	}
	where := append([]string{"deleted = " + strconv.Itoa(deleted)}, append(counted, text...)...)
	args = append(args, textArgs...)
	// The total is of all pages, so it is asked for without the cursor.
	countWhere, countArgs := where, args
	if f.after != "" {
		where, args = append(where[:len(where):len(where)], "id < ?"), append(args[:len(args):len(args)], f.after)
	}

	rows, err := s.read.QueryContext(ctx, "SELECT "+columns+" FROM objects WHERE "+strings.Join(where, " AND ")+
		" ORDER BY id DESC LIMIT ?", append(args, f.limit+1)...)
	if err != nil {
		return page, err
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		r, err := scan(rows)
		if err != nil {
			return page, err
		}
		if len(page.Objects) == f.limit || size > maxPage {
			page.HasMore = true
			break
		}
		page.Objects = append(page.Objects, r.Object)
		size += 256 + len(r.Name)
		for k, v := range r.Metadata {
			size += len(k) + len(v)
		}
	}
	if err := rows.Err(); err != nil || !f.total {
		return page, err
	}
	rows.Close() // before another connection is asked for
	var total int64
	switch {
	case f.after == "" && !page.HasMore: // it is all here
		total = int64(len(page.Objects))
	case len(text) == 0:
		total, err = s.countSorts(ctx, f, account)
	default:
		err = s.read.QueryRowContext(ctx, "SELECT count(*) FROM objects WHERE "+strings.Join(countWhere, " AND "), countArgs...).Scan(&total)
	}
	n := int32(min(total, math.MaxInt32))
	page.TotalCount = &n
	return page, err
}

// countSorts counts by the table totals, which is quick however many there are.
func (s *Store) countSorts(ctx context.Context, f filter, account string) (total int64, err error) {
	where, args, _, _ := f.where(account)
	if f.state == "" {
		where = append(where, "state <> 'DELETED'")
	}
	err = s.read.QueryRowContext(ctx, "SELECT coalesce(sum(count), 0) FROM totals WHERE "+strings.Join(where, " AND "), args...).Scan(&total)
	return total, err
}

// Distinct keys and values are found by hopping from one to the next in the
// primary key, which costs as many steps as there are answers, not objects.
const (
	metadataKeys = `WITH RECURSIVE hop(k) AS (
			SELECT min(key) FROM metadata WHERE account = ?1
			UNION ALL SELECT (SELECT min(key) FROM metadata WHERE account = ?1 AND key > k) FROM hop WHERE k IS NOT NULL
		) SELECT k FROM hop WHERE k IS NOT NULL LIMIT ?2`
	metadataValues = `WITH RECURSIVE hop(v) AS (
			SELECT min(value) FROM metadata WHERE account = ?1 AND key = ?3
			UNION ALL SELECT (SELECT min(value) FROM metadata WHERE account = ?1 AND key = ?3 AND value > v) FROM hop WHERE v IS NOT NULL
		) SELECT v FROM hop WHERE v IS NOT NULL LIMIT ?2`
)

// texts runs a query of one text column.
func (s *Store) texts(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []string{}
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, rows.Err()
}
