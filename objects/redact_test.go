package objects

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	s := Secret("CANARY")
	type holder struct {
		A Secret
		B *Secret
		C []Secret
		D map[string]Secret
	}
	h := holder{s, &s, []Secret{s}, map[string]Secret{"k": s}}
	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T %v"} {
		texts = append(texts, fmt.Sprintf(verb, s), fmt.Sprintf(verb, h))
	}
	b, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "s", s, "h", h)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "s", s, "h", h)
	texts = append(texts, string(b), log.String(), fmt.Sprint(s), s.String())
	for _, text := range texts {
		if strings.Contains(text, "CANARY") || strings.Contains(strings.ToLower(text), "43414e415259") {
			t.Errorf("printed: %s", text)
		}
	}
	var back Secret
	if json.Unmarshal([]byte(`"CANARY"`), &back) != nil || back.Reveal() != "CANARY" {
		t.Error("a secret cannot be read")
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://user:pw@h:8443/a%2Fb/c?sig=1#f": "https://h:8443/a%2Fb/c",
		"http://h":                               "http://h",
		"/path?sig=1":                            "/path",
		"mailto:user@h?subject=x":                "mailto:[redacted]",
		"https://h/%zz?sig=1":                    "[redacted]",
		"":                                       "",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

// TestRedact: nothing that can be reached from the error holds the mark, and
// every cause is still found.
func TestRedact(t *testing.T) {
	const u = "https://u:CANARY@h/p?sig=CANARY&x=1"
	inner := &url.Error{Op: "Get", URL: u, Err: &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}}
	_, parse := url.Parse(strings.Replace(u, "/p", "/%zz", 1))
	for name, err := range map[string]error{
		"plain":        inner,
		"wrapped":      fmt.Errorf("get: %w", inner),
		"twice":        fmt.Errorf("a: %w", fmt.Errorf("b: %w", inner)),
		"nested":       &url.Error{Op: "Put", URL: u, Err: inner},
		"joined":       errors.Join(io.ErrUnexpectedEOF, inner),
		"many":         fmt.Errorf("%w and %w", io.ErrUnexpectedEOF, inner),
		"parse":        fmt.Errorf("%w %w", parse, inner),
		"only text":    fmt.Errorf("%w: see %s, or (%s).", inner.Err, u, u),
		"quoted":       fmt.Errorf("%w: invalid proxy address %q", inner.Err, u),
		"bare query":   fmt.Errorf("%w: GET /p?X-Sig=CANARY failed", inner.Err),
		"no scheme":    fmt.Errorf("%w: proxy user:CANARY@h:3128", inner.Err),
		"in permanent": permanent(inner),
	} {
		got := Redact(err)
		noMark(t, name, got)
		if !errors.Is(got, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the cause is lost", name)
		}
		var op *net.OpError
		if !errors.As(got, &op) {
			t.Errorf("%s: the cause's type is lost", name)
		}
		var ue *url.Error
		if errors.As(got, &ue) && strings.Contains(ue.Error()+ue.URL, "CANARY") {
			t.Errorf("%s: the URL can be had back", name)
		}
		var timeout interface{ Timeout() bool }
		if name != "parse" && (!errors.As(got, &timeout) || !timeout.Timeout()) {
			t.Errorf("%s: it is no timeout any more", name)
		}
	}
	clean := fmt.Errorf("open: %w", fs.ErrNotExist)
	if Redact(clean) != clean || Redact(nil) != nil {
		t.Error("a clean error was rewritten")
	}
	sentinel := errors.New("see https://h/p?sig=CANARY")
	if got := Redact(sentinel); !errors.Is(got, sentinel) || strings.Contains(got.Error(), "CANARY") {
		t.Errorf("%v", got)
	}
}

func noMark(t *testing.T, name string, err error) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%q"} {
		if text := fmt.Sprintf(verb, err); strings.Contains(text, "CANARY") {
			t.Errorf("%s: %s", name, text)
		}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if e.Unwrap() != nil {
			noMark(t, name, e.Unwrap())
		}
	case interface{ Unwrap() []error }:
		for _, c := range e.Unwrap() {
			noMark(t, name, c)
		}
	}
}

// FuzzScrub: whatever stands around it, a signed URL in a text loses its
// query and its user.
func FuzzScrub(f *testing.F) {
	f.Add("Get ", ": refused")
	f.Add("see <", ">")
	f.Add(`"`, `"`)
	f.Add("a?b=c ", "&d=e")
	f.Add("http://", "@h")
	f.Add("%", "\x00")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Contains(before+after, "CANARY") {
			return
		}
		for _, u := range []string{"https://h/p?sig=CANARY", "https://u:CANARY@h/p", "/p?a=1&sig=CANARY"} {
			if got := scrub(before + u + after); strings.Contains(got, "CANARY") {
				t.Errorf("%q → %q", before+u+after, got)
			}
		}
	})
}
