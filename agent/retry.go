package agent

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/objects"
)

// rarely is how many times longer than the longest pause one waits after an
// error that only another object can mend. It is tried again at all because
// nobody can be sure: a proxy may have sent a page in the object's place.
const rarely = 12

// newPause counts the pauses between the tries of one mount: each twice as
// long as the last, off by up to a fifth so that many machines that failed
// together do not come back together.
func (a *Agent) newPause() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = a.cfg.RetryMin, a.cfg.RetryMax
	b.Multiplier, b.RandomizationFactor = 2, 0.2
	b.Reset()
	return b
}

// pauseAfter is how long to wait after an error before the next try. A spec
// that changes, or a reload, ends every wait.
func (a *Agent) pauseAfter(err error, b *backoff.ExponentialBackOff) time.Duration {
	next := b.NextBackOff()
	switch {
	case anyOf(err, extract.ErrCorrupt, extract.ErrUnsafe, extract.ErrLimit, objects.ErrChecksum,
		index.ErrCorrupt, index.ErrTarCorrupt, index.ErrTarTruncated, index.ErrTarLimit, index.ErrTarAmbiguous, index.ErrTarUnsafe,
		objects.ErrDeleted, objects.ErrExpired, objects.ErrBadID, errPanic):
		return stretch(b, rarely)
	case anyOf(err, extract.ErrConflict, extract.ErrNoSpace, objects.ErrNotFound, objects.ErrCredentials, ErrOwned):
		// A person may mend it; asking again and again does not.
		return stretch(b, 1)
	}
	return next
}

// stretch is about n times the longest pause.
func stretch(b *backoff.ExponentialBackOff, n int) time.Duration {
	off := 1 + b.RandomizationFactor*(2*rand.Float64()-1)
	return time.Duration(off * float64(n) * float64(b.MaxInterval))
}

func anyOf(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
