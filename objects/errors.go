package objects

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a caller can act on. Every error of this package that has one of
// these causes answers errors.Is for it.
var (
	// ErrNotFound: there is no such object, or this key may not see it (404).
	ErrNotFound = errors.New("object not found")
	// ErrDeleted: the object has been deleted.
	ErrDeleted = errors.New("object is deleted")
	// ErrCredentials: the API refuses the key (401, 403), or an object's URL
	// was refused again right after it had been renewed.
	ErrCredentials = errors.New("credentials refused")
	// ErrUnreachable: the network is down or the server failed, and went on
	// failing until the retry budget was spent.
	ErrUnreachable = errors.New("cannot reach the server")
	// ErrExpired: a download URL that nobody can renew (FixedURL) is refused.
	ErrExpired = errors.New("the download URL has expired or is refused, and cannot be renewed")
	// ErrChanged: the object is another one than at the first request. Bytes
	// of the two are never mixed: open a new Reader and start again.
	ErrChanged = errors.New("object changed while it was being read")
	// ErrChecksum: all bytes arrived and their SHA-256 is not the wanted one.
	ErrChecksum = errors.New("the object's SHA-256 is not the expected one")
	// ErrNoRanges: the server ignores ranges, and the wanted one lies too far
	// from the start to be reached by discarding. Only a stream from 0 works.
	ErrNoRanges = errors.New("the server does not serve byte ranges")
	// ErrNoValidator: the server gives neither ETag nor Last-Modified, so two
	// answers cannot be proven to be of one object. Only a stream from 0 that
	// is not interrupted works, or one whose SHA-256 is known.
	ErrNoValidator = errors.New("the server gives neither ETag nor Last-Modified")
	// ErrBadID: the text cannot be an object's id; nothing was sent.
	ErrBadID = errors.New("not an object id")
)

// APIError is a server's refusal, as one sentence that says what was asked,
// who refused and why. It answers errors.Is for ErrNotFound (404),
// ErrCredentials (401, 403) and ErrUnreachable (408, 429, 500 and above).
type APIError struct {
	Status  int    // HTTP status
	Code    string // the server's word for it, "" when it gave none
	Message string // the server's sentence, bounded and free of secrets; may be ""
	Op      string // what was being done, such as "get object obj_1"
	Host    string // who answered
}

// Error says it in words.
func (e *APIError) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	if e.Host != "" {
		b.WriteString(e.Host + " answered ")
	}
	fmt.Fprintf(&b, "%d", e.Status)
	if t := http.StatusText(e.Status); t != "" {
		b.WriteString(" " + t)
	}
	if said := e.said(); said != "" {
		b.WriteString(": " + said)
	}
	switch {
	case e.Op == "": // not of the API
	case e.Status == http.StatusUnauthorized:
		b.WriteString(" (check the API key)")
	case e.Status == http.StatusForbidden:
		b.WriteString(" (this API key may not do that)")
	case e.Status/100 == 3:
		b.WriteString(" (set the base URL to where the API really is)")
	}
	return b.String()
}

// said is the server's own code and sentence.
func (e *APIError) said() string {
	switch {
	case e.Code == "" || strings.Contains(e.Message, e.Code):
		return e.Message
	case e.Message == "":
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Is maps the status to the sentinels.
func (e *APIError) Is(target error) bool {
	switch target {
	case ErrNotFound:
		return e.Status == http.StatusNotFound || e.Status == http.StatusGone
	case ErrCredentials:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	case ErrUnreachable:
		return e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests || e.Status >= 500
	}
	return false
}

// Bounds on what is read and shown of an error body. More is read than
// shown, so that the sentence within a long body can be found.
const (
	errorBodyRead  = 8 << 10
	errorBodyShown = 512
)

// refusal reads an answer that is not a success. secrets are what the server
// may have echoed.
func refusal(op string, resp *http.Response, secrets ...string) *APIError {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, errorBodyRead)) // what came is enough
	e := parseErrorBody(resp.Header.Get("Content-Type"), b)
	e.Code, e.Message = shown(e.Code, secrets), shown(e.Message, secrets)
	e.Status, e.Op = resp.StatusCode, op
	if resp.Request != nil && resp.Request.URL != nil {
		e.Host = resp.Request.URL.Host
	}
	return e
}

// parseErrorBody finds the code and the sentence in an error body: the API's
// own JSON, its usual variants (nested, a bare string, a list), S3's XML, the
// title of an HTML page, or the first line of anything else.
func parseErrorBody(contentType string, b []byte) *APIError {
	text := strings.TrimSpace(string(b))
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case strings.HasPrefix(text, "{") || strings.HasPrefix(text, "["):
		var v any
		if json.Unmarshal([]byte(text), &v) == nil {
			e := new(APIError)
			e.fromJSON(v, 0)
			return e
		}
	case kind == "text/html" || htmlStart.MatchString(text):
		if m := htmlTitle.FindStringSubmatch(text); m != nil {
			return &APIError{Message: m[1]}
		}
		return &APIError{Message: "an HTML page"}
	case strings.HasPrefix(text, "<"):
		var s3 struct{ Code, Message string }
		// A body that was cut off still has its first elements.
		if xml.Unmarshal([]byte(text), &s3); s3.Code != "" || s3.Message != "" {
			return &APIError{Code: s3.Code, Message: s3.Message}
		}
		// Nothing else of an XML error may be shown: S3 echoes the access
		// key's id and the string that was signed.
		return &APIError{}
	}
	first, _, _ := strings.Cut(text, "\n")
	return &APIError{Message: first}
}

var (
	htmlStart = regexp.MustCompile(`(?i)^<(!doctype html|html|head|body)`)
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
)

// fromJSON takes code and message from wherever servers put them.
func (e *APIError) fromJSON(v any, depth int) {
	if depth > 4 {
		return
	}
	switch v := v.(type) {
	case string:
		if e.Message == "" {
			e.Message = v
		}
	case []any:
		if len(v) > 0 {
			e.fromJSON(v[0], depth+1)
		}
	case map[string]any:
		for _, k := range []string{"code", "type", "status"} {
			if s, ok := v[k].(string); ok && e.Code == "" {
				e.Code = s
			}
		}
		for _, k := range []string{"message", "error", "detail", "errors", "error_description", "title"} {
			if e.Message == "" {
				e.fromJSON(v[k], depth+1)
			}
		}
	}
}

// shown makes a stranger's text fit to be printed: one line, printable, no
// secrets, at most 512 bytes.
func shown(s string, secrets []string) string {
	s = scrub(hide(strings.ToValidUTF8(s, "\uFFFD"), secrets...))
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if len(s) <= errorBodyShown {
		return s
	}
	cut := errorBodyShown - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
