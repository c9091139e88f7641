package store

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"objectmount/objects"
)

// A signed URL is
//
//	{base}/v1/content/{id}?Expires={seconds since 1970}&Signature={base64url}
//
// with Signature = HMAC-SHA256(secret, "objectmount url 1\n" method "\n" id "\n" Expires).
//
// Expires is written like S3's, so that clients that know how to read that
// learn when to renew. The query is exactly these two parameters, each once
// and in its one spelling; anything else is refused like a wrong signature.
const (
	urlSecretFile = "url-secret" // in the data directory; removing it ends every URL given out
	urlSecretLen  = 32           // bytes
	contentPath   = "/v1/content/"
)

type signer struct{ secret []byte }

// newURLSecret makes what url-secret holds.
func newURLSecret() string {
	b := make([]byte, urlSecretLen)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func newSigner(secret objects.Secret) (signer, error) {
	b, err := hex.DecodeString(secret.Reveal())
	if err != nil || len(b) != urlSecretLen {
		return signer{}, fmt.Errorf("it is not %d hexadecimal digits: remove it to have a new one made, which ends every URL given out", 2*urlSecretLen)
	}
	return signer{b}, nil
}

func (s signer) mac(method, id, expires string) []byte {
	m := hmac.New(sha256.New, s.secret)
	fmt.Fprintf(m, "objectmount url 1\n%s\n%s\n%s", method, id, expires)
	return m.Sum(nil)
}

// sign gives the URL below base for one method on one object. It is valid for
// d from now on, rounded up to a whole second, and not at or after expires.
func (s signer) sign(base *url.URL, method, id string, now time.Time, d time.Duration) (signed string, expires time.Time) {
	expires = now.Add(d).Truncate(time.Second)
	if expires.Before(now.Add(d)) {
		expires = expires.Add(time.Second)
	}
	text := strconv.FormatInt(expires.Unix(), 10)
	u := url.URL{Scheme: base.Scheme, Host: base.Host, Path: base.Path + contentPath + id}
	u.RawQuery = "Expires=" + text + "&Signature=" + base64.RawURLEncoding.EncodeToString(s.mac(method, id, text))
	return u.String(), expires
}

var (
	errSignature = refuse(http.StatusForbidden, "signature_invalid", "the signed URL was altered, or is for another method or object: get a new one")
	errURLOver   = refuse(http.StatusForbidden, "url_expired", "the signed URL has expired: get a new one")
)

// verify checks the query of a signed URL; HEAD goes with a URL for GET.
// Whether it is over is said only to who has a true signature.
func (s signer) verify(rawQuery, method, id string, now time.Time) error {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	expires, signature, err := parseSignedQuery(rawQuery)
	if err != nil {
		return errSignature
	}
	if !hmac.Equal(signature, s.mac(method, id, strconv.FormatInt(expires, 10))) {
		return errSignature
	}
	if !now.Before(time.Unix(expires, 0)) {
		return errURLOver
	}
	return nil
}

var errSignedQuery = errors.New("not the query of a signed URL")

// parseSignedQuery takes a signed URL's query apart. Two queries that differ
// in more than order and percent-encoding never give the same values.
func parseSignedQuery(raw string) (expires int64, signature []byte, err error) {
	if len(raw) > 512 {
		return 0, nil, errSignedQuery
	}
	q, err := url.ParseQuery(raw)
	if err != nil || len(q) != 2 || len(q["Expires"]) != 1 || len(q["Signature"]) != 1 {
		return 0, nil, errSignedQuery
	}
	text := q.Get("Expires")
	expires, err = strconv.ParseInt(text, 10, 64)
	if err != nil || expires < 0 || strconv.FormatInt(expires, 10) != text {
		return 0, nil, errSignedQuery
	}
	text = q.Get("Signature")
	signature, err = base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || base64.RawURLEncoding.EncodeToString(signature) != text {
		return 0, nil, errSignedQuery
	}
	return expires, signature, nil
}
