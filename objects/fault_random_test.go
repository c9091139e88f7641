package objects_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

var (
	faultSeed  = flag.Uint64("faultseed", 0, "replay one random schedule of faults")
	faultTime  = flag.Duration("faulttime", 20*time.Second, "how long to try random schedules of faults")
	faultCount = flag.Uint64("faultcount", 0, "how many random schedules of faults to try; 0: for -faulttime")
)

// tooLong is when a schedule counts as one that never ends. Its budget
// without progress is much less.
const tooLong = 3 * time.Minute

// TestRandomFaults runs random schedules of combined faults, of HTTP and of
// the connections below it, against streams, random reads and downloads. Each
// must end, with the right bytes or with a clear error. The seed of a failing
// one replays it: the same object, faults and calls, if not the same order of
// requests that run at a time.
func TestRandomFaults(t *testing.T) {
	if *faultSeed != 0 {
		newOrdeal(t, *faultSeed).run()
		return
	}
	limit := *faultTime
	if testing.Short() {
		limit = min(limit, 3*time.Second)
	}
	begin := time.Now()
	base := rand.Uint64() >> 1
	t.Logf("seeds from %d on", base+1)
	var n, ended, whole atomic.Uint64
	more := func() bool {
		if *faultCount > 0 {
			return n.Load() < *faultCount
		}
		return time.Since(begin) < limit
	}
	var wg sync.WaitGroup
	for range 16 { // most of the time goes by waiting
		wg.Go(func() {
			for more() && !t.Failed() {
				if newOrdeal(t, base+n.Add(1)).run() {
					whole.Add(1)
				}
				ended.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d schedules from seed %d on: %d ended with the right bytes, %d with a clear error, none otherwise",
		ended.Load(), base+1, whole.Load(), ended.Load()-whole.Load())
}

// everything is what objects of schedules are the beginning of.
var everything = sync.OnceValue(func() []byte { return content(10 << 20) })

// ordeal is one schedule: a server and a proxy that fail by a seed, and what
// is done meanwhile.
type ordeal struct {
	t     *testing.T
	seed  uint64
	rand  *rand.Rand
	data  []byte
	fatal bool // faults are among the schedule's that must end in an error
	flips bool // wrong bytes are, too: only the SHA-256 tells
	opts  objects.ReaderOptions
	what  string // stream, reads, download, or all at a time

	server *faulttest.Server
	proxy  *faulttest.Proxy // nil: none
}

func newOrdeal(t *testing.T, seed uint64) *ordeal {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 99))
	d := &ordeal{t: t, seed: seed, rand: r, fatal: r.IntN(3) == 0}
	d.what = []string{"stream", "stream", "reads", "download", "all"}[r.IntN(5)]
	d.flips = d.fatal && (d.what == "stream" || d.what == "download")
	size := 1 + r.IntN(700<<10)
	if r.IntN(4) == 0 {
		size = 1<<20 + r.IntN(9<<20) // several requests at a time
	}
	d.data = everything()[:size]

	o := faulttest.Object{Data: d.data}
	n := r.IntN(4)
	if n != 0 || d.fatal {
		o.ETag = `"v1"`
	}
	if n != 1 {
		o.Modified = modified
	}
	kinds := slices.Clone(faulttest.Survivable)
	if d.fatal {
		kinds = append(kinds, faulttest.Fatal...)
		if d.flips {
			kinds = append(kinds, faulttest.BitFlip)
		} else {
			// Reads of an object that has a SHA-256 but no validator cannot
			// be told from another's one by one; who reads so has checksums
			// of his own (index).
			kinds = slices.DeleteFunc(kinds, func(k faulttest.Kind) bool {
				return k == faulttest.NoValidator || o.Modified.IsZero() && (k == faulttest.WeakETag || k == faulttest.NoETag)
			})
		}
	}
	d.server = faulttest.New(faulttest.Options{Object: o,
		Schedule: faulttest.Random(seed, 0.05+0.5*r.Float64(), int64(size), kinds...)})
	if r.IntN(2) == 0 {
		u, err := url.Parse(d.server.Sign())
		if err != nil {
			t.Fatal(err)
		}
		if d.proxy, err = faulttest.NewProxy(u.Host, faulttest.RandomBreaks(seed, 0.5*r.Float64(), int64(size)+1000)); err != nil {
			t.Fatal(err)
		}
	}

	d.opts = objects.ReaderOptions{RetryBudget: 8 * time.Second, IdleTimeout: 100 * time.Millisecond,
		HedgeAfter: []time.Duration{0, 5 * time.Millisecond, -1}[r.IntN(3)]}
	if d.fatal || r.IntN(2) == 0 {
		d.opts.SHA256 = sum(d.data)
	}
	if r.IntN(3) == 0 {
		n := int64(size)
		d.opts.Size, d.opts.Lazy = &n, r.IntN(2) == 0
	}
	if r.IntN(2) == 0 {
		l := objects.Limits{Memory: objects.MinMemory}
		if r.IntN(2) == 0 {
			l.Connections = 2
		}
		d.opts.Network = objects.NewNetwork(l)
	}
	return d
}

// Mint signs a URL, of the proxy where there is one.
func (d *ordeal) Mint(context.Context) (objects.SignedURL, error) {
	raw := d.server.Sign()
	if d.proxy != nil {
		u, err := url.Parse(raw)
		if err != nil {
			return objects.SignedURL{}, err
		}
		u.Host = d.proxy.Addr()
		raw = u.String()
	}
	return objects.SignedURL{URL: objects.Secret(raw)}, nil
}

// run does what the schedule says, and reports whether all bytes came.
func (d *ordeal) run() bool {
	defer d.server.Close()
	if d.proxy != nil {
		defer d.proxy.Close()
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), tooLong)
	defer cancel()
	var err error
	switch d.what {
	case "download":
		err = d.download(ctx)
	default:
		r, oerr := objects.Open(ctx, d, d.opts)
		if err = oerr; err != nil {
			break
		}
		defer r.Close()
		versions := d.candidates()
		var wg sync.WaitGroup
		if d.what != "reads" {
			off := 0
			if d.what == "all" || !d.flips && d.rand.IntN(2) == 0 {
				off = d.rand.IntN(len(d.data))
			}
			wg.Go(func() { versions.note(d.stream(ctx, r, off, versions)) })
		}
		if d.what != "stream" {
			for range 4 {
				seed := d.rand.Uint64()
				wg.Go(func() { versions.note(d.reads(ctx, r, seed, versions)) })
			}
		}
		wg.Wait()
		err = versions.err
	}
	d.judge(ctx, err)
	return err == nil
}

// judge fails the test when an error is not one that may be.
func (d *ordeal) judge(ctx context.Context, err error) {
	noLeak(d.t, err)
	switch {
	case ctx.Err() != nil:
		d.fail("no end after %s: %v", tooLong, err)
	case err != nil && !d.fatal && !tolerable(err):
		d.fail("error: %v", err)
	}
	for _, r := range d.server.Requests() {
		for k, vs := range r.Header {
			if strings.Contains(strings.Join(vs, " "), faulttest.Mark) || k == "Referer" || r.Elsewhere && (k == "If-Match" || k == "Authorization") {
				d.fail("header %s was sent (to another host: %v)", k, r.Elsewhere)
			}
			if k == "Range" && strings.Contains(vs[0], ",") {
				d.fail("several ranges were asked for: %s", vs)
			}
		}
	}
}

func (d *ordeal) fail(format string, args ...any) {
	d.t.Helper()
	d.t.Errorf("%s, %d bytes: %s\nreplay with -run TestRandomFaults -faultseed %d\nfaults:%s\nconnections:%v",
		d.what, len(d.data), fmt.Sprintf(format, args...), d.seed, d.server.Faults(), d.proxy)
}

// tolerable are the clear errors that survivable faults may add up to: too
// many nonsensical answers in a row, or URLs refused again and again.
func tolerable(err error) bool {
	text := err.Error()
	return errors.Is(err, objects.ErrCredentials) || errors.Is(err, objects.ErrUnreachable) || errors.Is(err, objects.ErrNoValidator) ||
		strings.Contains(text, "Content-") || strings.Contains(text, "malformed") || strings.Contains(text, "headers") ||
		strings.Contains(text, "bytes") || strings.Contains(text, "answered") || strings.Contains(text, "lacks") || strings.Contains(text, "1xx")
}

// versions are those of the object that the bytes one Reader gave may be of.
type versions struct {
	d    *ordeal
	mu   sync.Mutex
	gone map[string]bool // by ETag: those that some bytes were not of
	err  error           // the first error
}

func (d *ordeal) candidates() *versions { return &versions{d: d, gone: map[string]bool{}} }

func (v *versions) note(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err == nil {
		v.err = err
	}
}

// take holds the bytes at off against the versions that are left. Only an
// answer that never came can make a version but the first be the pinned one.
func (v *versions) take(off int64, b []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	left := 0
	for o := range v.d.server.Versions() {
		end := off + int64(len(b))
		if end > int64(len(o.Data)) || !bytes.Equal(b, o.Data[off:end]) {
			v.gone[o.ETag+o.Modified.String()] = true
		}
		if !v.gone[o.ETag+o.Modified.String()] {
			left++
		}
	}
	return left > 0
}

// stream reads from off to the end.
func (d *ordeal) stream(ctx context.Context, r *objects.Reader, off int, v *versions) error {
	s, err := r.Stream(ctx, int64(off))
	if err != nil {
		return err
	}
	defer s.Close()
	got, err := io.ReadAll(s)
	// Bytes before ErrChecksum may be wrong: it is what says so.
	if (err == nil || !d.flips) && !v.take(int64(off), got) {
		d.fail("SILENTLY WRONG: a stream from %d gave %d bytes (error %v)", off, len(got), err)
	}
	if err == nil && int64(off+len(got)) != r.Size() {
		d.fail("SILENTLY SHORT: a stream from %d gave %d bytes of %d", off, len(got), r.Size())
	}
	return err
}

// reads reads here and there.
func (d *ordeal) reads(ctx context.Context, r *objects.Reader, seed uint64, v *versions) error {
	random := rand.New(rand.NewPCG(seed, 0))
	for range 5 {
		off := random.Int64N(int64(len(d.data)))
		p := make([]byte, 1+random.IntN(128<<10))
		n, err := r.ReadAtContext(ctx, p, off)
		if !v.take(off, p[:n]) {
			d.fail("SILENTLY WRONG: a read of %d bytes at %d gave %d (error %v)", len(p), off, n, err)
		}
		switch {
		case err == io.EOF && off+int64(n) == r.Size():
		case err != nil:
			return err
		case n != len(p):
			d.fail("SILENTLY SHORT: a read of %d bytes at %d gave %d", len(p), off, n)
		}
	}
	return nil
}

// download downloads, in two goes if the first one is ended by its context.
func (d *ordeal) download(ctx context.Context) error {
	dir, err := os.MkdirTemp(d.t.TempDir(), "")
	if err != nil {
		d.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "object")
	for try := range 2 {
		r, err := objects.Open(ctx, d, d.opts)
		if err != nil {
			return err
		}
		part, cancel := context.WithCancel(ctx)
		stop := d.rand.Int64N(2 * int64(len(d.data)))
		err = r.Download(part, path, func(done, total int64) {
			if try == 0 && done >= stop {
				cancel()
			}
		})
		again := try == 0 && part.Err() != nil && ctx.Err() == nil && err != nil
		cancel()
		r.Close()
		d.state(path, err)
		if err == nil {
			got, rerr := os.ReadFile(path)
			if v := d.candidates(); rerr != nil || !v.take(0, got) || int64(len(got)) != r.Size() {
				d.fail("SILENTLY WRONG: a download gave %d bytes of %d (%v)", len(got), r.Size(), rerr)
			}
			return nil
		}
		if !again {
			return err
		}
	}
	return nil
}

// state looks at what a download left beside its file: no secrets, and no
// file that looks whole.
func (d *ordeal) state(path string, err error) {
	left, _ := filepath.Glob(path + "*")
	for _, name := range left {
		if name == path && err != nil {
			d.fail("a download that failed (%v) left a file", err)
		}
		if strings.HasSuffix(name, ".json") {
			if b, _ := os.ReadFile(name); bytes.Contains(b, []byte(faulttest.Mark)) {
				d.fail("a secret is in %s", name)
			}
		}
	}
}
