package index

import (
	"errors"
	"fmt"
)

// ObjectID says which object, and which version of it, an index is of.
type ObjectID struct {
	ID     string // of the object; "" for a local file
	Size   int64  // bytes as stored
	ETag   string // strong entity tag, quotes and all; "" if unknown
	SHA256 string // of the stored bytes in lower-case hex; "" if unknown
}

// Errors of opening and using an index.
var (
	// ErrDamaged: the index file is not what was written, or was never one.
	// Delete it and build it again.
	ErrDamaged = errors.New("index is damaged")
	// ErrMismatch: the index is of another object, or of another version.
	ErrMismatch = errors.New("index is of another object")
	// ErrCorrupt: the object's bytes are not what they should be: broken
	// compression, or not what the index says of them.
	ErrCorrupt = errors.New("object is corrupt")
)

// Match gives an error that wraps ErrMismatch unless got, which an index was
// made of, can be want. Sizes must be equal (a negative one of want is not
// known); of the other fields those that both know.
func (want ObjectID) Match(got ObjectID) error {
	if want.Size >= 0 && want.Size != got.Size {
		return fmt.Errorf("%w: it has %d bytes, not %d", ErrMismatch, got.Size, want.Size)
	}
	for _, f := range []struct{ what, want, got string }{
		{"object id", want.ID, got.ID}, {"ETag", want.ETag, got.ETag}, {"SHA-256", want.SHA256, got.SHA256},
	} {
		if f.want != "" && f.got != "" && f.want != f.got {
			return fmt.Errorf("%w: its %s is %q, not %q", ErrMismatch, f.what, f.got, f.want)
		}
	}
	return nil
}
