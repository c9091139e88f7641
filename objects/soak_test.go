package objects_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

var soakSize = flag.Int64("soaksize", 128<<20, "bytes of the object that is downloaded over connections that are cut")

// proxiedStore is the real store, behind a proxy, with one object in it.
type proxiedStore struct {
	proxy  *faulttest.Proxy
	direct *objects.Client
	id     string
	sum    string // SHA-256
}

// minter mints URLs of the proxy, by calls that do not go through it: a call
// that stalls has a time of its own, which is long.
func (p *proxiedStore) minter(valid time.Duration) objects.Minter {
	return minterFunc(func(ctx context.Context) (objects.SignedURL, error) {
		s, err := p.direct.DownloadURL(ctx, p.id, valid)
		if err != nil {
			return s, err
		}
		u, err := url.Parse(s.URL.Reveal())
		if err == nil {
			u.Host = p.proxy.Addr()
			s.URL = objects.Secret(u.String())
		}
		return s, err
	})
}

func newProxiedStore(t *testing.T, object *faulttest.Pattern, plan faulttest.Plan) *proxiedStore {
	t.Helper()
	store := newStore(t, t.TempDir())
	p := &proxiedStore{direct: newClient(t, store.url, time.Minute)}
	h := sha256.New()
	o, err := p.direct.Upload(t.Context(), objects.CreateRequest{Name: "object", ContentType: objects.ContentBinary},
		objects.Body{Size: object.Size(), Open: func() (io.ReadCloser, error) { h.Reset(); return io.NopCloser(io.TeeReader(object.Reader(), h)), nil }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.id, p.sum = o.ID, hex.EncodeToString(h.Sum(nil))
	u, err := url.Parse(store.url)
	if err != nil {
		t.Fatal(err)
	}
	if p.proxy, err = faulttest.NewProxy(u.Host, plan); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.proxy.Close)
	return p
}

// TestInterruptedDownload: a download whose connections are all cut after a
// while, and whose URLs end within seconds, comes to its end with the right
// bytes, and hardly any of them twice. `make soak-fetch` makes it 2 GiB, cut
// after 50 MB.
func TestInterruptedDownload(t *testing.T) {
	if testing.Short() {
		t.Skip("moves much, waits much and asks nothing of the race detector; not -short")
	}
	object := faulttest.NewPattern(1, *soakSize)
	cut := min(50_000_000, *soakSize/40)
	p := newProxiedStore(t, object, faulttest.EachConnection(faulttest.Break{Kind: faulttest.CutOff, After: cut}))
	// So slow that it takes several lives of the URLs.
	network := objects.NewNetwork(objects.Limits{Bandwidth: max(*soakSize/8, 32<<20)})
	r, err := objects.Open(t.Context(), p.minter(2*time.Second), objects.ReaderOptions{SHA256: p.sum, Network: network})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := filepath.Join(t.TempDir(), "object")
	begin := time.Now()
	if err := r.Download(t.Context(), path, nil); err != nil {
		t.Fatalf("%v\n%d connections", err, p.proxy.Connections())
	}
	took := time.Since(begin)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if n, err := io.Copy(h, f); err != nil || n != object.Size() || hex.EncodeToString(h.Sum(nil)) != p.sum {
		t.Errorf("%d bytes of %d, or others; %v", n, object.Size(), err)
	}
	if most := object.Size() + object.Size()/20; p.proxy.Down() > most {
		t.Errorf("%d bytes were transferred for %d, more than 5 %% too many", p.proxy.Down(), object.Size())
	}
	if least := int(object.Size() / cut); p.proxy.Connections() < least {
		t.Errorf("%d connections, where at least %d were cut", p.proxy.Connections(), least)
	}
	if took > 3*time.Second && r.Stats().Renewals == 0 {
		t.Errorf("no renewal in %s", took)
	}
	t.Logf("%d MB in %s over %d connections cut after %.1f MB: %.2f %% more than its size transferred, %d requests, %d renewals",
		object.Size()/1e6, took.Round(time.Millisecond), p.proxy.Connections(), float64(cut)/1e6,
		100*float64(p.proxy.Down()-object.Size())/float64(object.Size()), r.Stats().Requests, r.Stats().Renewals)
}

// TestStoreThroughBrokenConnections: `objectmount serve` behind a proxy that
// breaks connections.
func TestStoreThroughBrokenConnections(t *testing.T) {
	const size = 12 << 20
	object := faulttest.NewPattern(1, size)
	want, err := io.ReadAll(object.Reader())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		seed := rand.Uint64() >> 1
		p := newProxiedStore(t, object, faulttest.RandomBreaks(seed, 0.4, size/2))
		fail := func(what string, err error) {
			t.Errorf("%s: %v\nseed %d, connections:%s", what, err, seed, p.proxy)
		}
		opts := patience()
		opts.IdleTimeout = time.Second
		opts.SHA256 = p.sum
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		m := p.minter(2 * time.Second)
		if got, err := readAll(ctx, m, opts); err != nil || !bytes.Equal(got, want) {
			fail("stream", err)
		}
		r, err := objects.Open(ctx, m, opts)
		if err != nil {
			fail("open", err)
			cancel()
			continue
		}
		for range 10 {
			off := rand.Int64N(size - 1000)
			b := make([]byte, 1000)
			if _, err := r.ReadAtContext(ctx, b, off); err != nil || !bytes.Equal(b, want[off:off+1000]) {
				fail("read", err)
			}
		}
		path := filepath.Join(t.TempDir(), "object")
		if err := r.Download(ctx, path, nil); err != nil {
			fail("download", err)
		} else if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			fail("downloaded bytes", err)
		}
		r.Close()
		cancel()
	}
}
