package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

// tinySizes make guesses in small streams, whatever else runs on the machine.
var tinySizes = aheadSizes{slab: 2 << 10, lead: 0, unit: 8 << 10, long: time.Hour}

// ahead decodes with two goroutines and more, as extraction does.
func ahead(src Source, processors int, sizes aheadSizes) (out []byte, taken int64, err error) {
	a := newAhead(src, processors, true, sizes)
	parts := make(chan *Part, 4)
	quit := make(chan struct{})
	go func() {
		defer close(parts)
		var buf []byte
		for i := 0; ; i++ {
			if buf == nil {
				buf = make([]byte, MinBuffer+i%7*500)
			}
			p := a.Fill(buf)
			if !p.Elsewhere() {
				buf = nil
			}
			select {
			case parts <- p:
			case <-quit:
				return
			}
			if p.Last() {
				return
			}
		}
	}()
	for err == nil {
		var p *Part
		select {
		case p = <-parts:
		default:
			if a.Help() {
				runtime.Gosched()
				continue
			}
			p = <-parts
		}
		var data []byte
		data, err = p.Finish()
		out = append(out, data...)
		p.Release()
	}
	close(quit)
	for range parts {
	}
	taken = a.taken
	a.Close()
	return out, taken, err
}

// aheadInTurn decodes with one goroutine: first all the help that there is, then
// a part. So guesses are always there when the reader comes.
func aheadInTurn(src Source, sizes aheadSizes) (out []byte, taken int64, err error) {
	a := newAhead(src, 2, true, sizes)
	defer a.Close()
	for err == nil {
		a.readUp()
		for a.Help() {
		}
		p := a.Fill(make([]byte, MinBuffer+len(out)%5000))
		var data []byte
		data, err = p.Finish()
		out = append(out, data...)
		p.Release()
	}
	return out, a.taken, err
}

// readUp waits until nothing more will be read before Fill wants some.
func (a *Ahead) readUp() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.srcErr == nil && len(a.slabs) <= aheadSlabs*3/4 {
		a.changed.Wait()
	}
}

// sameEnd says whether two errors are the same, to the offsets. (Where the
// decoder stands in the input at a bit that is no symbol depends on slices.)
func sameEnd(a, b error) bool {
	var x, y *Error
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return a == b
	}
	return x.What == y.What && x.Err == y.Err && x.Out == y.Out && (x.Err != ErrChecksum || x.In == y.In)
}

func mustBeSame(t *testing.T, what string, out, want []byte, err, wantErr error) {
	t.Helper()
	if wantErr == nil {
		wantErr = io.EOF
	}
	if !sameEnd(err, wantErr) || !bytes.Equal(out, want) {
		t.Fatalf("%s: %d bytes, %v; want %d bytes, %v; the same up to %d", what, len(out), err, len(want), wantErr, common(out, want))
	}
}

func common(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func TestAheadIsReader(t *testing.T) {
	var taken int64
	for name, data := range texts() {
		if !testing.Short() {
			data = bytes.Repeat(data, 1+min(3, 400_000/(1+len(data))))
		}
		for _, enc := range encoders {
			gz := enc.encode(t, data)
			out, n, err := ahead(FromBytes(gz), 2+len(gz)%3, tinySizes)
			mustBeSame(t, name+", "+enc.name, out, data, err, nil)
			taken += n
			out, n, err = aheadInTurn(FromBytes(gz), tinySizes)
			mustBeSame(t, name+", "+enc.name+", in turn", out, data, err, nil)
			taken += n
			out, _, err = ahead(pieces(gz, 7777), 1, usualSizes)
			mustBeSame(t, name+", "+enc.name+", alone", out, data, err, nil)
		}
	}
	if taken < 100_000 {
		t.Errorf("%d bytes of guesses were taken: too few to say anything", taken)
	}
}

// gzips are streams in which there is something to guess.
func gzips(t testing.TB) map[string][]byte {
	data := bytes.Join([][]byte{texts()["source"], texts()["json"], texts()["skewed"], texts()["runs"], texts()["pi"], texts()["unicode"]}, nil)
	return map[string][]byte{
		"one":     level(6).encode(t, data),
		"fast":    framed("", klauspost(1)).encode(t, data),
		"flushes": encoders[9].encode(t, data),
		"two":     slices.Concat(level(9).encode(t, data), level(6).encode(t, data), make([]byte, 100)),
	}
}

func TestAheadFaults(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for name, gz := range gzips(t) {
		faulty := map[string][]byte{
			"tail":  append(bytes.Clone(gz), 'x'),
			"short": gz[:len(gz)-1],
		}
		end := len(bytes.TrimRight(gz, "\x00")) // nearly the trailer's
		for i := range 12 {
			b := bytes.Clone(gz)
			b[end-1-i] ^= 0x10
			faulty[fmt.Sprintf("trailer %d", i)] = b
		}
		flips := 40
		if testing.Short() {
			flips = 4
		}
		for i := range flips {
			b := bytes.Clone(gz)
			b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			faulty[fmt.Sprintf("flip %d", i)] = b
			faulty[fmt.Sprintf("cut %d", i)] = gz[:rnd.IntN(len(gz))]
		}
		for what, b := range faulty {
			want, wantErr := decode(FromBytes(b), Options{}, false)
			p := 1 + rnd.IntN(4)
			out, _, err := ahead(FromBytes(b), p, tinySizes)
			mustBeSame(t, fmt.Sprintf("%s, %s, %d processors", name, what, p), out, want, err, wantErr)
			out, _, err = aheadInTurn(FromBytes(b), tinySizes)
			mustBeSame(t, name+", "+what+", in turn", out, want, err, wantErr)
		}
	}
}

// A source's error comes when the reader gets there, and as it was.
func TestAheadSourceFails(t *testing.T) {
	gz := gzips(t)["one"]
	broken := errors.New("broken")
	for _, n := range []int{0, 1, 5000, len(gz) - 3} {
		want, _ := decode(FromBytes(gz[:n]), Options{}, false)
		for p := 1; p <= 3; p++ {
			out, _, err := ahead(&failing{data: gz[:n], err: broken}, p, tinySizes)
			mustBeSame(t, fmt.Sprintf("%d bytes, %d processors", n, p), out, want, err, broken)
		}
	}
}

// failing gives its bytes together with an error.
type failing struct {
	data []byte
	err  error
}

func (f *failing) Next() ([]byte, error) {
	b := f.data
	f.data = nil
	return b, f.err
}

// Close in the middle leaves no goroutine, which would still read.
func TestAheadClosed(t *testing.T) {
	gz := gzips(t)["one"]
	before := runtime.NumGoroutine()
	for p := 1; p <= 4; p++ {
		a := newAhead(FromBytes(bytes.Repeat(gz, 20)), p, true, tinySizes)
		for range 3 {
			if _, err := a.Fill(make([]byte, MinBuffer)).Finish(); err != nil {
				t.Fatal(err)
			}
			a.Help()
		}
		a.Close()
		if a.Help() {
			t.Error("help was wanted after Close")
		}
	}
	for runtime.NumGoroutine() > before {
		runtime.Gosched()
	}
}

// Small members have nothing to guess: it is tried less and less often.
func TestAheadGivesUp(t *testing.T) {
	gz := bytes.Repeat(level(6).encode(t, texts()["source"][:60_000]), 100)
	a := newAhead(FromBytes(gz), 2, true, tinySizes)
	defer a.Close()
	tries := 0
	for {
		a.readUp()
		for a.Help() {
		}
		if _, err := a.Fill(make([]byte, MinBuffer)).Finish(); err != nil {
			break
		}
		tries = max(tries, a.misses)
	}
	if tries > 20 {
		t.Errorf("%d guesses in a row came to nothing in %d bytes", tries, len(gz))
	}
}

// FuzzAhead holds Ahead against Reader. The input is the DEFLATE stream behind
// blocks that fill the window, once as it is and once compressed.
func FuzzAhead(f *testing.F) {
	seeds(f, func(gz []byte) {
		f.Add(gz[10:], byte(len(gz)), byte(1))
		f.Add(gz[10:], byte(0), byte(7))
	})
	window := bytes.Repeat(texts()["json"][:9000], 4)
	var front bytes.Buffer
	z, _ := flate.NewWriter(&front, 6)
	z.Write(window)
	z.Flush()
	f.Fuzz(func(t *testing.T, in []byte, how, slab byte) {
		if len(in) > maxFuzz {
			return
		}
		body := append(bytes.Clone(front.Bytes()), in...)
		if how&1 != 0 {
			var buf bytes.Buffer
			z, _ := flate.NewWriter(&buf, int(how%9)+1)
			for range 2 + how>>4 {
				z.Write(window[:9000+100*int(how)])
				z.Write(in)
				z.Flush()
			}
			z.Close()
			body = buf.Bytes()
		}
		gz := member(body, window)
		if how&2 != 0 {
			gz = append(gz, in...)
		}
		sizes := tinySizes
		sizes.slab = 64 + 64*int(slab)
		sizes.unit = int64(sizes.slab)
		want, wantErr := decode(FromBytes(gz), Options{}, false)
		out, _, err := aheadInTurn(FromBytes(gz), sizes)
		mustBeSame(t, "in turn", out, want, err, wantErr)
		out, _, err = ahead(pieces(gz, 1+int(how)*3), 2+int(how)%3, sizes)
		mustBeSame(t, "at once", out, want, err, wantErr)
	})
}
