package store

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"objectmount/objects"
)

const (
	maxCreateBody = 1 << 20          // bytes; far above what the limits below allow
	maxOtherBody  = 64 << 10         // bytes of a body that means nothing
	bodyTimeout   = 30 * time.Second // for such a body as a whole

	maxName       = 1024              // bytes
	maxMetadata   = 64                // pairs
	maxMetaKey    = 256               // bytes
	maxMetaValue  = 4096              // bytes
	maxMetaTotal  = 16 << 10          // bytes of keys and values together
	maxTTL        = 3_155_760_000_000 // milliseconds, 100 years
	defaultURLFor = time.Hour
)

// view is an object as an answer shows it. upload_url is for create alone,
// in the clear, where objects.Object would redact it.
type view struct {
	objects.Object
	UploadURL string `json:"upload_url,omitempty"`
}

// handler is an http.Handler for callers with an account, whose errors are
// answered by writeError.
type handler func(w http.ResponseWriter, r *http.Request, account string) error

// routes is the table of calls.
func (s *Store) routes() http.Handler {
	mux := http.NewServeMux()
	type methods map[string]handler
	for path, m := range map[string]methods{
		"/v1/objects":                            {"GET": s.handleList, "POST": s.handleCreate},
		"/v1/objects/list_public":                {"GET": s.handleListPublic},
		"/v1/objects/metadata/keys":              {"GET": s.handleKeys},
		"/v1/objects/metadata/keys/{key}/values": {"GET": s.handleValues},
		"/v1/objects/{id}":                       {"GET": s.handleGet},
		"/v1/objects/{id}/complete":              {"POST": s.handleComplete},
		"/v1/objects/{id}/delete":                {"POST": s.handleDelete},
		"/v1/objects/{id}/download":              {"GET": s.handleDownloadURL},
	} {
		mux.HandleFunc(path, s.call(m))
	}
	mux.HandleFunc(contentPath+"{id}", s.handleContent)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.writeError(w, r, refuse(http.StatusNotFound, "not_found", "there is no such call"))
	})
	return s.logged(mux)
}

// call makes handlers of one path, by method, a handler of net/http.
func (s *Store) call(methods map[string]handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h, ok := methods[method]
		if !ok {
			s.writeError(w, r, notAllowed(w, methods))
			return
		}
		account, err := s.keys.account(r)
		if err == nil {
			noteAccount(r, account)
			err = h(w, r, account)
		}
		if err != nil {
			s.writeError(w, r, err)
		}
	}
}

func notAllowed[T any](w http.ResponseWriter, methods map[string]T) error {
	var names []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut} {
		_, ok := methods[m]
		if _, get := methods[http.MethodGet]; ok || get && m == http.MethodHead {
			names = append(names, m)
		}
	}
	allow := strings.Join(names, ", ")
	w.Header().Set("Allow", allow)
	return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "this path takes %s", allow)
}

func (s *Store) handleCreate(w http.ResponseWriter, r *http.Request, account string) error {
	body, err := readBody(w, r, maxCreateBody)
	if err != nil {
		return err
	}
	req, err := parseCreate(body)
	if err != nil {
		return err
	}
	if body, err = json.Marshal(req); err != nil { // spelling does not make it another call
		return err
	}
	rec, err := s.create(r.Context(), call{account: account, op: "create", requestID: r.Header.Get("X-Request-Id"), body: body}, req)
	if err != nil {
		return err
	}
	v := view{Object: rec.Object}
	if rec.State == objects.StateUploading {
		v.UploadURL = s.uploadURL(r, rec)
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// parseCreate reads and checks a create body.
func parseCreate(body []byte) (objects.CreateRequest, error) {
	var req objects.CreateRequest
	if err := json.Unmarshal(body, &req); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) && typ.Field != "" {
			return req, badRequest("%s cannot be a JSON %s", typ.Field, typ.Value)
		}
		return req, badRequest("the body is not a JSON object with name and content_type")
	}
	switch {
	case req.Name == "":
		return req, badRequest("name is required")
	case len(req.Name) > maxName || strings.IndexFunc(req.Name, unicode.IsControl) >= 0:
		return req, badRequest("name must be at most %d bytes and without control characters", maxName)
	case !req.ContentType.Valid():
		return req, badRequest("content_type is required, one of unspecified, text, binary, gzip, tar, tgz")
	case req.TTLMS != nil && (*req.TTLMS <= 0 || *req.TTLMS > maxTTL):
		return req, badRequest("ttl_ms must be more than 0 and at most 100 years")
	case len(req.Metadata) > maxMetadata:
		return req, badRequest("metadata has %d pairs; at most %d are possible", len(req.Metadata), maxMetadata)
	}
	total := 0
	for k, v := range req.Metadata {
		if err := checkMetaKey(k); err != nil {
			return req, err
		}
		if len(v) > maxMetaValue || strings.ContainsRune(v, 0) {
			return req, badRequest("a metadata value must be text of at most %d bytes", maxMetaValue)
		}
		total += len(k) + len(v)
	}
	if total > maxMetaTotal {
		return req, badRequest("metadata has %d bytes; at most %d are possible", total, maxMetaTotal)
	}
	return req, nil
}

func checkMetaKey(k string) error {
	if k == "" || len(k) > maxMetaKey || !utf8.ValidString(k) || strings.IndexFunc(k, unicode.IsControl) >= 0 {
		return badRequest("a metadata key must be 1 to %d bytes of text without control characters", maxMetaKey)
	}
	return nil
}

func (s *Store) handleGet(w http.ResponseWriter, r *http.Request, account string) error {
	rec, err := s.find(r.Context(), account, r.PathValue("id"))
	if err == nil {
		writeJSON(w, http.StatusOK, view{Object: rec.Object})
	}
	return err
}

func (s *Store) handleComplete(w http.ResponseWriter, r *http.Request, account string) error {
	if _, err := readBody(w, r, maxOtherBody); err != nil {
		return err
	}
	rec, err := s.complete(r.Context(), call{account: account, op: "complete", target: r.PathValue("id"), requestID: r.Header.Get("X-Request-Id")})
	if err == nil {
		writeJSON(w, http.StatusOK, view{Object: rec.Object})
	}
	return err
}

func (s *Store) handleDelete(w http.ResponseWriter, r *http.Request, account string) error {
	if _, err := readBody(w, r, maxOtherBody); err != nil {
		return err
	}
	rec, err := s.delete(r.Context(), call{account: account, op: "delete", target: r.PathValue("id"), requestID: r.Header.Get("X-Request-Id")})
	if err == nil {
		writeJSON(w, http.StatusOK, view{Object: rec.Object})
	}
	return err
}

func (s *Store) handleList(w http.ResponseWriter, r *http.Request, account string) error {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		return err
	}
	return s.writeList(w, r, account, f)
}

func (s *Store) handleListPublic(w http.ResponseWriter, r *http.Request, account string) error {
	f, err := parseFilter(r.URL.Query())
	if err != nil {
		return err
	}
	f.everyAccounts, f.public = true, nil
	return s.writeList(w, r, account, f)
}

func (s *Store) writeList(w http.ResponseWriter, r *http.Request, account string, f filter) error {
	page, err := s.list(r.Context(), account, f)
	if err == nil {
		writeJSON(w, http.StatusOK, page)
	}
	return err
}

func (s *Store) handleKeys(w http.ResponseWriter, r *http.Request, account string) error {
	keys, err := s.texts(r.Context(), metadataKeys, account, maxMetaKeys)
	if err == nil {
		writeJSON(w, http.StatusOK, map[string]any{"keys": keys})
	}
	return err
}

func (s *Store) handleValues(w http.ResponseWriter, r *http.Request, account string) error {
	key := r.PathValue("key")
	if err := checkMetaKey(key); err != nil {
		return err
	}
	values, err := s.texts(r.Context(), metadataValues, account, maxMetaKeys, key)
	if err == nil {
		writeJSON(w, http.StatusOK, map[string]any{"key": key, "values": values})
	}
	return err
}

// readBody reads a body of at most limit bytes; a longer one is 413. One that
// says its length is refused before it is sent.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every Handler's server can
	defer func() { _ = rc.SetReadDeadline(time.Time{}) }()
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLong) {
		return nil, badRequest("the body broke off")
	}
	return b, err
}

// baseURL is where signed URLs begin: PublicURL, or the host by which the
// request came. A client that lies about its host misleads only itself.
func (s *Store) baseURL(r *http.Request) *url.URL {
	if s.base != nil {
		return s.base
	}
	u := &url.URL{Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	if u.Host == "" { // HTTP/1.0
		if addr, ok := r.Context().Value(http.LocalAddrContextKey).(interface{ String() string }); ok {
			u.Host = addr.String()
		}
	}
	return u
}
