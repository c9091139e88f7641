package store

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"strconv"
	"time"

	"objectmount/objects"
)

// uploadURL signs the URL that takes an object's content. Its end is counted
// from the object's making, so that it is the same however often it is asked.
func (s *Store) uploadURL(r *http.Request, rec record) string {
	u, _ := s.signer.sign(s.baseURL(r), http.MethodPut, rec.ID, time.UnixMilli(rec.CreateTimeMS), s.opts.UploadDuration)
	return u
}

// handleDownloadURL signs a URL that gives an object's content.
func (s *Store) handleDownloadURL(w http.ResponseWriter, r *http.Request, account string) error {
	d := defaultURLFor
	if text := r.URL.Query().Get("duration_seconds"); text != "" {
		secs, err := strconv.ParseInt(text, 10, 64)
		if limit := int64(s.opts.URLMaxDuration / time.Second); err != nil || secs <= 0 || secs > limit {
			return badRequest("duration_seconds must be a whole number from 1 to %d", limit)
		}
		d = time.Duration(secs) * time.Second
	}
	rec, err := s.find(r.Context(), account, r.PathValue("id"))
	if err != nil {
		return err
	}
	switch rec.State {
	case objects.StateReadOnly:
	case objects.StateDeleted:
		return refuse(http.StatusBadRequest, "object_deleted", "object %s is deleted", rec.ID)
	default:
		return refuse(http.StatusBadRequest, "object_not_ready", "object %s has not been uploaded and completed; its state is %s", rec.ID, rec.State)
	}
	signed, expires := s.signer.sign(s.baseURL(r), http.MethodGet, rec.ID, s.now(), min(d, s.opts.URLMaxDuration))
	writeJSON(w, http.StatusOK, struct {
		DownloadURL string `json:"download_url"`
		ExpiresAtMS int64  `json:"expires_at_ms"`
	}{signed, expires.UnixMilli()})
	return nil
}

// handleContent answers signed URLs. The signature is the permission: there
// is no account here.
func (s *Store) handleContent(w http.ResponseWriter, r *http.Request) {
	methods := map[string]func(http.ResponseWriter, *http.Request, string) error{
		http.MethodPut: s.upload, http.MethodGet: s.download, http.MethodHead: s.download,
	}
	id := r.PathValue("id")
	h, ok := methods[r.Method]
	if !ok {
		s.writeError(w, r, notAllowed(w, methods))
		return
	}
	err := s.signer.verify(r.URL.RawQuery, r.Method, id, s.now())
	if err == nil {
		err = h(w, r, id)
	}
	if err != nil {
		if r.Method == http.MethodPut && r.ProtoMajor == 1 {
			// Else net/http would first wait for some of the unwanted body.
			w.Header().Set("Connection", "close")
		}
		s.writeError(w, r, err)
	}
}

// upload takes an object's content: the whole body, with Content-Length or
// chunked, as it comes. All that can be refused is refused before the body is
// read, so that a client which asked with Expect: 100-continue sends none.
func (s *Store) upload(w http.ResponseWriter, r *http.Request, id string) (err error) {
	defer s.flights.begin(id)()
	rec, err := s.findAny(r.Context(), id)
	if err != nil {
		return err
	}
	if rec.State != objects.StateUploading {
		return notUploading(rec)
	}
	if r.Header.Get("Content-Range") != "" {
		return badRequest("an upload is the whole content: Content-Range cannot be taken")
	}
	limit := s.opts.MaxObjectSize
	if limit > 0 && r.ContentLength > limit {
		return tooLarge(limit)
	}
	defer func() {
		if err != nil {
			s.stats.uploadsFailed.Add(1)
		}
	}()
	body := &steadyBody{r: r.Body, rc: http.NewResponseController(w), idle: s.opts.IdleTimeout, limit: limit, count: &s.stats.bytesIn}
	file, size, err := s.content.receive(id, body)
	if err == nil && r.ContentLength >= 0 && size != r.ContentLength {
		s.remove(file) // net/http sees to this; if it did not, half an object would look whole
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return uploadError(err)
	}
	if err := s.attach(r.Context(), id, file, size); err != nil {
		s.remove(file)
		return err
	}
	s.stats.uploads.Add(1)
	rec.file = file
	w.Header().Set("Etag", rec.etag())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusOK)
	return nil
}

func tooLarge(limit int64) *refusal {
	return refuse(http.StatusRequestEntityTooLarge, "too_large", "an object may have at most %d bytes on this server", limit)
}

// uploadError tells a client's failure to send from ours to store.
func uploadError(err error) error {
	var r *refusal
	var read *readError
	switch {
	case errors.As(err, &r) || !errors.As(err, &read):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refuse(http.StatusRequestTimeout, "upload_stalled", "no byte of the upload came for too long")
	default:
		return badRequest("the upload broke off: %v", unexpected(read.err))
	}
}

// unexpected hides what a network error says of addresses.
func unexpected(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "the connection ended before the body did"
	}
	return "the body could not be read"
}

// download gives an object's content, or ranges of it: http.ServeContent
// knows Range, If-Range, If-Match and their kin. The bytes are given as they
// are stored; the public clients would decode any Content-Encoding.
func (s *Store) download(w http.ResponseWriter, r *http.Request, id string) error {
	rec, err := s.findAny(r.Context(), id)
	if err != nil {
		return err
	}
	if rec.State != objects.StateReadOnly {
		return refuse(http.StatusNotFound, "not_found", "object %s has no content, its state is %s", id, rec.State)
	}
	f, err := s.content.open(rec.file)
	if errors.Is(err, fs.ErrNotExist) {
		// Deleted since we looked, or a file lost by another's hand.
		if now, err := s.findAny(r.Context(), id); err == nil && now.State != objects.StateReadOnly {
			return refuse(http.StatusNotFound, "not_found", "object %s has no content, its state is %s", id, now.State)
		}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return err
	} else if fi.Size() != rec.size {
		return errors.New("content of " + id + " is damaged: its file has another size than was uploaded")
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Disposition", attachment(rec.Name))
	h.Set("Cache-Control", "private, no-transform")
	h.Set("Etag", rec.etag())
	out := &rangeRefusals{ResponseWriter: w, s: s, r: r}
	http.ServeContent(out, r, "", rec.uploaded, f)
	return nil
}

// attachment has a browser save the object, whatever is in it, by its name.
func attachment(name string) string {
	if v := mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(name)}); v != "" {
		return v
	}
	return "attachment"
}

// rangeRefusals makes http.ServeContent's plain 416 a refusal like any other.
type rangeRefusals struct {
	http.ResponseWriter
	s       *Store
	r       *http.Request
	refused bool
}

func (w *rangeRefusals) WriteHeader(status int) {
	if status == http.StatusRequestedRangeNotSatisfiable {
		w.refused = true
		w.s.writeError(w.ResponseWriter, w.r, refuse(status, "range_not_satisfiable", "the object does not have the range that was asked for"))
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *rangeRefusals) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil // the plain text
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps the way to answer.ReadFrom open.
func (w *rangeRefusals) ReadFrom(src io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, src) }
