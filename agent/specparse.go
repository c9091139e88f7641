package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// A spec file is one of
//
//	{"mounts": [MOUNT, ...], ...}     with any other keys: a Devbox create request
//	[MOUNT, ...]
//
// and a MOUNT is an object whose "type" says whose it is. Only object_mount is
// ours; of the others not even the keys are looked at.
//
// The reading is done token by token, because encoding/json gives a position
// for bad syntax only, and a person who mistyped a key wants one as well.

// objectMount is the type of mount that is ours.
const objectMount = "object_mount"

// field is one key of a mount with its value, and where both stand.
type field struct {
	key       string
	keyAt, at int64      // byte offsets
	tok       json.Token // string, bool, json.Number, nil; a Delim for an object or array, whose inside is left out
}

type parser struct {
	file string
	data []byte
	dec  *json.Decoder
	at   int64 // where the last token begins
	seen mark  // see position
}

// mark is a place in the text, all from 0.
type mark struct {
	at           int64
	line, column int
}

// parseSpec reads one spec file. Every error is a *SpecError.
func parseSpec(file string, data []byte) (mounts []Mount, skipped []string, err error) {
	p := &parser{file: file, data: data, dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	if err := p.syntax(); err != nil {
		return nil, nil, err
	}
	tok, err := p.next()
	if err != nil {
		return nil, nil, err
	}
	each := func() error {
		m, skip, err := p.mount()
		if skip != "" {
			skipped = append(skipped, skip)
		} else if err == nil {
			mounts = append(mounts, m)
		}
		return err
	}
	switch tok {
	case json.Delim('['):
		err = p.array(each)
	case json.Delim('{'):
		err = p.request(each)
	default:
		err = p.fail(p.at, `a spec is {"mounts": [...]} or a list of mounts, not `+kind(tok), "")
	}
	if err != nil {
		return nil, nil, err
	}
	return mounts, skipped, nil
}

// syntax checks the whole text at once. After it, tokens come without error:
// it is done first because the decoder's own positions are not reliable in
// the middle of a stream of tokens.
func (p *parser) syntax() error {
	if len(bytes.TrimSpace(p.data)) == 0 {
		return p.fail(0, "the file is empty", `an empty list of mounts is written []`)
	}
	if bytes.HasPrefix(p.data, []byte("\xef\xbb\xbf")) {
		return p.fail(0, "the file begins with a byte order mark", "save it as UTF-8 without one")
	}
	if !utf8.Valid(p.data) {
		at := 0
		for r, n := rune(0), 0; ; at += n {
			if r, n = utf8.DecodeRune(p.data[at:]); r == utf8.RuneError && n <= 1 {
				break
			}
		}
		return p.fail(int64(at), "the text is not UTF-8", "save the file as UTF-8")
	}
	var all json.RawMessage
	if err := json.Unmarshal(p.data, &all); err != nil {
		at, hint := int64(len(p.data)), "the JSON is not complete"
		var se *json.SyntaxError
		if errors.As(err, &se) && se.Offset <= int64(len(p.data)) && !strings.Contains(err.Error(), "unexpected end") {
			// Offset counts the offending byte.
			at, hint = max(se.Offset-1, 0), "JSON has no comments, no trailing commas, and double quotes around every key"
		}
		return p.fail(at, err.Error(), hint)
	}
	return nil
}

// request reads the inside of an object with the key "mounts".
func (p *parser) request(each func() error) error {
	start, seen := p.at, map[string]bool{}
	for p.dec.More() {
		key, err := p.key(seen)
		if err != nil {
			return err
		}
		tok, err := p.next()
		if err != nil {
			return err
		}
		switch {
		case key != "mounts":
			err = p.skip(tok)
		case tok == nil: // a create request without mounts
		case tok == json.Delim('['):
			err = p.array(each)
		default:
			err = p.fail(p.at, "mounts must be a list, not "+kind(tok), "")
		}
		if err != nil {
			return err
		}
	}
	if !seen["mounts"] {
		return p.fail(start, `the object has no key "mounts"`, `a spec is {"mounts": [...]} or a list of mounts`)
	}
	_, err := p.next()
	return err
}

// array reads the inside of a list of mounts.
func (p *parser) array(each func() error) error {
	for n := 1; p.dec.More(); n++ {
		if n > maxMounts {
			return p.fail(p.dec.InputOffset(), fmt.Sprintf("more than %d mounts", maxMounts), "pack several objects into one")
		}
		if err := each(); err != nil {
			return err
		}
	}
	_, err := p.next()
	return err
}

// mount reads one entry. skip is a line about an entry that is not ours.
func (p *parser) mount() (m Mount, skip string, err error) {
	tok, err := p.next()
	if err != nil {
		return m, "", err
	}
	start := p.at
	if tok != json.Delim('{') {
		return m, "", p.fail(start, "a mount is an object, not "+kind(tok), `write {"type": "object_mount", "object_id": ..., "object_path": ...}`)
	}
	fields, err := p.fields()
	if err != nil {
		return m, "", err
	}
	i := slices.IndexFunc(fields, func(f field) bool { return f.key == "type" })
	if i < 0 || fields[i].tok == nil {
		return m, "", p.fail(start, "type is missing", `write "type": "object_mount"`)
	}
	typ, ok := fields[i].tok.(string)
	if !ok {
		return m, "", p.fail(fields[i].at, "type must be text, not "+kind(fields[i].tok), `write "type": "object_mount"`)
	}
	m.File = p.file
	m.Line, m.Column = p.position(start)
	if typ != objectMount {
		return m, fmt.Sprintf("%s:%d:%d: mount of type %.80q left to others", m.File, m.Line, m.Column, typ), nil
	}
	m.Required = true
	if err := p.fill(&m, fields); err != nil {
		return m, "", err
	}
	if fe := m.check(); fe != nil {
		at := start
		for _, f := range fields {
			if f.key == fe.key && f.tok != nil {
				at = f.at
			}
		}
		return m, "", p.fail(at, fe.msg, fe.hint)
	}
	m.SHA256 = strings.ToLower(m.SHA256)
	return m, "", nil
}

// fields reads the inside of an object, each key once.
func (p *parser) fields() ([]field, error) {
	var fields []field
	seen := map[string]bool{}
	for p.dec.More() {
		key, err := p.key(seen)
		if err != nil {
			return nil, err
		}
		f := field{key: key, keyAt: p.at}
		if f.tok, err = p.next(); err != nil {
			return nil, err
		}
		f.at = p.at
		if err := p.skip(f.tok); err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	_, err := p.next()
	return fields, err
}

// fill puts the fields of an object_mount into m. null means the default.
func (p *parser) fill(m *Mount, fields []field) error {
	texts := map[string]*string{
		"object_id": &m.ObjectID, "object_path": &m.ObjectPath, "mode": &m.Mode, "owner": &m.Owner,
		"on_conflict": &m.OnConflict, "prefetch": (*string)(&m.Prefetch), "sha256": &m.SHA256, "download_url": (*string)(&m.DownloadURL), "type": new(string),
	}
	bools := map[string]*bool{
		"read_only": &m.ReadOnly, "required": &m.Required, "publish_index": &m.PublishIndex, "preserve_owner": &m.PreserveOwner, "xattrs": &m.Xattrs,
	}
	for _, f := range fields {
		text, isText := texts[f.key]
		truth, isBool := bools[f.key]
		switch {
		case !isText && !isBool:
			known := slices.Sorted(maps.Keys(texts))
			known = append(known, slices.Sorted(maps.Keys(bools))...)
			return p.fail(f.keyAt, fmt.Sprintf("unknown key %.80q in an object_mount", f.key), suggest(f.key, known))
		case f.tok == nil:
		case isText:
			s, ok := f.tok.(string)
			if !ok {
				return p.fail(f.at, f.key+" must be text, not "+kind(f.tok), "put it in double quotes")
			}
			if s == "" && f.key != "object_id" && f.key != "object_path" {
				return p.fail(f.at, f.key+" is empty", "leave it out, or write null")
			}
			*text = s
		default:
			b, ok := f.tok.(bool)
			if !ok {
				return p.fail(f.at, f.key+" must be true or false, not "+kind(f.tok), "write it without quotes")
			}
			*truth = b
		}
	}
	return nil
}

// key reads the key of an object's next member, which must be a new one.
func (p *parser) key(seen map[string]bool) (string, error) {
	tok, err := p.next()
	if err != nil {
		return "", err
	}
	key, ok := tok.(string)
	if !ok {
		return "", p.fail(p.at, "a key must be text", "")
	}
	if seen[key] {
		return "", p.fail(p.at, fmt.Sprintf("key %.80q for the second time in one object", key), "keep one of the two")
	}
	seen[key] = true
	return key, nil
}

// next reads a token and notes where it begins.
func (p *parser) next() (json.Token, error) {
	at := p.dec.InputOffset()
	for at < int64(len(p.data)) && strings.IndexByte(" \t\r\n,:", p.data[at]) >= 0 {
		at++
	}
	p.at = at
	tok, err := p.dec.Token()
	if err != nil {
		return nil, p.fail(at, err.Error(), "")
	}
	return tok, nil
}

// skip reads on to the end of the value that tok begins.
func (p *parser) skip(tok json.Token) error {
	depth := 0
	for {
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
		var err error
		if tok, err = p.dec.Token(); err != nil {
			return p.fail(p.dec.InputOffset(), err.Error(), "")
		}
	}
}

// position turns a byte offset into line and column, both from 1. It counts
// on from the last one it was asked for, as one asks in the order of the text.
func (p *parser) position(at int64) (line, column int) {
	at = min(at, int64(len(p.data)))
	if at < p.seen.at {
		p.seen = mark{}
	}
	fresh := p.data[p.seen.at:at]
	if last := bytes.LastIndexByte(fresh, '\n'); last >= 0 {
		p.seen.line += bytes.Count(fresh, []byte("\n"))
		p.seen.column = 0
		fresh = fresh[last+1:]
	}
	p.seen.column += utf8.RuneCount(fresh)
	p.seen.at = at
	return p.seen.line + 1, p.seen.column + 1
}

func (p *parser) fail(at int64, msg, hint string) error {
	line, column := p.position(at)
	return &SpecError{File: p.file, Line: line, Column: column, Msg: msg, Hint: hint}
}

// kind names a token's type as a person would.
func kind(tok json.Token) string {
	switch tok := tok.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case json.Delim:
		if tok == '{' {
			return "an object"
		}
		return "a list"
	}
	return "something else"
}

// suggest gives the known word nearest to a mistyped one, or all of them.
func suggest(word string, known []string) string {
	best, least := "", 3 // more than two slips is another word
	for _, k := range known {
		if d := distance(strings.ToLower(word), k); d < least {
			best, least = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "known keys: " + strings.Join(known, ", ")
}

// distance is the Levenshtein distance; words much longer than any key are
// not measured.
func distance(a, b string) int {
	if len(a) > 40 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
