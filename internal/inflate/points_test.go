package inflate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"testing"
)

// record decodes gz and returns its points, with their slices cloned.
func record(gz []byte, opt Options) ([]Point, []byte, error) {
	var points []Point
	opt.OnPoint = func(p Point) error {
		p.Window, p.Tables = bytes.Clone(p.Window), bytes.Clone(p.Tables)
		points = append(points, p)
		return nil
	}
	out, err := decode(FromBytes(gz), opt, false)
	return points, out, err
}

// inputs are the texts, some longer than a few windows, by every encoder.
func inputs(t *testing.T, f func(t *testing.T, gz, data []byte)) {
	all := texts()
	big := map[string][]byte{"json": all["json"], "zeros": all["zeros"], "source": bytes.Repeat(all["source"], 3), "random": all["random"], "runs": all["runs"]}
	for name, data := range big {
		for _, enc := range encoders {
			t.Run(name+"/"+enc.name, func(t *testing.T) {
				t.Parallel()
				f(t, enc.encode(t, data), data)
			})
		}
	}
}

// TestResume decodes the rest of the stream from every point.
func TestResume(t *testing.T) {
	inputs(t, func(t *testing.T, gz, data []byte) {
		for _, spacing := range []int64{1, 3000, 64 << 10} {
			points, out, err := record(gz, Options{Spacing: spacing})
			if err != nil || !bytes.Equal(out, data) {
				t.Fatal(err)
			}
			if len(points) == 0 || points[0].In != 0 || points[0].Out != 0 {
				t.Fatal("no point at the start")
			}
			skip := 1 + len(points)/40
			for i := 0; i < len(points); i += skip {
				p := points[i]
				for _, slow := range []bool{false, true} {
					r := Resume(p, FromBytes(gz[p.In/8:]), Options{})
					r.onlySlow = slow
					var rest bytes.Buffer
					_, err := r.WriteTo(&rest)
					r.Close()
					if err != nil || !bytes.Equal(rest.Bytes(), data[p.Out:]) {
						t.Fatalf("spacing %d, point %d of %d (%+v): %d bytes, want %d; %v", spacing, i, len(points), brief(p), rest.Len(), len(data)-int(p.Out), err)
					}
				}
			}
		}
	})
}

func brief(p Point) string {
	return fmt.Sprintf("in %d.%d out %d member %v tables %d window %d", p.In/8, p.In%8, p.Out, p.Member, len(p.Tables), len(p.Window))
}

// TestResumeAgain records points while resuming: they are as good.
func TestResumeAgain(t *testing.T) {
	data := bytes.Repeat(texts()["source"], 3)
	gz := level(6).encode(t, data)
	points, _, _ := record(gz, Options{Spacing: 50_000})
	mid := points[len(points)/2]
	var again []Point
	r := Resume(mid, FromBytes(gz[mid.In/8:]), Options{Spacing: 20_000, OnPoint: func(p Point) error {
		p.Window, p.Tables = bytes.Clone(p.Window), bytes.Clone(p.Tables)
		again = append(again, p)
		return nil
	}})
	if _, err := io.Copy(io.Discard, r); err != nil || len(again) < 2 {
		t.Fatal(err, len(again))
	}
	for _, p := range again {
		rest, err := io.ReadAll(Resume(p, FromBytes(gz[p.In/8:]), Options{}))
		if err != nil || !bytes.Equal(rest, data[p.Out:]) || p.Out <= mid.Out {
			t.Fatalf("%s: %v", brief(p), err)
		}
	}
}

// TestSpacing: points lie at least the spacing apart and less than twice,
// even inside one block of many MiB; closer only where much compressed data
// lies between them. Their windows stay small.
func TestSpacing(t *testing.T) {
	big := bytes.Repeat(texts()["json"], 12)
	for _, enc := range []encoder{level(6), level(1), encoders[11], encoders[12], level(0)} {
		gz := enc.encode(t, big)
		const spacing = 128 << 10
		points, _, err := record(gz, Options{Spacing: spacing})
		if err != nil {
			t.Fatal(err)
		}
		inside, last, lastIn := 0, int64(0), int64(0)
		for i, p := range points {
			if len(p.Tables) > 0 {
				inside++
			}
			if len(p.Tables) > 319 || len(p.Window) > 32<<10 {
				t.Errorf("%s: %s", enc.name, brief(p))
			}
			dense := (p.In-lastIn)/8 >= spacing*3/8
			if gap := p.Out - last; i > 0 && (gap < spacing/2 && !dense || gap > 2*spacing) {
				t.Errorf("%s: gap of %d before %s", enc.name, gap, brief(p))
			}
			last, lastIn = p.Out, p.In
		}
		if int64(len(big))-last > 2*spacing {
			t.Errorf("%s: %d bytes behind the last point", enc.name, int64(len(big))-last)
		}
		if enc.name == "fixed codes" && inside != len(points)-1 {
			t.Errorf("%d points of %d inside the one block", inside, len(points))
		}
		t.Logf("%s: %d points, %d inside blocks", enc.name, len(points), inside)
	}
}

// TestDense: where data hardly compresses, no more compressed bytes than 3/8
// of the spacing and a block lie between points. A block of this encoder is
// below 64 KiB.
func TestDense(t *testing.T) {
	random := texts()["random"]
	noise := make([]byte, 2<<20)
	for i := range noise {
		noise[i] = random[i%len(random)] & 0x7f // seven bits of eight
	}
	gz := level(6).encode(t, noise)
	const spacing = 512 << 10
	points, _, err := record(gz, Options{Spacing: spacing})
	if err != nil || len(points) < 6 {
		t.Fatal(len(points), err)
	}
	for i, p := range points[1:] {
		if gap := (p.In - points[i].In) / 8; gap < spacing*3/8 || gap > spacing*3/8+64<<10 {
			t.Errorf("%d compressed bytes before %s", gap, brief(p))
		}
	}
}

// TestWindow: bytes that nothing refers to are zeros.
func TestWindow(t *testing.T) {
	random := texts()["random"]
	data := append(bytes.Clone(random), random[len(random)-5000:len(random)-4000]...)
	data = append(data, texts()["skewed"]...)
	gz := level(9).encode(t, data)
	points, _, _ := record(gz, Options{Spacing: 64 << 10})
	kept, all := 0, 0
	for _, p := range points {
		all += int(min(p.Out, 32<<10))
		for i, b := range p.Window {
			if b != 0 {
				kept++
				if at := int(p.Out) - len(p.Window) + i; data[at] != b {
					t.Fatalf("%s: other byte at %d", brief(p), at)
				}
			}
		}
	}
	if kept > all/2 {
		t.Errorf("%d of %d bytes kept", kept, all)
	}
}

func TestEnd(t *testing.T) {
	data := bytes.Repeat(texts()["source"], 3)
	gz := level(6).encode(t, data)
	points, _, _ := record(gz, Options{Spacing: 50_000})
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := points[rnd.IntN(len(points)-1)]
		off := p.Out + rnd.Int64N(min(60_000, int64(len(data))-p.Out))
		end := min(int64(len(data)), off+1+rnd.Int64N(5000))
		r := Resume(p, FromBytes(gz[p.In/8:]), Options{End: end})
		if err := r.Discard(off - p.Out); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, data[off:end]) {
			t.Fatalf("[%d, %d) from %s: %d bytes, %v", off, end, brief(p), len(got), err)
		}
	}
	if err := NewReader(FromBytes(gz), Options{}).Discard(int64(len(data)) + 1); err != io.ErrUnexpectedEOF {
		t.Errorf("Discard beyond the end: %v", err)
	}
}

// ranged decodes gz through its points.
func ranged(gz []byte, points []Point, workers int, yield func(int64, []byte) error) error {
	return DecodeRanges(context.Background(), points, RangeOptions{Size: int64(len(gz)), Workers: workers},
		func(_ context.Context, lo, hi int64) (Source, error) { return FromBytes(gz[lo:hi]), nil }, yield)
}

func TestDecodeRanges(t *testing.T) {
	inputs(t, func(t *testing.T, gz, data []byte) {
		for _, spacing := range []int64{1, 10_000, 64 << 10} {
			points, _, err := record(gz, Options{Spacing: spacing})
			if err != nil {
				t.Fatal(err)
			}
			var out []byte
			err = ranged(gz, points, 3, func(off int64, b []byte) error {
				if off != int64(len(out)) {
					t.Errorf("offset %d after %d bytes", off, len(out))
				}
				out = append(out, b...)
				return nil
			})
			if err != nil || !bytes.Equal(out, data) {
				t.Fatalf("spacing %d: %d bytes, want %d: %v", spacing, len(out), len(data), err)
			}
		}
	})
}

func TestDecodeRangesErrors(t *testing.T) {
	data := bytes.Repeat(texts()["json"], 8)
	gz := level(6).encode(t, data)
	points, _, _ := record(gz, Options{Spacing: 64 << 10})
	drop := func(int64, []byte) error { return nil }
	boom := errors.New("boom")
	calls := 0
	if err := ranged(gz, points, 2, func(int64, []byte) error {
		if calls++; calls == 3 {
			return boom
		}
		return nil
	}); err != boom || calls != 3 {
		t.Errorf("error of yield: %v after %d calls", err, calls)
	}
	if err := DecodeRanges(context.Background(), points, RangeOptions{}, func(context.Context, int64, int64) (Source, error) { return nil, boom }, drop); err != boom {
		t.Errorf("error of open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := DecodeRanges(ctx, points, RangeOptions{}, func(context.Context, int64, int64) (Source, error) { return FromBytes(gz), nil }, drop); err != context.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	bad := bytes.Clone(gz)
	bad[len(bad)/2] ^= 4
	if err := ranged(bad, points, 2, drop); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrTruncated) {
		t.Errorf("a flipped bit: %v", err)
	}
	for name, change := range map[string]func(p []Point){
		"CRC":     func(p []Point) { p[3].CRC++ },
		"size":    func(p []Point) { p[3].Size++ },
		"in":      func(p []Point) { p[3].In++ },
		"out":     func(p []Point) { p[3].Out++ },
		"less":    func(p []Point) { p[3].Out-- },
		"window":  func(p []Point) { clear(p[3].Window) },
		"short":   func(p []Point) { p[3].Window = p[3].Window[len(p[3].Window)-1:] },
		"long":    func(p []Point) { p[3].Window = make([]byte, 40_000) },
		"tables":  func(p []Point) { p[3].Tables = []byte{0, 0, 0, 1, 2, 3} },
		"member":  func(p []Point) { p[3].Member = true },
		"swapped": func(p []Point) { p[3], p[4] = p[4], p[3] },
	} {
		wrong := append([]Point(nil), points...)
		wrong[3].Window = bytes.Clone(wrong[3].Window)
		change(wrong)
		if err := ranged(gz, wrong, 2, drop); err == nil {
			t.Errorf("a point with a wrong %s goes unnoticed", name)
		}
	}
}

func TestOnPointError(t *testing.T) {
	boom := errors.New("boom")
	gz := level(6).encode(t, texts()["json"])
	_, err := decode(FromBytes(gz), Options{Spacing: 1 << 16, OnPoint: func(Point) error { return boom }}, false)
	if err != boom {
		t.Errorf("got %v", err)
	}
}

func TestRawPoints(t *testing.T) {
	data := bytes.Repeat(texts()["source"], 2)
	raw := level(6).encode(t, data)[10:]
	points, out, err := record(raw, Options{Raw: true, Spacing: 64 << 10})
	if err != nil || !bytes.Equal(out, data) || len(points) < 2 {
		t.Fatal(err, len(points))
	}
	for _, p := range points {
		r := Resume(p, FromBytes(raw[p.In/8:]), Options{Raw: true})
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data[p.Out:]) {
			t.Fatalf("%s: %v", brief(p), err)
		}
	}
}

// TestPointsAlike checks that points are the same however the input is cut and
// whatever buffers are filled, and that OnCut foretells each.
func TestPointsAlike(t *testing.T) {
	inputs(t, func(t *testing.T, gz, data []byte) {
		const spacing = 64 << 10
		want, _, err := record(gz, Options{Spacing: spacing})
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(3, uint64(len(gz))))
		for range 4 {
			var slices [][]byte
			for rest := gz; len(rest) > 0; {
				n := min(len(rest), 1+rnd.IntN(1<<(1+rnd.IntN(16))))
				slices, rest = append(slices, rest[:n]), rest[n:]
			}
			var got []Point
			var cuts []int64
			r := NewReader(FromBytes(slices...), Options{Spacing: spacing,
				OnCut: func(in, out int64) { cuts = append(cuts, out) },
				OnPoint: func(p Point) error {
					p.Window, p.Tables = bytes.Clone(p.Window), bytes.Clone(p.Tables)
					got = append(got, p)
					return nil
				}})
			var off int64
			for {
				seen := len(cuts)
				out, err := r.Fill(make([]byte, MinBuffer+rnd.IntN(200_000)))
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				for _, c := range cuts[seen:] {
					if c < off || c > off+int64(len(out)) {
						t.Fatalf("cut at %d comes with bytes [%d,%d)", c, off, off+int64(len(out)))
					}
				}
				off += int64(len(out))
			}
			r.Close()
			for i := range max(len(got), len(want)) {
				if i >= min(len(got), len(want)) || !reflect.DeepEqual(got[i], want[i]) {
					t.Fatalf("point %d of %d is %s, want one of %d: %s", i, len(got), brief(got[min(i, len(got)-1)]), len(want), brief(want[min(i, len(want)-1)]))
				}
			}
			for i, p := range want {
				if cuts[i] != p.Out {
					t.Fatalf("cut %d at %d, its point at %d", i, cuts[i], p.Out)
				}
			}
		}
	})
}
