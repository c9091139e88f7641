package objects

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"time"
)

// Minter makes URLs for one object. A Reader calls Mint at the start, before
// a URL expires and when it is refused; never twice at the same time. Errors
// with the causes ErrNotFound, ErrDeleted, ErrCredentials, ErrExpired and
// ErrBadID are final, others are tried again.
type Minter interface {
	Mint(ctx context.Context) (SignedURL, error)
}

// Minter mints URLs of one object by the API, each valid for that long (see
// DownloadURL).
func (c *Client) Minter(id string, valid time.Duration) Minter { return &apiMinter{c, id, valid} }

type apiMinter struct {
	c     *Client
	id    string
	valid time.Duration
}

func (m *apiMinter) Mint(ctx context.Context) (SignedURL, error) {
	return m.c.DownloadURL(ctx, m.id, m.valid)
}

// FixedURL is the Minter of a URL that was given by hand: it cannot be
// renewed, so a refusal is ErrExpired.
func FixedURL(raw Secret) Minter { return fixedURL(raw) }

type fixedURL Secret

// Mint gives the URL itself.
func (u fixedURL) Mint(context.Context) (SignedURL, error) {
	p, err := parseSigned(Secret(u))
	if err != nil {
		return SignedURL{}, err
	}
	s := SignedURL{URL: Secret(u)}
	s.Issued, s.Expires = lifeOf(p)
	return s, nil
}

var errNoURL = errors.New("what should be a signed URL is no http or https URL")

// parseSigned reads a signed URL. Its error never quotes it.
func parseSigned(s Secret) (*url.URL, error) {
	u, err := url.Parse(s.Reveal())
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errNoURL
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// lifeOf reads from a signed URL when it was issued and until when it is
// valid, by the signer's clock. The usual schemes say so in the query:
//
//	X-Amz-Date=20261122T164500Z  X-Amz-Expires=3600   (S3; X-Goog- likewise)
//	Expires=1795365900                                (S3 v2, CloudFront, GCS v2)
//	se=2026-11-22T16:45:00Z  st=…                     (Azure)
//
// Zero times mean unknown.
func lifeOf(u *url.URL) (issued, expires time.Time) {
	q := u.Query()
	for _, brand := range []string{"X-Amz-", "X-Goog-"} {
		at, err := time.Parse("20060102T150405Z", q.Get(brand+"Date"))
		secs, err2 := strconv.ParseUint(q.Get(brand+"Expires"), 10, 31)
		if err == nil && err2 == nil {
			return at, at.Add(time.Duration(secs) * time.Second)
		}
	}
	if at, err := strconv.ParseInt(q.Get("Expires"), 10, 64); err == nil && at > 1e9 && at < 1e11 {
		return time.Time{}, time.Unix(at, 0)
	}
	if at, err := time.Parse(time.RFC3339, q.Get("se")); err == nil {
		issued, _ = time.Parse(time.RFC3339, q.Get("st"))
		return issued, at
	}
	return time.Time{}, time.Time{}
}
