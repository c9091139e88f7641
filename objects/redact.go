package objects

import (
	"net/url"
	"reflect"
	"regexp"
	"strings"
)

// A signed URL is as good as a key for as long as it lives, and Go's errors
// like to print URLs. So there is one door: every error that leaves this
// package goes through Redact, which rebuilds the error's tree
//
//	fmt.Errorf("get: %w", &url.Error{URL: "https://h/p?sig=S", Err: cause})
//	  → rewritten{"get: Get \"https://h/p\": …"} → *url.Error{URL: "https://h/p"} → cause
//
// so that neither the text nor anything that errors.Is, errors.As or Unwrap
// can reach still holds a query or user info.

// RedactURL gives scheme://host/path of a URL: what may be shown of it.
func RedactURL(raw string) string {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return redacted
	case u.Opaque != "" || u.Host == "" && u.Scheme != "":
		return u.Scheme + ":" + redacted
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

var (
	// urlInText is a URL in the middle of a sentence. A backslash ends it, so
	// that a URL in a %q string is found whole.
	urlInText = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*://[^\s"'<>` + "`" + `]+`)
	// queryInText is a query without its URL, as in "GET /path?sig=1".
	queryInText = regexp.MustCompile(`\?[^\s"'<>?]*=[^\s"'<>]*`)
	// userInText is user info in front of a host without a scheme, as in a
	// proxy's address.
	userInText = regexp.MustCompile(`[^\s"'<>/@:]+:[^\s"'<>/@]+@`)
)

// scrub takes the queries and user infos out of every URL in a text.
func scrub(s string) string {
	s = urlInText.ReplaceAllStringFunc(s, func(u string) string {
		if !strings.ContainsAny(u, "?@#") {
			return u
		}
		// What follows a URL in a sentence is not part of it.
		end := strings.TrimRight(u, ".,;:!)]}")
		return RedactURL(end) + u[len(end):]
	})
	s = queryInText.ReplaceAllString(s, "?"+redacted)
	return userInText.ReplaceAllString(s, redacted+"@")
}

// Redact rewrites err so that no URL query and no user info remains, neither
// in its text nor in any error that can be unwrapped from it. Each *url.Error
// becomes one with scheme://host/path; errors.Is and errors.As still find
// every cause. An error that holds nothing to hide is given back as it is.
func Redact(err error) error {
	if err == nil {
		return nil
	}
	if u, ok := err.(*url.Error); ok {
		// A parse error quotes what it could not parse.
		return &url.Error{Op: u.Op, URL: RedactURL(u.URL), Err: Redact(u.Err)}
	}

	text := err.Error()
	var children, clean []error
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		children = []error{e.Unwrap()}
	case interface{ Unwrap() []error }:
		children = e.Unwrap()
	}
	changed := false
	for _, c := range children {
		if c == nil {
			continue
		}
		r := Redact(c)
		if !same(r, c) {
			changed = true
			text = strings.ReplaceAll(text, c.Error(), r.Error())
		}
		clean = append(clean, r)
	}
	text = scrub(text)
	if !changed && text == err.Error() {
		return err
	}
	return &rewritten{text: text, was: err, causes: clean}
}

// rewritten stands for an error whose text or causes had something to hide.
// It answers errors.Is for the error it replaces, and unwraps to the clean
// causes only: the replaced error itself cannot be had back.
type rewritten struct {
	text   string
	was    error
	causes []error
}

func (e *rewritten) Error() string   { return e.text }
func (e *rewritten) Unwrap() []error { return e.causes }

func (e *rewritten) Is(target error) bool {
	if same(e.was, target) {
		return true
	}
	is, ok := e.was.(interface{ Is(error) bool })
	return ok && is.Is(target)
}

// same compares two errors without a panic on incomparable values.
func same(a, b error) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// hide replaces each of the secrets in a text that a stranger wrote (a
// server may echo what it was sent), as they are and in their URL forms.
func hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) < 6 { // shorter ones are words, not secrets
			continue
		}
		for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
			text = strings.ReplaceAll(text, form, redacted)
		}
	}
	return text
}

// secretsOf are the parts of a signed URL that must not be seen: its whole
// query, the values in it, and its password.
func secretsOf(u *url.URL) []string {
	s := []string{u.RawQuery}
	for _, vs := range u.Query() {
		s = append(s, vs...)
	}
	if u.User != nil {
		p, _ := u.User.Password()
		s = append(s, u.User.Username(), p)
	}
	return s
}
