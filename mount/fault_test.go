package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"objectmount/index"
	"objectmount/internal/archivetest"
	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// far is an archive on a server that misbehaves, mounted.
type far struct {
	dir    string
	server *faulttest.Server
	object faulttest.Object
	src    *objects.Reader
	spans  *index.MemSpans
	reader *index.Reader
	table  *index.Index
	fs     *FS
}

// minter makes an objects.Minter of a function.
type minter func() objects.SignedURL

func (m minter) Mint(context.Context) (objects.SignedURL, error) { return m(), nil }

// farFiles are the files of the archive, of several spans.
func farFiles() (data []byte, want map[string]string) {
	want = map[string]string{}
	var parts [][]byte
	for i, size := range []int{1, 700 << 10, 2 << 20, 300 << 10} {
		name := fmt.Sprintf("f%d", i)
		want[name] = content(size, uint64(i)+1)
		parts = append(parts, archivetest.File(name, want[name]))
	}
	return archivetest.Gzip(archivetest.Tar(parts...)), want
}

// goFar opens data on a server. mint, if not nil, changes the URLs.
func goFar(ctx context.Context, dir string, data []byte, x *index.Index, opts faulttest.Options, mint func(s string) string) (*far, error) {
	opts.Object = faulttest.Object{Data: data, ETag: `"v1"`, Modified: time.Unix(archivetest.MTime, 0)}
	f := &far{dir: dir, object: opts.Object, server: faulttest.New(opts), spans: &index.MemSpans{}, table: x}
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		f.src, err = objects.Open(ctx, minter(func() objects.SignedURL {
			u := f.server.Sign()
			if mint != nil {
				u = mint(u)
			}
			return objects.SignedURL{URL: objects.Secret(u)}
		}), objects.ReaderOptions{RetryBudget: time.Minute, IdleTimeout: 300 * time.Millisecond, HedgeAfter: -1})
	}
	if err != nil {
		f.server.Close()
		return nil, err
	}
	// Nothing is held, or read ahead, for which a phase would not have to ask.
	if x != nil {
		f.reader = index.NewReader(x, f.src, f.spans, index.ReaderOptions{Memory: 1, ReadAhead: -1})
	}
	return f, nil
}

// mount mounts it, anew if it is mounted.
func (f *far) mount(ctx context.Context, deadline time.Duration) (err error) {
	if f.fs != nil {
		if err := f.fs.Unmount(false); err != nil {
			return err
		}
	}
	f.fs, err = Mount(ctx, f.dir, f.table, f.reader, Options{Deadline: deadline, Owner: &Owner{}})
	return err
}

func (f *far) close() {
	if f.fs != nil {
		f.fs.Unmount(true)
	}
	f.server.Close() // and whoever waits for it
	if f.fs != nil {
		f.fs.Wait()
	}
	detachAll(f.dir)
	if f.reader != nil {
		f.reader.Close()
	}
	f.src.Close()
}

// read reads all files from another process. A file is right, or gives EIO:
// anything else is an error, and so is to wait for much longer than deadlines
// allow. It gives how many gave EIO.
func (f *far) read(want map[string]string) (failed int, err error) {
	for i := 0; f.table != nil && i < f.table.NumSpans(); i++ {
		f.spans.Drop(i)
	}
	// Each of the kernel's requests ends by the deadline; a file is some of
	// them, on a busy machine.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), readVar+"=sums "+f.dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("reader: %w %s", errors.Join(err, ctx.Err()), stderr.String())
	}
	lines := strings.Fields(string(out))
	if len(lines) != 2*len(want) {
		return 0, fmt.Errorf("reader said %q", out)
	}
	for i := 0; i < len(lines); i += 2 {
		switch lines[i+1] {
		case "EIO":
			failed++
		case sum(want[lines[i]]):
		default:
			return 0, fmt.Errorf("WRONG BYTES in %s: %s", lines[i], lines[i+1])
		}
	}
	return failed, nil
}

// right reads all files until they are there, which they are at the first try
// or soon after: on a busy machine an answer may miss a short deadline, and
// after a URL that was renewed in vain no other is asked for within ten seconds.
func (f *far) right(want map[string]string) error {
	for end := time.Now().Add(time.Minute); ; {
		failed, err := f.read(want)
		if err != nil || failed == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d files cannot be read: %s", failed, len(want), f.fs.Stats().LastError)
		}
		// A request that was on its way may have changed the object once more.
		f.server.Replace(f.object)
		time.Sleep(100 * time.Millisecond)
	}
}

// next lets n requests meet a fault, and those after them none.
func (f *far) next(fault faulttest.Fault, n int) {
	from := len(f.server.Requests())
	f.server.SetSchedule(func(i int) faulttest.Fault {
		if i < from+n {
			return fault
		}
		return faulttest.Fault{Kind: faulttest.None}
	})
}

// farKinds are all faults of the server.
func farKinds() []faulttest.Kind {
	return append(slices.Concat(faulttest.Survivable, faulttest.Fatal), faulttest.BitFlip)
}

func refusal(kind faulttest.Kind) bool {
	return slices.Contains([]faulttest.Kind{faulttest.Unauthorized, faulttest.Forbidden, faulttest.ExpiredToken, faulttest.TimeSkewed}, kind)
}

// TestFaults reads through a mount while its server misbehaves in each way
// there is: for two requests, and for good. Readers see the right bytes or, by
// the deadline, EIO; and the right bytes when the server has come to its senses.
func TestFaults(t *testing.T) {
	dir := mkdirs(t)
	data, want := farFiles()
	x, err := index.Build(t.Context(), source(data), index.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	type phase struct {
		fault    faulttest.Kind
		breaks   faulttest.BreakKind
		at       int64
		times    int  // that it is met, at first
		survived bool // all is right in spite of it
	}
	var phases []phase
	for _, kind := range farKinds() {
		p := phase{fault: kind, at: -1, times: 2, survived: kind == faulttest.BitFlip || slices.Contains(faulttest.Survivable, kind)}
		switch {
		case kind == faulttest.Drip:
			p.at = 100 // in the middle it would outlast the test
		case refusal(kind):
			p.times = 1 // a new URL that is refused, too, is refused for good
		}
		phases = append(phases, p)
	}
	for _, kind := range faulttest.Breaks {
		for _, after := range []int64{0, 100, 200_000} {
			phases = append(phases, phase{breaks: kind, at: after, times: 2, survived: true})
		}
	}
	var eio atomic.Int64
	one := func(p phase, dir string) error {
		var f *far
		var broken func(n int) // connections from now on; -1: all
		if p.breaks != "" {
			var until atomic.Int64
			var proxy *faulttest.Proxy
			mint := func(s string) string {
				u, _ := url.Parse(s)
				if proxy == nil {
					proxy, _ = faulttest.NewProxy(u.Host, func(n int) faulttest.Break {
						if int64(n) < until.Load() {
							return faulttest.Break{Kind: p.breaks, After: p.at, Wait: 100 * time.Millisecond}
						}
						return faulttest.Break{Kind: faulttest.Whole}
					})
				}
				u.Host = proxy.Addr()
				return u.String()
			}
			var err error
			if f, err = goFar(t.Context(), dir, data, x, faulttest.Options{}, mint); err != nil {
				return err
			}
			defer proxy.Close()
			broken = func(n int) {
				if n < 0 {
					n = 1 << 40
				}
				until.Store(int64(proxy.Connections() + n))
				f.server.Revoke() // and with the URL go the connections that are open
			}
		} else {
			var err error
			if f, err = goFar(t.Context(), dir, data, x, faulttest.Options{}, nil); err != nil {
				return err
			}
			broken = func(n int) {
				if n < 0 {
					n = 1 << 40
				}
				f.next(faulttest.Fault{Kind: p.fault, At: p.at, Wait: time.Millisecond}, n)
				f.server.Replace(f.object)
			}
		}
		defer f.close()

		if err := f.mount(t.Context(), time.Minute); err != nil {
			return err
		}
		broken(p.times)
		failed, err := f.read(want)
		if err == nil && failed > 0 && p.survived {
			err = fmt.Errorf("%d files cannot be read: %s", failed, f.fs.Stats().LastError)
		}
		if err != nil {
			return fmt.Errorf("met %d times: %w", p.times, err)
		}
		if err := f.mount(t.Context(), 300*time.Millisecond); err != nil {
			return err
		}
		broken(-1)
		if failed, err = f.read(want); err != nil {
			return fmt.Errorf("for good: %w", err)
		}
		eio.Add(int64(failed))
		broken(0)
		if err := f.right(want); err != nil {
			return fmt.Errorf("right in the end, after %d failures: %w", failed, err)
		}
		if st := f.fs.Stats(); failed > 0 && (st.Failed == 0 || st.LastError == "" || strings.Contains(st.LastError, faulttest.Mark)) {
			return fmt.Errorf("%d failed: %+v", failed, st)
		}
		return nil
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16) // most of the time goes by waiting
	for i, p := range phases {
		if testing.Short() && i%4 != 0 {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := one(p, filepath.Join(dir, fmt.Sprint(i))); err != nil {
				t.Errorf("%s%s@%d: %v", p.fault, p.breaks, p.at, err)
			}
		})
	}
	wg.Wait()
	if eio.Load() == 0 {
		t.Error("nothing ever failed: the faults were not met")
	}
}

// TestURLExpires: no reader notices that URLs live for a moment only, whether
// they say so or are just refused at some time, in the middle of everything.
func TestURLExpires(t *testing.T) {
	dir := mkdirs(t)
	data, want := farFiles()
	x, err := index.Build(t.Context(), source(data), index.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for name, opts := range map[string]faulttest.Options{
		"after a while": {Life: 1500 * time.Millisecond},
		"all of a sudden": {Schedule: func(n int) faulttest.Fault {
			if n%20 == 19 {
				return faulttest.Fault{Kind: faulttest.Forbidden}
			}
			return faulttest.Fault{Kind: faulttest.None}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := goFar(t.Context(), filepath.Join(dir, name), data, x, opts, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			if err := f.mount(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			urls := 4
			if testing.Short() {
				urls = 3
			}
			for end := time.Now().Add(time.Minute); f.server.Signed() < urls; {
				if failed, err := f.read(want); err != nil || failed > 0 {
					t.Fatalf("%d files cannot be read: %v %s", failed, err, f.fs.Stats().LastError)
				}
				if time.Now().After(end) {
					t.Fatalf("only %d URLs were asked for", f.server.Signed())
				}
			}
			if st := f.fs.Stats(); st.Failed != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestFirstPassWithFaults: the first pass and its readers get along with a bad
// server as well.
func TestFirstPassWithFaults(t *testing.T) {
	dir := mkdirs(t)
	data, want := farFiles()
	// Two refusals in a row are one for good.
	kinds := slices.DeleteFunc(slices.Clone(faulttest.Survivable), refusal)
	seeds := uint64(20)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		name := fmt.Sprint(seed)
		// Each request may meet a fault, so the pass takes some.
		f, err := goFar(t.Context(), filepath.Join(dir, name), data, nil, faulttest.Options{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.server.SetSchedule(faulttest.Random(seed, 0.4, 100<<10, kinds...))
		spans := &index.MemSpans{}
		g := index.NewGrowing(f.src, index.BuildOptions{})
		r := index.NewReader(g, f.src, spans, index.ReaderOptions{})
		pass := make(chan error, 1)
		go func() { pass <- g.Run(t.Context(), spans) }()
		f.fs, err = Mount(t.Context(), f.dir, g, r, Options{Deadline: time.Minute, Owner: &Owner{}})
		if err == nil {
			var failed int
			if failed, err = f.read(want); err == nil && failed > 0 {
				err = fmt.Errorf("%d files cannot be read: %s", failed, f.fs.Stats().LastError)
			}
		}
		if perr := <-pass; perr != nil || err != nil {
			t.Errorf("seed %d: %v, pass: %v\n%s", seed, err, perr, f.server.Faults())
		}
		if f.fs != nil {
			f.fs.Unmount(true)
			f.fs.Wait()
		}
		r.Close()
		g.Close()
		f.close()
	}
}
