package objects_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// s3 is a real S3-compatible server (versitygw) over a temporary directory,
// as a process of its own. Its URLs are signed here, as S3's clients do it.
type s3 struct {
	host           string // and port
	access, secret string
}

// newS3 starts one. `make test-deps` builds it.
func newS3(t *testing.T) *s3 {
	t.Helper()
	binary, err := filepath.Abs("../bin/versitygw")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(binary); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%v: `make test-deps` builds it", err)
		}
		t.Skipf("%v: `make test-deps` builds it", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &s3{host: l.Addr().String(), access: "AK" + faulttest.Mark, secret: faulttest.Mark + cryptorand.Text()}
	l.Close()

	dir := t.TempDir()
	data, meta := filepath.Join(dir, "data"), filepath.Join(dir, "meta")
	if err := errors.Join(os.MkdirAll(filepath.Join(data, "bucket"), 0o700), os.Mkdir(meta, 0o700)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--port", s.host, "--quiet", "--keep-alive", "posix", "--sidecar", meta, data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+s.access, "ROOT_SECRET_ACCESS_KEY="+s.secret)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-gone })
	for {
		if c, err := net.Dial("tcp", s.host); err == nil {
			c.Close()
			return s
		}
		select {
		case <-gone:
			t.Fatalf("%s ended: %s", binary, said.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sign makes a URL of an object for one method and so many seconds: AWS
// Signature Version 4 in the query. host is what the request will be sent to,
// which is signed, too.
func (s *s3) sign(method, host, key string, seconds int) string {
	const scheme, region = "AWS4-HMAC-SHA256", "us-east-1"
	now := time.Now().UTC()
	stamp, day := now.Format("20060102T150405Z"), now.Format("20060102")
	scope := day + "/" + region + "/s3/aws4_request"
	path := "/bucket/" + key
	q := url.Values{
		"X-Amz-Algorithm":     {scheme},
		"X-Amz-Credential":    {s.access + "/" + scope},
		"X-Amz-Date":          {stamp},
		"X-Amz-Expires":       {fmt.Sprint(seconds)},
		"X-Amz-SignedHeaders": {"host"},
	}
	request := strings.Join([]string{method, path, canonical(q), "host:" + host, "", "host", "UNSIGNED-PAYLOAD"}, "\n")
	digest := sha256.Sum256([]byte(request))
	text := strings.Join([]string{scheme, stamp, scope, hex.EncodeToString(digest[:])}, "\n")
	k := []byte("AWS4" + s.secret)
	for _, part := range []string{day, region, "s3", "aws4_request", text} {
		h := hmac.New(sha256.New, k)
		h.Write([]byte(part))
		k = h.Sum(nil)
	}
	return "http://" + host + path + "?" + canonical(q) + "&X-Amz-Signature=" + hex.EncodeToString(k)
}

// canonical is a query as it is signed: sorted, and escaped as AWS does it.
func canonical(q url.Values) string {
	var pairs []string
	for k := range q {
		pairs = append(pairs, k+"="+strings.ReplaceAll(url.QueryEscape(q.Get(k)), "+", "%20"))
	}
	sort.Strings(pairs)
	return strings.Join(pairs, "&")
}

// minter signs URLs that live so long, for the proxy if there is one.
func (s *s3) minter(p *faulttest.Proxy, key string, seconds int) objects.Minter {
	host := s.host
	if p != nil {
		host = p.Addr()
	}
	return minter(func() objects.SignedURL {
		now := time.Now()
		return objects.SignedURL{URL: objects.Secret(s.sign("GET", host, key, seconds)), Issued: now, Expires: now.Add(time.Duration(seconds) * time.Second)}
	})
}

// do sends one request to a signed URL and gives its status.
func (s *s3) do(t *testing.T, method, raw string, body []byte, headers ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, raw, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

func (s *s3) put(t *testing.T, key string, data []byte) {
	t.Helper()
	if got := s.do(t, "PUT", s.sign("PUT", s.host, key, 60), data); got != 200 {
		t.Fatalf("PUT of %d bytes: %d", len(data), got)
	}
}

// TestS3 reads from a real S3-compatible server, by presigned URLs: the rules
// of the table that depend on what S3 says, not on what we believe it says.
func TestS3(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server that `make test-deps` builds; not -short")
	}
	s := newS3(t)
	data := content(40 << 20)
	s.put(t, "object", data)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	t.Run("ranges", func(t *testing.T) { s.ranges(t, data) })
	t.Run("one object", func(t *testing.T) {
		signed := s.sign("GET", s.host, "object", 60)
		// The two reasons why a Reader is as it is.
		if got := s.do(t, "HEAD", signed, nil); got != http.StatusForbidden {
			t.Errorf("HEAD on a URL signed for GET: %d", got)
		}
		if got := s.do(t, "GET", signed, nil, "If-Match", `"another"`); got != http.StatusPreconditionFailed {
			t.Errorf("If-Match with another ETag: %d", got)
		}
	})
	t.Run("replaced", func(t *testing.T) { s.replaced(t, data) })
	t.Run("expiry", func(t *testing.T) { s.expiry(t, data) })
	t.Run("refusals", s.refusals)
	t.Run("broken connections", func(t *testing.T) { s.broken(t, data) })
}

func (s *s3) ranges(t *testing.T, data []byte) {
	r, err := objects.Open(t.Context(), s.minter(nil, "object", 60), objects.ReaderOptions{SHA256: sum(data)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Size() != int64(len(data)) || r.Identity().ETag == "" {
		t.Errorf("%+v", r.Identity())
	}
	for _, off := range []int64{0, 1, 300_000, 20<<20 - 3, int64(len(data)) - 100, int64(len(data)) - 1} {
		p := make([]byte, 1000)
		n, err := r.ReadAtContext(t.Context(), p, off)
		want := data[off:min(off+1000, int64(len(data)))]
		if !bytes.Equal(p[:n], want) || (err == io.EOF) != (n < 1000) {
			t.Errorf("at %d: %d bytes, %v", off, n, err)
		}
	}
	if got, err := readAll(t.Context(), s.minter(nil, "object", 60), objects.ReaderOptions{SHA256: sum(data)}); err != nil || !bytes.Equal(got, data) {
		t.Error(len(got), err)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := r.Download(t.Context(), path, nil); err != nil {
		t.Error(err)
	}
	holds(t, path, data)

	for _, size := range []int{0, 1, 256 << 10, 256<<10 + 1} {
		s.put(t, "small", data[:size])
		if got, err := readAll(t.Context(), s.minter(nil, "small", 60), objects.ReaderOptions{}); err != nil || !bytes.Equal(got, data[:size]) {
			t.Errorf("an object of %d bytes: %d came, %v", size, len(got), err)
		}
	}
}

// replaced: an object that is another one in the middle of a stream gives the
// first bytes of the old one and an error, for single reads as well. Its size
// stays, so only the ETag tells.
func (s *s3) replaced(t *testing.T, data []byte) {
	s.put(t, "changing", data)
	opts := calm()
	// One request after the other, so that there are some after the change.
	opts.Network = objects.NewNetwork(objects.Limits{Connections: 1, Memory: objects.MinMemory})
	r, err := objects.Open(t.Context(), s.minter(nil, "changing", 60), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	st, err := r.Stream(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	got := make([]byte, 1<<20)
	if _, err := io.ReadFull(st, got); err != nil {
		t.Fatal(err)
	}
	other := bytes.Clone(data)
	for i := range other {
		other[i]++
	}
	s.put(t, "changing", other)
	rest, err := io.ReadAll(st)
	if got = append(got, rest...); !errors.Is(err, objects.ErrChanged) || !bytes.HasPrefix(data, got) {
		t.Errorf("a stream: %d bytes, %v", len(got), err)
	}
	if _, err := r.ReadAtContext(t.Context(), make([]byte, 10), 30<<20); !errors.Is(err, objects.ErrChanged) {
		t.Errorf("a read: %v", err)
	}
	noLeak(t, err)

	if got := s.do(t, "DELETE", s.sign("DELETE", s.host, "changing", 60), nil); got/100 != 2 {
		t.Errorf("DELETE: %d", got)
	}
	if _, err := r.ReadAtContext(t.Context(), make([]byte, 10), 31<<20); !errors.Is(err, objects.ErrNotFound) && !errors.Is(err, objects.ErrChanged) {
		t.Errorf("a read of a deleted object: %v", err)
	}
}

// expiry: S3 words the end of a URL as 403; a Reader that can sign a new one
// goes on, another says what happened.
func (s *s3) expiry(t *testing.T, data []byte) {
	signed := s.sign("GET", s.host, "object", 1)
	fixed, err := objects.Open(t.Context(), objects.FixedURL(objects.Secret(signed)), calm())
	if err != nil {
		t.Fatal(err)
	}
	defer fixed.Close()
	// Not told when the URL ends, so that it is the refusal that is met.
	minted := 0
	untold := minter(func() objects.SignedURL {
		minted++
		if minted == 1 {
			return objects.SignedURL{URL: objects.Secret(signed)}
		}
		return objects.SignedURL{URL: objects.Secret(s.sign("GET", s.host, "object", 60))}
	})
	renewing, err := objects.Open(t.Context(), untold, calm())
	if err != nil {
		t.Fatal(err)
	}
	defer renewing.Close()
	for s.do(t, "GET", signed, nil, "Range", "bytes=0-0") != http.StatusForbidden {
		time.Sleep(100 * time.Millisecond)
	}
	p := make([]byte, 1000)
	if _, err := renewing.ReadAtContext(t.Context(), p, 30<<20); err != nil || !bytes.Equal(p, data[30<<20:30<<20+1000]) || minted != 2 {
		t.Errorf("renewed: %v, %d URLs", err, minted)
	}
	_, err = fixed.ReadAtContext(t.Context(), p, 30<<20)
	if !errors.Is(err, objects.ErrExpired) {
		t.Errorf("a fixed URL: %v", err)
	}
	noLeak(t, err)
	t.Log(err)

	// A stream that takes several lives of its URLs.
	opts := calm()
	opts.Network = objects.NewNetwork(objects.Limits{Bandwidth: 16 << 20, Memory: objects.MinMemory})
	r, err := objects.Open(t.Context(), s.minter(nil, "object", 1), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	st, err := r.Stream(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	if got, err := io.ReadAll(st); err != nil || !bytes.Equal(got, data) || r.Stats().Renewals == 0 {
		t.Errorf("%d bytes, %v, %d renewals", len(got), err, r.Stats().Renewals)
	}
}

// refusals: what S3 refuses for good is an error at once, without secrets.
func (s *s3) refusals(t *testing.T) {
	wrong := &s3{host: s.host, access: s.access, secret: s.secret + "x"}
	for name, c := range map[string]struct {
		m    objects.Minter
		want error
	}{
		"no such object":                   {s.minter(nil, "no", 60), objects.ErrNotFound},
		"a wrong signature, each time":     {wrong.minter(nil, "object", 60), objects.ErrCredentials},
		"a wrong signature, given by hand": {objects.FixedURL(objects.Secret(wrong.sign("GET", s.host, "object", 60))), objects.ErrExpired},
		"signed for another method":        {objects.FixedURL(objects.Secret(s.sign("PUT", s.host, "object", 60))), objects.ErrExpired},
	} {
		_, err := objects.Open(t.Context(), c.m, calm())
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		noLeak(t, err)
		t.Log(err)
	}
}

// broken: through a proxy that breaks connections, every byte arrives.
func (s *s3) broken(t *testing.T, data []byte) {
	for range 4 {
		seed := rand.Uint64() >> 1
		p, err := faulttest.NewProxy(s.host, faulttest.RandomBreaks(seed, 0.5, 12<<20))
		if err != nil {
			t.Fatal(err)
		}
		opts := patience()
		opts.IdleTimeout = time.Second
		opts.SHA256 = sum(data)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		got, err := readAll(ctx, s.minter(p, "object", 2), opts)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("seed %d: %d bytes, %v\nconnections:%s", seed, len(got), err, p)
		}
		noLeak(t, err)
		cancel()
		p.Close()
	}
}
