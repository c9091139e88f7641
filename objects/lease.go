package objects

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const (
	// refusedMemory is how long a URL that was minted because its forerunner
	// was refused must not itself be refused: then it is not the URL's age
	// that is wrong, and a third one would not help either.
	refusedMemory = 10 * time.Second
	// aheadTimeout bounds a renewal that nobody needs yet, and aheadPause is
	// the time until the next one when it failed: an API that is down must
	// not hold up the use of a URL that is still good.
	aheadTimeout = 10 * time.Second
	aheadPause   = 10 * time.Second
	// renewAt is the part of its life, in percent, after which a URL is
	// replaced before anybody refuses it.
	renewAt = 80
)

// lease keeps the one URL that all requests of a Reader use, and renews it:
// ahead of time at 80 % of its life, and when it is refused. Minting happens
// once for everybody who waits for it. It is safe for concurrent use.
//
//	mint → fresh ──accepted──→ proven ──80 % of life──→ mint
//	         │                   └──refused──→ mint (forced)
//	         └─refused─→ the first: mint (forced); a forced one: final
type lease struct {
	m     Minter
	stats *counters
	host  atomic.Pointer[string] // of url

	// flight is held across minting, and guards the fields below. It is a
	// channel so that waiting for it can be given up.
	flight   chan struct{}
	url      *url.URL // nil: none yet
	gen      int      // of url; counts mintings
	issued   time.Time
	expires  time.Time     // zero: unknown
	skew     time.Duration // the server's clock less ours
	forced   bool          // url was minted because its forerunner was refused
	accepted bool          // url has been good for at least one answer
	minted   time.Time     // by our clock
	notAhead time.Time     // no renewal ahead of time before then
}

func newLease(m Minter, stats *counters) *lease {
	return &lease{m: m, stats: stats, flight: make(chan struct{}, 1)}
}

// where is the host of the present URL; "" before there is one.
func (l *lease) where() string {
	if h := l.host.Load(); h != nil {
		return *h
	}
	return ""
}

func (l *lease) lock(ctx context.Context) error {
	select {
	case l.flight <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *lease) unlock() { <-l.flight }

// get gives the URL to use now, and its number for accepted and refused.
func (l *lease) get(ctx context.Context) (*url.URL, int, error) {
	if err := l.lock(ctx); err != nil {
		return nil, 0, err
	}
	defer l.unlock()
	switch {
	case l.url == nil, l.due(100):
		if err := l.mint(ctx, false); err != nil {
			return nil, 0, err
		}
	case l.due(renewAt) && time.Now().After(l.notAhead):
		ahead, cancel := context.WithTimeout(ctx, aheadTimeout)
		defer cancel()
		if l.mint(ahead, false) != nil { // the present one still serves
			l.notAhead = time.Now().Add(aheadPause)
		}
	}
	return l.url, l.gen, nil
}

// due says whether so many percent of the URL's life are over. The caller
// holds flight.
func (l *lease) due(percent time.Duration) bool {
	if _, fixed := l.m.(fixedURL); fixed || l.expires.IsZero() {
		return false
	}
	life := min(l.expires.Sub(l.issued), 1000*time.Hour) // times 100 fits
	return l.now().After(l.expires.Add(-life * (100 - percent) / 100))
}

// now is the server's time. Our monotonic clock is left out on purpose: it
// stands still while a machine is suspended, and URLs do not.
func (l *lease) now() time.Time { return time.Now().Round(0).Add(l.skew) }

// mint replaces the URL. The caller holds flight.
func (l *lease) mint(ctx context.Context, forced bool) error {
	s, err := l.m.Mint(ctx)
	if err != nil {
		if finalMint(err) {
			return permanent(Redact(err))
		}
		return fmt.Errorf("get a download URL: %w", Redact(err))
	}
	u, err := parseSigned(s.URL)
	if err != nil {
		return permanent(err)
	}
	if l.url != nil {
		l.stats.renewals.Add(1)
	}
	l.url, l.gen, l.forced, l.accepted = u, l.gen+1, forced, false
	l.host.Store(&u.Host)
	l.minted, l.issued, l.expires = time.Now(), s.Issued, s.Expires
	if _, fixed := l.m.(fixedURL); s.Issued.IsZero() {
		l.issued = l.now()
	} else if !fixed {
		l.skew = s.Issued.Sub(time.Now().Round(0))
	}
	return nil
}

// finalMint says whether asking again for a URL cannot help.
func finalMint(err error) bool {
	for _, c := range []error{ErrNotFound, ErrDeleted, ErrCredentials, ErrExpired, ErrBadID, errNoURL} {
		if errors.Is(err, c) {
			return true
		}
	}
	e := (*APIError)(nil)
	return errors.As(err, &e) && !errors.Is(err, ErrUnreachable)
}

// accept notes that URL number gen was good, and the server's clock.
func (l *lease) accept(ctx context.Context, gen int, h http.Header) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if gen == l.gen {
		l.accepted = true
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		l.skew = date.Sub(time.Now().Round(0))
		l.stats.skew.Store(int64(l.skew))
	}
	return nil
}

// refused is told that URL number gen was refused, and why. It renews the
// URL and gives nil when there is a new one to try, else the final error.
func (l *lease) refused(ctx context.Context, gen int, why error) error {
	if err := l.lock(ctx); err != nil {
		return err
	}
	defer l.unlock()
	if gen != l.gen {
		return nil // somebody else renewed it meanwhile
	}
	if _, fixed := l.m.(fixedURL); fixed {
		return permanent(fmt.Errorf("%w: %v", ErrExpired, why))
	}
	if l.forced && !l.accepted && time.Since(l.minted) < refusedMemory {
		return permanent(fmt.Errorf("%w: the download URL was renewed and is still refused: %v", ErrCredentials, why))
	}
	return l.mint(ctx, true)
}
