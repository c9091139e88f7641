package faulttest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

var quiet = log.New(io.Discard, "", 0)

// misbehave gives the answer with one fault in it.
func (s *Server) misbehave(w http.ResponseWriter, r *http.Request, o Object, f Fault) {
	a := honest(r, o, false)
	at := int(min(f.At, int64(len(a.body))))
	if f.At < 0 {
		at = len(a.body) / 2
	}
	switch f.Kind {
	case None:
	case ResetBeforeHeaders, ResetMidBody, ShortBody, CloseDelimited, CloseDelimited206, StallHeaders, StallBody, Drip, NotHTTP:
		s.cut(w, r, o, a, f, at)
		return
	case HugeHeaders:
		for i := range 128 {
			a.header.Set("X-Huge-"+strconv.Itoa(i), strings.Repeat("h", 1024))
		}
	case Interim:
		n := f.At
		if n < 0 {
			n = 100
		}
		for range n {
			w.WriteHeader(http.StatusEarlyHints)
		}
	case Unauthorized, Forbidden, ExpiredToken, TimeSkewed:
		s.revoke(r, f.Kind)
		s.refuse(w, r, f.Kind)
		return
	case Replaced, ReplacedSameSize, ReplacedUnseen:
		o = another(o, f.Kind)
		s.Replace(o)
		a = honest(r, o, f.Kind == ReplacedUnseen)
	case ExtraBytes, NoLength:
		if f.Kind == NoLength {
			a = whole(a, o)
		} else {
			a.body = append(slices.Clone(a.body), "more"...)
		}
		for k, v := range a.header {
			w.Header()[k] = v
		}
		w.WriteHeader(a.status)
		w.(http.Flusher).Flush() // before all is written: so it is chunked
		w.Write(a.body)
		return
	default:
		a = s.alter(a, r, o, f, at)
	}
	a.send(w)
}

// another is an object that is not o.
func another(o Object, kind Kind) Object {
	n := Object{Data: slices.Clone(o.Data), ETag: `"not ` + strings.Trim(o.ETag, `"`) + `"`, Modified: o.Modified.Add(time.Hour)}
	if o.Modified.IsZero() {
		n.Modified = time.Time{}
	}
	for i := range n.Data {
		n.Data[i]++
	}
	if kind == Replaced {
		n.Data = append(n.Data, "longer"...)
	}
	return n
}

// whole is the answer of a server that knows no ranges.
func whole(a answer, o Object) answer {
	a.status, a.body = http.StatusOK, o.Data
	a.header.Del("Content-Range")
	return a
}

// page is an answer of somebody who is not the storage service.
func page(status int, contentType, body string) answer {
	return answer{status, http.Header{"Content-Type": {contentType}}, []byte(body)}
}

// alter changes the right answer a into the one of fault f.
func (s *Server) alter(a answer, r *http.Request, o Object, f Fault, at int) answer {
	size := int64(len(o.Data))
	first, end, _ := parseRange(r.Header.Get("Range"), size)
	switch f.Kind {
	case IgnoreRange:
		return whole(a, o)
	case WrongRange:
		if end < size {
			first, end = first+1, end+1
		} else if first > 0 {
			first, end = first-1, end-1
		} else {
			end--
			a.body = a.body[:max(end, 0)]
			a.part(first+1, end+1, size)
			return a
		}
		a.part(first, end, size)
		a.body = o.Data[first:end]
	case OtherTotal:
		a.part(first, end, size+1)
	case UnknownTotal:
		a.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", first, end-1))
	case ShortRange:
		n := min(max(at, 1), len(a.body))
		a.part(first, first+int64(n), size)
		a.body = a.body[:n]
	case Unsatisfiable:
		a.status, a.body = http.StatusRequestedRangeNotSatisfiable, nil
		a.header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	case MultiRange:
		a.header.Set("Content-Type", "multipart/byteranges; boundary=b")
		a.header.Del("Content-Range")
	case TooMany:
		a = page(http.StatusTooManyRequests, "application/json", `{"code":"rate_limited","message":"slower, please"}`)
		retryAfter(a.header, f.Wait)
	case Unavailable:
		a = page(http.StatusServiceUnavailable, "application/xml", "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>")
		retryAfter(a.header, f.Wait)
	case InternalError:
		a = page(http.StatusInternalServerError, "text/plain", "oops: "+r.URL.RequestURI())
	case BadGateway:
		a = page(http.StatusBadGateway, "text/html", "<html><head><title>502 Bad Gateway</title></head></html>")
	case Timeout:
		a = page(http.StatusGatewayTimeout, "text/plain", "")
	case NotFound:
		a = page(http.StatusNotFound, "application/xml", "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>")
	case NotModified:
		a.status, a.body = http.StatusNotModified, nil
	case WeakETag:
		if o.ETag != "" {
			a.header.Set("ETag", "W/"+o.ETag)
		}
	case NoETag:
		a.header.Del("ETag")
	case NoValidator:
		a.header.Del("ETag")
		a.header.Del("Last-Modified")
	case BitFlip:
		a.body = slices.Clone(a.body)
		if at < len(a.body) {
			a.body[at] ^= 0x10
		}
	case Gzip:
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(a.body)
		z.Close()
		a.body = b.Bytes()
		a.header.Set("Content-Encoding", "gzip")
	case Redirect:
		a = page(http.StatusFound, "text/plain", "")
		a.header.Set("Location", "/redirected/object?secret="+Mark)
	case RedirectLoop:
		a = page(http.StatusFound, "text/plain", "")
		a.header.Set("Location", r.URL.RequestURI())
		s.again(f)
	case RedirectElsewhere, RedirectDowngrade:
		a = page(http.StatusTemporaryRedirect, "text/plain", "")
		a.header.Set("Location", s.other.URL+"/elsewhere/object?secret="+Mark)
	case CaptivePortal:
		a = page(http.StatusOK, "text/html", "<html><head><title>Welcome to Hotel Wifi</title></head><body>Log in</body></html>")
	case XMLError200:
		a = page(http.StatusOK, "application/xml", "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>")
	case Empty200:
		a = page(http.StatusOK, "application/octet-stream", "")
	default:
		panic("faulttest: no such fault: " + f.Kind)
	}
	return a
}

// retryAfter says how long to wait: in the standard header where whole seconds
// will do, else in the API's own.
func retryAfter(h http.Header, d time.Duration) {
	if d%time.Second == 0 {
		h.Set("Retry-After", strconv.Itoa(int(d/time.Second)))
	} else {
		h.Set("Retry-After-Ms", strconv.FormatInt(d.Milliseconds(), 10))
	}
}

// again makes the next request meet the same fault.
func (s *Server) again(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, old := s.n, s.opts.Schedule
	s.opts.Schedule = func(n int) Fault {
		if n == next {
			return f
		}
		return old(n)
	}
}

// cut takes the connection away from net/http and breaks it.
func (s *Server) cut(w http.ResponseWriter, r *http.Request, o Object, a answer, f Fault, at int) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	head := func(length bool) {
		fmt.Fprintf(rw, "HTTP/1.1 %d %s\r\nDate: %s\r\n", a.status, http.StatusText(a.status), time.Now().UTC().Format(http.TimeFormat))
		a.header.Write(rw)
		if length {
			fmt.Fprintf(rw, "Content-Length: %d\r\n", len(a.body))
		} else {
			fmt.Fprint(rw, "Connection: close\r\n")
		}
		fmt.Fprint(rw, "\r\n")
	}
	some := func() { rw.Write(a.body[:at]); rw.Flush() }
	switch f.Kind {
	case ResetBeforeHeaders:
		reset(conn)
	case ResetMidBody:
		head(true)
		some()
		reset(conn)
	case ShortBody:
		head(true)
		some()
	case CloseDelimited:
		a = whole(a, o)
		head(false)
		some()
	case CloseDelimited206:
		head(false)
		some()
	case StallHeaders:
		s.stall(conn, rw)
	case StallBody:
		head(true)
		some()
		s.stall(conn, rw)
	case Drip:
		head(true)
		for i, b := range a.body {
			if i == at {
				rw.Write(a.body[i:])
				rw.Flush()
				return
			}
			rw.WriteByte(b)
			if rw.Flush() != nil {
				return
			}
			select {
			case <-s.done:
				return
			case <-time.After(f.Wait):
			}
		}
	case NotHTTP:
		io.WriteString(rw, "SSH-2.0-OpenSSH_9.2\r\n")
		rw.Flush()
	}
}

// reset makes the close a RST: what is still in flight is lost.
func reset(conn net.Conn) {
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
}

// stall sends nothing until the client or the test has had enough.
func (s *Server) stall(conn net.Conn, rw *bufio.ReadWriter) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, rw)
	}()
	select {
	case <-gone:
	case <-s.done:
		conn.Close()
		<-gone
	}
}
