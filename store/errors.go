package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"go.uber.org/zap"

	"objectmount/objects"
)

// refusal is an answer that is no success. Its text is meant for the person
// who called and holds nothing of the server's inside.
type refusal struct {
	status        int
	code, message string
}

func (e *refusal) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, format string, args ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *refusal {
	return refuse(http.StatusBadRequest, "invalid_request", format, args...)
}

func noSuchObject(id string) *refusal {
	if !validID(id) {
		return refuse(http.StatusNotFound, "not_found", "that is not an object id: one is obj_ and 21 letters and digits")
	}
	return refuse(http.StatusNotFound, "not_found", "there is no object %s", id)
}

// asRefusal finds what to answer to an error. An error without a refusal is a
// fault of this server: the log gets it, the caller does not.
func asRefusal(err error) *refusal {
	var r *refusal
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &r):
		return r
	case errors.As(err, &tooLong):
		return refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than %d bytes", tooLong.Limit)
	case errors.Is(err, errNoSpace), isFull(err):
		return refuse(http.StatusInsufficientStorage, "no_space", "the server has no space left: delete objects or give it more disk")
	default:
		return refuse(http.StatusInternalServerError, "internal", "the server failed; its log says why")
	}
}

// writeError answers with err.
func (s *Store) writeError(w http.ResponseWriter, r *http.Request, err error) {
	// Before an answer, net/http reads some of a body that is left unread.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(min(bodyTimeout, s.opts.IdleTimeout/2)))
	e := asRefusal(err)
	if e.status >= 500 && r.Context().Err() == nil && !errors.Is(err, context.Canceled) {
		s.log.Error("request failed", zap.String("method", r.Method), zap.String("path", shownPath(r)), zap.Error(err))
	}
	h := w.Header()
	for _, name := range []string{"Content-Disposition", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name) // meant for the content that is not coming
	}
	switch e.status {
	case http.StatusConflict:
		// The public clients retry every 409 for half a minute. None of
		// ours goes away by itself.
		h.Set("X-Should-Retry", "false")
	case http.StatusInsufficientStorage:
		h.Set("X-Should-Retry", "false")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="storage objects"`)
	}
	writeJSON(w, e.status, objects.ErrorBody{Code: e.code, Message: e.message})
}

// writeJSON answers with v. What cannot be written any more is lost with the
// connection.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := encode(v)
	if err != nil {
		panic(err) // our own types always encode
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store") // answers hold signed URLs
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// encode is JSON as people can read it: & of a URL stays &.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}
