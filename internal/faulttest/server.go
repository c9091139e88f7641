package faulttest

import (
	"crypto/rand"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Mark is in every secret that the server hands out. A text of the client
// that holds it has leaked.
const Mark = "CANARY7f3a"

// Object is what the server has to give.
type Object struct {
	Data     []byte
	ETag     string    // with its quotes; "" = none
	Modified time.Time // zero = none; whole seconds
}

// Options of a Server.
type Options struct {
	Object   Object
	Schedule Schedule      // nil = no faults
	TLS      bool          // serve https; see Server.Transport
	Life     time.Duration // of a signed URL; 0 = for ever
	Line     Line          // how far away the server is
}

// Request is one entry of the log.
type Request struct {
	N         int  // number among those that the schedule decided on; -1: after a redirect
	Elsewhere bool // it went to the other host
	Method    string
	Header    http.Header
	Fault     Fault
}

// Server misbehaves by schedule. It is safe for concurrent use.
type Server struct {
	opts  Options
	main  *httptest.Server
	other *httptest.Server // where RedirectElsewhere leads, plain http
	done  chan struct{}    // closed by Close, which ends all stalls

	mu     sync.Mutex // guards what follows
	object Object
	past   []Object // what it was before
	n      int
	log    []Request
	signed map[string]time.Time // until when; of refused ones: long ago
	why    map[string]Kind      // of refused ones
}

// New starts a server on a free port of the loopback.
func New(opts Options) *Server {
	if opts.Schedule == nil {
		opts.Schedule = Script()
	}
	s := &Server{opts: opts, object: opts.Object, done: make(chan struct{}),
		signed: map[string]time.Time{}, why: map[string]Kind{}}
	s.main = httptest.NewUnstartedServer(opts.Line.Handler(http.HandlerFunc(s.serve)))
	s.main.Listener = opts.Line.Listener(s.main.Listener)
	s.main.Config.ErrorLog = quiet
	if opts.TLS {
		s.main.StartTLS()
	} else {
		s.main.Start()
	}
	s.other = httptest.NewServer(http.HandlerFunc(s.serveElsewhere))
	s.other.Config.ErrorLog = quiet
	return s
}

// Close ends all connections, the stalled ones too, and waits for them.
func (s *Server) Close() {
	close(s.done)
	for _, server := range []*httptest.Server{s.main, s.other} {
		closed := make(chan struct{})
		go func() { server.Close(); close(closed) }()
		for ended := false; !ended; {
			// Again and again: a connection may just have been made, and its
			// client may not read what it is sent.
			server.CloseClientConnections()
			select {
			case <-closed:
				ended = true
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// Transport trusts the server's certificate. Nobody else does.
func (s *Server) Transport() *http.Transport {
	return s.main.Client().Transport.(*http.Transport).Clone()
}

// Sign gives a new URL of the object, which holds Mark in its query.
func (s *Server) Sign() string {
	sig := Mark + rand.Text()
	until := time.Now().Add(24 * time.Hour)
	if s.opts.Life > 0 {
		until = time.Now().Add(s.opts.Life)
	}
	s.mu.Lock()
	s.signed[sig] = until
	s.mu.Unlock()
	return s.main.URL + "/bucket/object?" + url.Values{"X-Test-Signature": {sig}}.Encode()
}

// Signed is how many URLs have been handed out.
func (s *Server) Signed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.signed)
}

// Replace makes the server have another object from now on.
func (s *Server) Replace(o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = append(s.past, s.object)
	s.object = o
}

// Versions gives every object that the server has had, the present one last.
func (s *Server) Versions() iter.Seq[Object] {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Values(append(slices.Clone(s.past), s.object))
}

// Requests is the log so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.log...)
}

// Faults are those met so far, in order, for a failing test to print.
func (s *Server) Faults() string {
	var b strings.Builder
	for _, r := range s.Requests() {
		fmt.Fprintf(&b, " %d:%s", r.N, r.Fault)
	}
	return b.String()
}

// serve answers a request to the signed URL, or to a path that a redirect of
// ours led to (which the schedule has decided on before).
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	sig := r.URL.Query().Get("X-Test-Signature")
	redirected := strings.HasPrefix(r.URL.Path, "/redirected/")

	s.mu.Lock()
	entry := Request{N: -1, Method: r.Method, Header: r.Header.Clone(), Fault: Fault{Kind: None}}
	if !redirected {
		entry.N = s.n
		entry.Fault = s.opts.Schedule(s.n)
		s.n++
	}
	s.log = append(s.log, entry)
	until, known := s.signed[sig]
	why := s.why[sig]
	object := s.object
	s.mu.Unlock()

	switch {
	case r.Method != http.MethodGet: // a URL signed for GET is for GET
		s.refuse(w, r, Forbidden)
	case !known && !redirected:
		s.refuse(w, r, Forbidden)
	case why != "":
		s.refuse(w, r, why)
	case known && time.Now().After(until):
		s.refuse(w, r, Forbidden)
	default:
		s.misbehave(w, r, object, entry.Fault)
	}
}

// serveElsewhere is the other host: it has the object, asks for no signature
// and honours no precondition.
func (s *Server) serveElsewhere(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.log = append(s.log, Request{N: -1, Elsewhere: true, Method: r.Method, Header: r.Header.Clone(), Fault: Fault{Kind: None}})
	object := s.object
	s.mu.Unlock()
	honest(r, object, true).send(w)
}

// revoke makes a URL be refused from now on.
func (s *Server) revoke(r *http.Request, why Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.why[r.URL.Query().Get("X-Test-Signature")] = why
}

// refuse words a refusal as storage services do, who echo what they were sent.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, why Kind) {
	w.Header().Set("Content-Type", "application/xml")
	status, code, message := http.StatusForbidden, "AccessDenied", "Request has expired"
	switch why {
	case Unauthorized:
		status, code, message = http.StatusUnauthorized, "Unauthorized", "no"
	case ExpiredToken:
		status, code, message = http.StatusBadRequest, "ExpiredToken", "The provided token has expired."
	case TimeSkewed:
		status, code, message = http.StatusBadRequest, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\"?>\n<Error><Code>%s</Code><Message>%s</Message><AWSAccessKeyId>%s</AWSAccessKeyId><StringToSign>GET %s</StringToSign></Error>",
		code, message, Mark, strings.ReplaceAll(r.URL.RequestURI(), "&", "&amp;"))
}

// answer is a whole answer, before anything is done to it.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// send sends it as it is.
func (a answer) send(w http.ResponseWriter) {
	for k, v := range a.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// honest is the right answer to a request. Preconditions are honoured unless
// blind.
func honest(r *http.Request, o Object, blind bool) answer {
	a := answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/octet-stream"}}, body: o.Data}
	if o.ETag != "" {
		a.header.Set("ETag", o.ETag)
	}
	modified := ""
	if !o.Modified.IsZero() {
		modified = o.Modified.UTC().Format(http.TimeFormat)
		a.header.Set("Last-Modified", modified)
	}
	a.header.Set("Accept-Ranges", "bytes")
	if m := r.Header.Get("If-Match"); m != "" && m != o.ETag && !blind {
		return answer{status: http.StatusPreconditionFailed, header: http.Header{}}
	}
	if m := r.Header.Get("If-Unmodified-Since"); m != "" && m != modified && !blind {
		return answer{status: http.StatusPreconditionFailed, header: http.Header{}}
	}
	if raw := r.Header.Get("Range"); raw != "" {
		first, end, ok := parseRange(raw, int64(len(o.Data)))
		if !ok {
			a.status, a.body = http.StatusRequestedRangeNotSatisfiable, nil
			a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", len(o.Data)))
			return a
		}
		a.part(first, end, int64(len(o.Data)))
		a.body = o.Data[first:end]
	}
	return a
}

// part makes a 206 of an answer, without its body.
func (a *answer) part(first, end, size int64) {
	a.status = http.StatusPartialContent
	a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, size))
}

// parseRange reads "bytes=a-b" or "bytes=a-" as [first, end).
func parseRange(raw string, size int64) (first, end int64, ok bool) {
	from, to, found := strings.Cut(strings.TrimPrefix(raw, "bytes="), "-")
	first, err := strconv.ParseInt(from, 10, 64)
	if !found || err != nil || first < 0 || first >= size {
		return 0, 0, false
	}
	end = size
	if to != "" {
		last, err := strconv.ParseInt(to, 10, 64)
		if err != nil || last < first {
			return 0, 0, false
		}
		end = min(size, last+1)
	}
	return first, end, true
}

// SetSchedule replaces the schedule for the requests to come.
func (s *Server) SetSchedule(next Schedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts.Schedule = next
}

// Revoke makes every URL signed so far be refused from now on.
func (s *Server) Revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sig := range s.signed {
		s.why[sig] = Forbidden
	}
}
