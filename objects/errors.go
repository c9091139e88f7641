package objects

import (
	"errors"
	"fmt"
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
	ErrExpired = errors.New("the download URL has expired or is refused")
	// ErrChanged: the object is another one than at the first request. Bytes
	// of the two are never mixed: open a new Reader and start again.
	ErrChanged = errors.New("object changed while it was being read")
	// ErrChecksum: all bytes arrived and their SHA-256 is not the wanted one.
	ErrChecksum = errors.New("the object's SHA-256 is not the expected one")
	// ErrNoRanges: the server cannot give a part of an object from its middle.
	ErrNoRanges = errors.New("the server does not serve byte ranges")
	// ErrBadID: the text cannot be an object's id.
	ErrBadID = errors.New("not an object id")
)

// APIError is a refusal by the API.
type APIError struct {
	Status  int    // HTTP status
	Code    string // the API's word for it, "" when it gave none
	Message string // the API's sentence, bounded and free of secrets
}

// Error says it in words.
func (e *APIError) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Status) }
