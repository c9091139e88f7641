package objects

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// redacted stands wherever a secret would have been printed.
const redacted = "[redacted]"

// Secret is an API key, or a URL whose query is as good as a key. Whatever
// way it is printed, logged or encoded it gives "[redacted]"; only Reveal
// gives the value, so that a search for Reveal finds every place where a
// secret leaves the program.
type Secret string

// Reveal gives the value itself.
func (s Secret) Reveal() string { return string(s) }

// String gives "[redacted]".
func (Secret) String() string { return redacted }

// GoString gives "[redacted]".
func (Secret) GoString() string { return redacted }

// Format gives "[redacted]" for every verb, %x and %d among them.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue gives "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON gives "[redacted]": a secret is never written to a file.
func (Secret) MarshalJSON() ([]byte, error) { return json.Marshal(redacted) }

// MarshalText gives "[redacted]".
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalJSON takes the value as it is: secrets may be read, not written.
func (s *Secret) UnmarshalJSON(b []byte) error { return json.Unmarshal(b, (*string)(s)) }
