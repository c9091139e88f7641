package objects_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// What a fault may lead to, besides one of the package's errors.
var (
	right       error // the right bytes
	unreachable = objects.ErrUnreachable
	changed     = objects.ErrChanged
	refused     = objects.ErrCredentials
	errOther    = errors.New("any error") // one that says it in words
)

// met is what a fault leads to when the first request meets it, when the
// second does, and when each does.
type met struct {
	kind                   faulttest.Kind
	first, second, forever error
}

// faultRow is one line of the table of network faults: its rule, as what the
// faults of the server lead to and as tests of its own.
type faultRow struct {
	name   string
	faults []met
	tests  map[string]func(*testing.T)
}

// faultTable is the whole of it. What takes fake time or the package's inside
// has its test there: the names of those are in the comments.
var faultTable = []faultRow{
	{"reset before headers, reset in the body, short body", []met{
		{faulttest.ResetBeforeHeaders, right, right, unreachable},
		{faulttest.ResetMidBody, right, right, right}, // each try brings some
		{faulttest.ShortBody, right, right, right},
	}, nil}, // progress gives the budget back: TestRetryLaw
	{"short body, delimited by the close", []met{
		{faulttest.CloseDelimited, right, right, errOther},
		{faulttest.CloseDelimited206, right, right, right},
		{faulttest.NoLength, right, right, errOther},
		{faulttest.ExtraBytes, errOther, errOther, errOther},
	}, nil},
	{"200 for a range", []met{
		{faulttest.IgnoreRange, right, right, right}, // within the first MiB
		{faulttest.CaptivePortal, right, right, unreachable},
		{faulttest.XMLError200, right, right, unreachable},
		{faulttest.Empty200, right, right, unreachable},
		{faulttest.Gzip, right, right, errOther},
	}, map[string]func(*testing.T){"beyond the first MiB": TestNoRanges, "the size is known": TestSizeKnown}},
	{"206 with another range", []met{
		{faulttest.WrongRange, right, right, errOther},
		{faulttest.OtherTotal, changed, changed, errOther},
		{faulttest.UnknownTotal, right, right, errOther},
	}, nil}, // each way to write a Content-Range: TestContentRange
	{"a shorter valid 206", []met{{faulttest.ShortRange, right, right, right}}, nil},
	{"416", []met{{faulttest.Unsatisfiable, right, right, errOther}},
		map[string]func(*testing.T){"the object has shrunk": testShrunk, "the object is empty": TestEmptyObject}},
	{"401, 403, ExpiredToken, RequestTimeTooSkewed", []met{
		{faulttest.Unauthorized, right, right, refused},
		{faulttest.Forbidden, right, right, refused},
		{faulttest.ExpiredToken, right, right, refused},
		{faulttest.TimeSkewed, right, right, refused},
	}, map[string]func(*testing.T){"one renewal for all": TestRenewal}},
	{"URL near its end", nil, map[string]func(*testing.T){
		"renewed at 80 % by the server's clock": TestRenewalAhead, "the API is down then": TestRenewalAheadFails}},
	{"429, 503, 500, 502, 504", []met{
		{faulttest.TooMany, right, right, unreachable},
		{faulttest.Unavailable, right, right, unreachable},
		{faulttest.InternalError, right, right, unreachable},
		{faulttest.BadGateway, right, right, unreachable},
		{faulttest.Timeout, right, right, unreachable},
	}, nil}, // Retry-After, the jitter and the budget: TestRetryAfter, TestRetryLaw
	{"stall before headers, stall in the body, a drip", []met{
		{faulttest.StallHeaders, right, right, unreachable},
		{faulttest.StallBody, right, right, right},
	}, map[string]func(*testing.T){"a drip": TestDrip}}, // 15 s, and 16 KiB/s over 30 s: TestWatchdogs
	{"no name, no connection, no route", nil, map[string]func(*testing.T){
		"until the network is up": testNetworkComesUp, "for ever": testNoNetwork}},
	{"the object changed", []met{
		{faulttest.Replaced, right, changed, errOther},
		{faulttest.ReplacedSameSize, right, changed, errOther},
		{faulttest.ReplacedUnseen, right, changed, errOther},
		{faulttest.NotFound, objects.ErrNotFound, objects.ErrNotFound, objects.ErrNotFound},
	}, nil},
	{"a weak ETag or none", []met{
		{faulttest.WeakETag, right, right, right},
		{faulttest.NoETag, right, right, right},
		{faulttest.NoValidator, right, right, right},
	}, map[string]func(*testing.T){"no validator at all": TestNoValidator}},
	{"a bit flip", nil, map[string]func(*testing.T){"of a stream": TestBitFlip, "fetched once more": TestDownloadFails}},
	{"redirects", []met{
		{faulttest.Redirect, right, right, right},
		{faulttest.RedirectLoop, errOther, errOther, errOther},
		{faulttest.RedirectElsewhere, right, right, right},
	}, map[string]func(*testing.T){"to another host, and from https to http": TestRedirects}},
	// A proxy of ours that refuses, asks for a password or has no valid
	// address: TestProxyRefuses, TestProxyAddress.
	{"HTTP/2, stuck TCP", nil, map[string]func(*testing.T){"stuck TCP": testStuck}}, // HTTP/1.1 is preferred: TestSpeaksHTTP1
	{"TLS", nil, map[string]func(*testing.T){"nobody vouches": TestTLS, "a stalled handshake": testTLSStall}},
	{"multipart/byteranges", []met{{faulttest.MultiRange, right, right, errOther}}, nil}, // never asked for: TestRandomFaults
	{"304, 1xx, huge headers, no HTTP", []met{
		{faulttest.NotModified, right, right, errOther},
		{faulttest.Interim, right, right, right},
		{faulttest.HugeHeaders, right, right, errOther},
		{faulttest.NotHTTP, right, right, errOther},
	}, nil},
}

// TestFaults has each line of the table with its rule as the outcome.
func TestFaults(t *testing.T) {
	data := content(600 << 10) // the first request brings 256 KiB of them
	for _, row := range faultTable {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for _, m := range row.faults {
				fault := faulttest.Fault{Kind: m.kind, At: 100_000}
				if m.kind == faulttest.Interim {
					fault.At = 3
				}
				stalls := m.kind == faulttest.StallHeaders || m.kind == faulttest.StallBody
				none := faulttest.Fault{Kind: faulttest.None}
				for _, v := range []struct {
					name     string
					schedule faulttest.Schedule
					want     error
				}{
					{"met by the first request", faulttest.Script(fault), m.first},
					{"met by the second request", faulttest.Script(none, fault), m.second},
					{"met for ever", faulttest.Always(fault), m.forever},
				} {
					t.Run(string(m.kind)+"/"+v.name, func(t *testing.T) {
						t.Parallel()
						meet(t, data, v.schedule, stalls, v.want)
					})
				}
			}
			for name, test := range row.tests {
				t.Run(name, test)
			}
		})
	}
}

// meet streams an object from a server that fails by schedule.
func meet(t *testing.T, data []byte, schedule faulttest.Schedule, stalls bool, want error) {
	o := faulttest.Object{Data: data, ETag: `"v1"`, Modified: modified}
	s := faulttest.New(faulttest.Options{Object: o, Schedule: schedule})
	defer s.Close()
	// A right answer that is slow, on a busy machine, must not be given up:
	// then the fault would not be met by the request it was meant for.
	opts := calm()
	if stalls {
		opts = patience()
	}
	if want == unreachable {
		opts.RetryBudget = 400 * time.Millisecond
	}
	got, err := readAll(t.Context(), signer(s), opts)
	noLeak(t, err)
	// A server that is about to replace its object may do so before it gave
	// a byte of it: then the next version is the right one.
	for v := range s.Versions() {
		if len(got) > 0 && bytes.HasPrefix(v.Data, got) {
			data = v.Data
		}
	}
	checkOutcome(t, got, data, err, want, s)
}

func checkOutcome(t *testing.T, got, data []byte, err, want error, s *faulttest.Server) {
	t.Helper()
	switch {
	case want == right && err != nil:
		t.Errorf("want the right bytes, got error: %v\nfaults:%s", err, s.Faults())
	case want == right && !bytes.Equal(got, data):
		t.Errorf("want the right %d bytes, got %d others\nfaults:%s", len(data), len(got), s.Faults())
	case want != right && err == nil:
		t.Errorf("want an error (%v), got %d bytes and none\nfaults:%s", want, len(got), s.Faults())
	case want != right && want != errOther && !errors.Is(err, want):
		t.Errorf("want error %q, got: %v\nfaults:%s", want, err, s.Faults())
	case !bytes.HasPrefix(data, got) && err != nil:
		t.Errorf("wrong bytes before the error %v\nfaults:%s", err, s.Faults())
	}
	if err != nil {
		t.Logf("error: %v", err)
	}
}
