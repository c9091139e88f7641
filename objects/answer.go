package objects

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Identity says which bytes an object has: two readings with the same
// Identity read the same bytes. It is comparable and goes into state files.
type Identity struct {
	ETag         string `json:"etag,omitempty"`          // a strong ETag with its quotes; "" = none
	LastModified string `json:"last_modified,omitempty"` // as the server wrote it; "" = none
	Size         int64  `json:"size"`                    // bytes
}

// Proven says whether the identity has a validator, so that an answer of
// today can be told from one of another version.
func (id Identity) Proven() bool { return id.ETag != "" || id.LastModified != "" }

// identityOf reads the validators of an answer. A weak ETag promises the same
// meaning, not the same bytes: it counts as none.
func identityOf(h http.Header, size int64) Identity {
	id := Identity{Size: size}
	if e := h.Get("ETag"); len(e) > 2 && e[0] == '"' && strings.IndexByte(e[1:], '"') == len(e)-2 {
		id.ETag = e
	}
	if m := h.Get("Last-Modified"); m != "" {
		if _, err := http.ParseTime(m); err == nil {
			id.LastModified = m
		}
	}
	return id
}

// maxDiscard is how much of an object is read and thrown away to reach a
// range that the server does not give by itself.
const maxDiscard = 1 << 20

// ask is what one request wants: bytes [off, end), of the pinned object when
// there is one already.
type ask struct {
	off, end int64
	pinned   *Identity // nil: the first request, which finds out
	size     *int64    // the size the object must have; nil: not known before
	hashed   bool      // a SHA-256 is known, so wrong bytes will be found out
	whole    bool      // ask without a Range, after a 416 to the first request
	opening  bool      // it is the opening request of a Reader; see pin
	ranged   bool      // the server has been seen to serve ranges
	sent     func()    // called when the request goes out; may be nil
}

// header is what a request for this says besides its URL. Only own headers
// that hold for the host the URL names; see link.get.
func (a ask) header() http.Header {
	h := http.Header{"Accept-Encoding": {"identity"}}
	if !a.whole {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", a.off, a.end-1))
	}
	if a.pinned == nil {
		return h
	}
	if a.pinned.ETag != "" {
		h.Set("If-Match", a.pinned.ETag)
	} else if a.pinned.LastModified != "" {
		h.Set("If-Unmodified-Since", a.pinned.LastModified)
	}
	return h
}

// grant is what an answer brings, if its body keeps what its head says.
type grant struct {
	id   Identity
	skip int64 // bytes in front to discard
	n    int64 // bytes after them, for [off, off+n)
	sure bool  // the server serves ranges
}

// judge holds the head of a 200 or 206 against what was asked for. This is
// the place where bytes of the wrong object, version or range are kept out:
//
//	206  Content-Range must begin at off, end within the range asked for and
//	     name the size; a shorter one than asked for is fine
//	200  the server ignores ranges: the size must be right, and off within
//	     reach by discarding
//	both the validators must be those pinned
func (a ask) judge(status int, h http.Header, length int64) (grant, error) {
	if enc := h.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return grant{}, garbledf("the answer is encoded (Content-Encoding %q) though identity was asked for: its bytes are not the object's", shown(enc, nil))
	}
	if status == http.StatusPartialContent {
		return a.judgePart(h, length)
	}
	if length < 0 {
		return grant{}, garbledf("the answer does not say how long it is (no Content-Length): a cut could not be told from the end")
	}
	id := identityOf(h, length)
	if err := a.identify(id, true); err != nil {
		return grant{}, err
	}
	if a.off > maxDiscard {
		err := fmt.Errorf("%w: bytes from %d on were asked for and it sends the whole object", ErrNoRanges, a.off)
		if a.ranged { // it can do better
			return grant{}, &protocolError{msg: err.Error(), cause: ErrNoRanges}
		}
		return grant{}, permanent(err)
	}
	skip := min(a.off, length)
	return grant{id: id, skip: skip, n: min(a.end, length) - skip}, nil
}

func (a ask) judgePart(h http.Header, length int64) (grant, error) {
	raw := h.Get("Content-Range")
	first, end, size, err := parseContentRange(raw)
	switch {
	case err != nil:
		return grant{}, garbledf("the answer's Content-Range %q cannot be used: %v", shown(raw, nil), err)
	case first != a.off || end > a.end:
		return grant{}, garbledf("bytes [%d,%d) were asked for and [%d,%d) came", a.off, a.end, first, end)
	case length >= 0 && length != end-first:
		return grant{}, garbledf("the answer's Content-Length %d is not that of its Content-Range %q", length, raw)
	}
	id := identityOf(h, size)
	if err := a.identify(id, false); err != nil {
		return grant{}, err
	}
	return grant{id: id, n: end - first, sure: true}, nil
}

// identify compares an answer's identity with the pinned one, or decides
// whether it may be pinned.
func (a ask) identify(got Identity, whole bool) error {
	if a.pinned == nil {
		return a.admit(got, whole)
	}
	want := *a.pinned
	changed := func(what, was, is string) error {
		return permanent(fmt.Errorf("%w: its %s was %s and is %s", ErrChanged, what, was, is))
	}
	switch {
	case want.ETag != "" && got.ETag != "" && got.ETag != want.ETag:
		return changed("ETag", shown(want.ETag, nil), shown(got.ETag, nil))
	case whole && got.Size != want.Size && want.Proven() && !got.Proven():
		// Somebody in between answers for the server.
		return &protocolError{patient: true, msg: fmt.Sprintf("the answer (%d bytes without ETag) is not of the object (%d bytes): is there a login page in between?", got.Size, want.Size)}
	case got.Size != want.Size:
		return changed("size", strconv.FormatInt(want.Size, 10), strconv.FormatInt(got.Size, 10))
	case want.ETag != "" && got.ETag == want.ETag:
		return nil
	case want.LastModified != "" && got.LastModified == want.LastModified:
		return nil
	case want.LastModified != "" && got.LastModified != "":
		return changed("Last-Modified", shown(want.LastModified, nil), shown(got.LastModified, nil))
	case want.Proven():
		return garbledf("the answer lacks the ETag and Last-Modified that the first one had")
	}
	return nil // nothing to compare but the size; see Reader.provable
}

// admit decides whether the first answer may be believed to be the object. An
// error page sent as 200 has a length too, but seldom a validator.
func (a ask) admit(got Identity, whole bool) error {
	known := a.size != nil || a.hashed
	switch {
	case a.size != nil && got.Size != *a.size && whole && !got.Proven():
		return &protocolError{patient: true, msg: fmt.Sprintf("the answer has %d bytes and the object %d: is there a login page in between?", got.Size, *a.size)}
	case a.size != nil && got.Size != *a.size:
		return permanent(fmt.Errorf("%w: it should have %d bytes and has %d", ErrChanged, *a.size, got.Size))
	case whole && !got.Proven() && !known:
		return &protocolError{patient: true, msg: "the answer ignores the range and has neither ETag nor Last-Modified, as an error or login page would: give the object's SHA-256 if it is right"}
	}
	return nil
}

// parseContentRange reads "bytes first-last/size" as the half-open range
// [first, end). Nothing else is accepted: no other unit, no unknown size, no
// signs or spaces, and last must lie within the size.
func parseContentRange(s string) (first, end, size int64, err error) {
	bad := func(what string) (int64, int64, int64, error) { return 0, 0, 0, fmt.Errorf("%s", what) }
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return bad("want \"bytes first-last/size\"")
	}
	span, total, ok := strings.Cut(rest, "/")
	from, to, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return bad("want \"bytes first-last/size\"")
	}
	if total == "*" {
		return bad("it does not tell the object's size")
	}
	first, ok = digits(from)
	last, ok2 := digits(to)
	size, ok3 := digits(total)
	switch {
	case !ok || !ok2 || !ok3:
		return bad("its numbers are not plain ones")
	case last < first:
		return bad("it ends before it begins")
	case last >= size:
		return bad("it ends after the object")
	}
	return first, last + 1, size, nil
}

// digits reads a plain decimal number below 2^62, so that sums of two never
// overflow.
func digits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n < 1<<62
}
