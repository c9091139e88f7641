package objects

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// The retry law of this package, for API calls, uploads and readings alike:
//
//   - A try fails for good (permanent), or another may help.
//   - Before the n-th next try it waits a random time between 0 and
//     100 ms·2^n, at most 20 s ("full jitter": many machines that failed
//     together do not come back together).
//   - A server that says how long to wait (Retry-After) is obeyed, up to 60 s.
//   - Tries go on until the budget is spent: a time, not a number, because
//     what is broken at boot is usually broken for seconds or minutes.
//   - Progress gives the whole budget back and starts the waits anew, so a
//     transfer of hours over a bad line ends well, and one that stands still
//     ends with an error that says so.
//   - An answer that makes no sense (protocolError) is tried a few times
//     only: a server that is plainly broken should not cost the whole budget.
const (
	backoffBase   = 100 * time.Millisecond
	backoffCap    = 20 * time.Second
	retryAfterCap = 60 * time.Second

	// garbledMax is how many answers that make no sense may follow one
	// another without progress.
	garbledMax = 5

	// progressBytes is what a try must bring before it counts as progress;
	// one byte per connection is not a transfer.
	progressBytes = 16 << 10
)

// fullJitter is the series of waits. Reset does nothing: the library calls
// it at every Retry, and only progress may start the series anew.
type fullJitter struct{ n uint }

func (j *fullJitter) NextBackOff() time.Duration {
	ceiling := backoffCap
	if j.n < 8 { // 100 ms << 8 is past the cap
		ceiling = min(backoffCap, backoffBase<<j.n)
	}
	j.n++
	return rand.N(ceiling + 1)
}

func (*fullJitter) Reset() {}

// pacer holds the state of the law for one call or one transfer. It belongs
// to one goroutine.
type pacer struct {
	budget  time.Duration
	retried func() // told of every try that will be followed by another

	jitter  fullJitter
	since   time.Time // of the first failure without progress after it; zero: none
	tries   int       // failures since then
	garbled int       // protocol errors since then
	gained  int64     // bytes since the last failure
}

// progress tells of n bytes that arrived. Once there are enough of them, or
// at the end of what was asked for, the past is forgotten.
func (p *pacer) progress(n int, done bool) {
	p.gained += int64(n)
	if done || p.gained >= progressBytes {
		p.jitter, p.since, p.tries, p.garbled = fullJitter{}, time.Time{}, 0, 0
	}
}

// retry runs op by the law until it succeeds, fails for good, the budget is
// spent or ctx ends. Errors of op are transient unless permanent says else.
func retry[T any](ctx context.Context, p *pacer, op func() (T, error)) (T, error) {
	var last error
	spent := false
	v, err := backoff.Retry(ctx, func() (T, error) {
		v, err := op()
		if err == nil {
			return v, nil
		}
		var after *backoff.RetryAfterError
		var wait time.Duration
		if errors.As(err, &after) {
			wait = after.Duration
		}
		if p.failed(err) {
			err = permanent(err)
		} else if time.Since(p.since)+wait >= p.budget {
			err, spent = permanent(err), true
		}
		if ctx.Err() == nil || last == nil {
			last = err // not the error that the end of ctx itself made
		}
		return v, err
	},
		backoff.WithBackOff(&p.jitter),
		// The library would count the time of tries that got on, too.
		backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(error, time.Duration) {
			if p.retried != nil {
				p.retried()
			}
		}))
	if err == nil {
		return v, nil
	}

	if final := (*backoff.PermanentError)(nil); errors.As(last, &final) {
		last = final.Unwrap()
		if !spent {
			return v, last
		}
	}
	switch {
	case spent:
		return v, fmt.Errorf("%w: gave up after %s without progress (%d tries): %w",
			ErrUnreachable, time.Since(p.since).Round(time.Millisecond), p.tries, last)
	case errors.Is(context.Cause(ctx), errCallTimeout):
		return v, fmt.Errorf("%w within %s: %w", ErrUnreachable, p.budget, last)
	case errors.Is(ctx.Err(), context.Canceled):
		return v, context.Canceled
	case errors.Is(last, ctx.Err()):
		return v, fmt.Errorf("%w in the time given: %w", ErrUnreachable, ctx.Err())
	}
	// The caller's deadline, while the network was failing: both are true.
	return v, fmt.Errorf("%w in the time given: %w (%w)", ErrUnreachable, last, ctx.Err())
}

// failed counts a failure, and says whether it was one nonsense too many.
func (p *pacer) failed(err error) bool {
	p.gained = 0
	p.tries++
	if p.since.IsZero() {
		p.since = time.Now()
	}
	if g := (*protocolError)(nil); errors.As(err, &g) && !g.patient {
		p.garbled++
	}
	return p.garbled >= garbledMax
}

// errCallTimeout is the cause of a context that Options.Timeout ended.
var errCallTimeout = errors.New("no answer")

// permanent marks an error that another try cannot help.
func permanent(err error) error { return backoff.Permanent(err) }

func isFinal(err error) bool {
	p := (*backoff.PermanentError)(nil)
	return errors.As(err, &p)
}

// later marks a transient error with the wait that the server asked for.
func later(err error, after time.Duration) error {
	if after <= 0 {
		return err
	}
	return &laterError{err, &backoff.RetryAfterError{Duration: after}}
}

type laterError struct {
	err   error
	after *backoff.RetryAfterError
}

func (e *laterError) Error() string   { return e.err.Error() }
func (e *laterError) Unwrap() []error { return []error{e.err, e.after} }

// protocolError is an answer that makes no sense for what was asked.
type protocolError struct {
	msg string
	// patient: it smells of somebody in between (a login page of a captive
	// portal), which may go on for minutes and then stop; it is tried for the
	// whole budget.
	patient bool
	cause   error // what errors.Is finds; may be nil
}

func (e *protocolError) Error() string { return e.msg }
func (e *protocolError) Unwrap() error { return e.cause }

func garbledf(format string, args ...any) error {
	return &protocolError{msg: fmt.Sprintf(format, args...)}
}

// sending judges an error of sending or receiving. Almost all of them may
// pass: a name that does not resolve and a refused connection are what a
// network looks like that is not up yet. A TLS peer that cannot be believed
// stays what it is.
func sending(err error) error {
	var (
		verify *tls.CertificateVerificationError
		record tls.RecordHeaderError
		alert  tls.AlertError
		ca     x509.UnknownAuthorityError
		host   x509.HostnameError
		cert   x509.CertificateInvalidError
		proxy  *proxyError
	)
	switch {
	case errors.As(err, &verify), errors.As(err, &ca), errors.As(err, &host), errors.As(err, &cert),
		errors.As(err, &record), errors.As(err, &alert), errors.Is(err, http.ErrSchemeMismatch):
		return permanent(fmt.Errorf("TLS: %w", err))
	case errors.As(err, &proxy):
		return permanent(err)
	case strings.Contains(err.Error(), "malformed HTTP"), strings.Contains(err.Error(), "response headers exceeded"):
		// net/http has no types for these.
		return &protocolError{msg: err.Error()}
	}
	return err
}

// retryableStatus says whether the same request may succeed later. A server
// that says x-should-retry decides for itself.
func retryableStatus(status int, h http.Header) bool {
	switch strings.ToLower(h.Get("X-Should-Retry")) {
	case "true":
		return true
	case "false":
		return false
	}
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// retryAfter is how long the server asks to wait: retry-after-ms, else
// Retry-After in seconds or as a date (judged by the server's own Date where
// it gives one), at most 60 s. 0 means that it did not say, or said nonsense.
func retryAfter(h http.Header, now time.Time) time.Duration {
	var d time.Duration
	if ms, ok := decimal(h.Get("Retry-After-Ms")); ok {
		d = time.Duration(min(ms, 1e9) * float64(time.Millisecond))
	} else if s, ok := decimal(h.Get("Retry-After")); ok {
		d = time.Duration(min(s, 1e6) * float64(time.Second))
	} else if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		if date, err := http.ParseTime(h.Get("Date")); err == nil {
			now = date
		}
		d = at.Sub(now)
	}
	return min(max(d, 0), retryAfterCap)
}

// decimal reads a plain number such as 1 or 0.5: no sign, no exponent, no
// words like inf.
func decimal(s string) (float64, bool) {
	if s == "" || len(s) > 20 || strings.Trim(s, "0123456789.") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}
