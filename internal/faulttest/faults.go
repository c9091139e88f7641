package faulttest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind is one way to misbehave.
type Kind string

// The faults. "At" is Fault.At, a number of body bytes of the answer: a
// negative one means its middle, and one past its end that the fault is not
// met.
const (
	None Kind = "none" // the right answer

	// The connection.
	ResetBeforeHeaders Kind = "reset-before-headers" // RST instead of an answer
	ResetMidBody       Kind = "reset-mid-body"       // RST after At bytes
	ShortBody          Kind = "short-body"           // closed after At bytes, though Content-Length says more
	CloseDelimited     Kind = "close-delimited"      // no length at all, and closed after At bytes: the cut cannot be seen
	CloseDelimited206  Kind = "close-delimited-206"  // the same, but Content-Range tells the length
	StallHeaders       Kind = "stall-headers"        // nothing, and the connection stays open
	StallBody          Kind = "stall-body"           // nothing after At bytes, and the connection stays open
	Drip               Kind = "drip"                 // one byte every Wait, for At bytes
	HugeHeaders        Kind = "huge-headers"         // 128 KiB of them
	NotHTTP            Kind = "not-http"             // bytes that are no HTTP

	// The range.
	IgnoreRange   Kind = "ignore-range"  // 200 with the whole object
	WrongRange    Kind = "wrong-range"   // 206, one byte later than asked for
	OtherTotal    Kind = "other-total"   // 206 whose Content-Range names another size
	UnknownTotal  Kind = "unknown-total" // 206 whose Content-Range names no size
	ShortRange    Kind = "short-range"   // a valid 206 of At bytes
	Unsatisfiable Kind = "unsatisfiable" // 416 for a range that exists
	ExtraBytes    Kind = "extra-bytes"   // 206, chunked, with more bytes than announced
	MultiRange    Kind = "multi-range"   // 206 multipart/byteranges
	NoLength      Kind = "no-length"     // 200 chunked, so without Content-Length, and whole

	// The credentials: the URL stays refused until a new one is signed.
	Unauthorized Kind = "401"
	Forbidden    Kind = "403"         // as S3 words it, echoing secrets
	ExpiredToken Kind = "400-expired" // S3's ExpiredToken
	TimeSkewed   Kind = "400-skewed"  // S3's RequestTimeTooSkewed

	// The server.
	TooMany       Kind = "429" // with Retry-After: Wait
	Unavailable   Kind = "503" // likewise, S3's SlowDown
	InternalError Kind = "500"
	BadGateway    Kind = "502" // an HTML page
	Timeout       Kind = "504" // nothing but the status
	NotFound      Kind = "404"
	NotModified   Kind = "304"
	Interim       Kind = "1xx" // At answers with status 103 (negative: 100 of them), and then the right one

	// The object.
	Replaced         Kind = "replaced"           // from now on another object, of another size and ETag
	ReplacedSameSize Kind = "replaced-same-size" // likewise, but of the same size
	ReplacedUnseen   Kind = "replaced-unseen"    // likewise, and If-Match is ignored: only the answer's ETag tells
	WeakETag         Kind = "weak-etag"          // W/ before the ETag
	NoETag           Kind = "no-etag"            // Last-Modified only
	NoValidator      Kind = "no-validator"       // neither
	BitFlip          Kind = "bit-flip"           // the byte at At is wrong
	Gzip             Kind = "gzip"               // Content-Encoding: gzip, and compressed

	// The way.
	Redirect          Kind = "redirect"           // 302 to another path of this host
	RedirectLoop      Kind = "redirect-loop"      // 302 to itself
	RedirectElsewhere Kind = "redirect-elsewhere" // 307 to another host, which has the object
	RedirectDowngrade Kind = "redirect-downgrade" // 307 from https to http
	CaptivePortal     Kind = "captive-portal"     // 200 with a login page
	XMLError200       Kind = "xml-error-200"      // 200 with S3's error document
	Empty200          Kind = "empty-200"          // 200 with nothing
)

// Survivable are the faults after which a good client still gets every byte
// right, given that a later try is answered rightly and that URLs can be
// renewed. (BitFlip is not: it takes a checksum and a second fetch.)
var Survivable = []Kind{
	ResetBeforeHeaders, ResetMidBody, ShortBody, CloseDelimited, CloseDelimited206, StallHeaders, StallBody, Drip,
	HugeHeaders, NotHTTP, IgnoreRange, WrongRange, UnknownTotal, ShortRange, Unsatisfiable, MultiRange, NoLength,
	Unauthorized, Forbidden, ExpiredToken, TimeSkewed, TooMany, Unavailable, InternalError, BadGateway, Timeout,
	NotModified, Interim, WeakETag, NoETag, NoValidator, Gzip, Redirect, RedirectElsewhere, CaptivePortal, XMLError200, Empty200,
}

// Fatal are the faults that a good client must answer with an error, because
// the bytes it was after are not to be had or not to be believed.
var Fatal = []Kind{OtherTotal, ExtraBytes, NotFound, Replaced, ReplacedSameSize, ReplacedUnseen, RedirectLoop}

// Fault is what one request meets.
type Fault struct {
	Kind Kind
	At   int64         // bytes of the answer's body; negative: its middle
	Wait time.Duration // Retry-After, or between two bytes of a drip
}

// String gives what a failing test prints.
func (f Fault) String() string {
	s := string(f.Kind)
	if f.At != 0 {
		s += fmt.Sprintf("@%d", f.At)
	}
	if f.Wait != 0 {
		s += "/" + f.Wait.String()
	}
	return s
}

// Schedule says what the n-th request (from 0) meets. It must give the same
// answer for the same n, whenever and from whichever goroutine it is asked.
type Schedule func(n int) Fault

// Script is the schedule of the faults given, one after the other, and then
// None.
func Script(faults ...Fault) Schedule {
	return func(n int) Fault {
		if n < len(faults) {
			return faults[n]
		}
		return Fault{Kind: None}
	}
}

// Always is the schedule of one fault for ever.
func Always(f Fault) Schedule { return func(int) Fault { return f } }

// Random is a schedule in which each request meets a fault with probability
// rate, drawn from kinds (none given: Survivable), the first request none.
// At is up to size. Two seeds give two schedules, one seed always the same.
func Random(seed uint64, rate float64, size int64, kinds ...Kind) Schedule {
	if len(kinds) == 0 {
		kinds = slices.Clone(Survivable)
	}
	return func(n int) Fault {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		if n == 0 || r.Float64() >= rate {
			return Fault{Kind: None}
		}
		f := Fault{Kind: kinds[r.IntN(len(kinds))], At: r.Int64N(size + 1), Wait: time.Millisecond}
		switch {
		case f.Kind == Drip:
			f.At %= 100
		case f.Kind == Interim:
			f.At %= 10
		case r.IntN(4) == 0:
			f.At = r.Int64N(min(size, 64) + 1) // the edges break most
		case r.IntN(4) == 0:
			f.At = -1
		}
		return f
	}
}
