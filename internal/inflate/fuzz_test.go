package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// maxFuzz bounds an input, and with it what it can decode to (1,032 times).
const maxFuzz = 4 << 10

// sentinel is the error that err wraps.
func sentinel(err error) error {
	for _, s := range []error{ErrCorrupt, ErrTruncated, ErrChecksum, ErrTrailing} {
		if errors.Is(err, s) {
			return s
		}
	}
	return err
}

// prefixes reports whether one is the beginning of the other.
func prefixes(a, b []byte) bool { return bytes.HasPrefix(a, b) || bytes.HasPrefix(b, a) }

// seeds adds small streams of every kind.
func seeds(f *testing.F, add func(gz []byte)) {
	for _, name := range []string{"gettysburg", "runs", "json", "random"} {
		for _, n := range []int{0, 300, 3000} {
			data := texts()[name]
			data = data[:min(n, len(data))]
			for _, enc := range encoders {
				if gz := enc.encode(f, data); len(gz) <= maxFuzz {
					add(gz)
				}
			}
		}
	}
	files, _ := filepath.Glob("testdata/*.gz")
	for _, name := range files {
		gz, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		add(gz)
	}
}

// FuzzReader holds the fast and the slow loop against the standard library,
// on the input as DEFLATE, as gzip, and as DEFLATE in a right gzip frame.
// slice is the length of the slices the input comes in.
func FuzzReader(f *testing.F) {
	seeds(f, func(gz []byte) {
		f.Add(gz, uint16(0))
		f.Add(gz[10:], uint16(7))
	})
	f.Fuzz(func(t *testing.T, in []byte, slice uint16) {
		if len(in) > maxFuzz {
			return
		}
		src := func(b []byte) Source {
			if slice == 0 {
				return FromBytes(bytes.Clone(b))
			}
			return pieces(b, int(slice))
		}
		both := func(b []byte, opt Options) ([]byte, error) {
			out, err := decode(src(b), opt, false)
			slow, slowErr := decode(src(b), opt, true)
			if sentinel(err) != sentinel(slowErr) || err == nil && !bytes.Equal(out, slow) || !prefixes(out, slow) {
				t.Fatalf("fast: %d bytes, %v; slow: %d bytes, %v", len(out), err, len(slow), slowErr)
			}
			return out, err
		}

		want, wantErr := io.ReadAll(flate.NewReader(bytes.NewReader(in)))
		got, err := both(in, Options{Raw: true})
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) || !prefixes(got, want) {
			t.Fatalf("DEFLATE: %d bytes, %v; compress/flate: %d bytes, %v", len(got), err, len(want), wantErr)
		}
		if wantErr == nil {
			left := bytes.NewReader(in)
			io.Copy(io.Discard, flate.NewReader(left)) // a ByteReader is not read beyond the stream
			got, err := both(member(in[:len(in)-left.Len()], want), Options{})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("framed: %d bytes, %v; want %d", len(got), err, len(want))
			}
		}

		want, wantErr = gunzip(in)
		got, err = both(in, Options{})
		switch {
		case err == nil && wantErr != nil:
			// We take zero padding and names over 512 bytes.
			if !padded(in, got) && wantErr != gzip.ErrHeader || !prefixes(got, want) {
				t.Fatalf("gzip: accepted, %d bytes; compress/gzip: %d bytes, %v", len(got), len(want), wantErr)
			}
		case err != nil && wantErr == nil:
			// We refuse reserved flags.
			var e *Error
			if !errors.As(err, &e) || e.What != errFlags.what {
				t.Fatalf("gzip: %v; compress/gzip accepts it, %d bytes", err, len(want))
			}
		case err == nil && !bytes.Equal(got, want):
			t.Fatalf("gzip: %d bytes; compress/gzip: %d other bytes", len(got), len(want))
		}
	})
}

// padded reports whether in less some of the zeros at its end is a gzip file
// of out. (Some of them may belong to the trailer.)
func padded(in, out []byte) bool {
	n := len(bytes.TrimRight(in, "\x00"))
	for ; n <= len(in); n++ {
		if got, err := gunzip(in[:n]); err == nil {
			return bytes.Equal(got, out)
		}
	}
	return false
}

// FuzzResume records points of a stream, which is the input itself or the
// input compressed, and decodes the rest from each, and all ranges in
// parallel. Then it takes the input for a point, which must do no harm.
func FuzzResume(f *testing.F) {
	seeds(f, func(gz []byte) {
		f.Add(gz[10:], uint16(300), byte(255))
		f.Add(gz, uint16(1), byte(len(gz)))
	})
	f.Fuzz(func(t *testing.T, in []byte, spacing uint16, how byte) {
		if len(in) > maxFuzz {
			return
		}
		stream, opt := in, Options{Raw: true, Spacing: int64(spacing)}
		if how < 128 { // so that there are long and valid streams, too
			var buf bytes.Buffer
			z, err := flate.NewWriter(&buf, int(how%12)-2)
			if err != nil {
				return
			}
			for i := range 1 + int(how>>4) {
				z.Write(in)
				if how&8 != 0 && i%2 == 0 {
					z.Flush()
				}
			}
			z.Close()
			stream, opt.Raw = member(buf.Bytes(), bytes.Repeat(in, 1+int(how>>4))), false
		}
		points, out, err := record(stream, opt)
		if how < 128 && err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(points); i += 1 + len(points)/8 {
			p := points[i]
			r := Resume(p, pieces(stream[p.In/8:], 1+int(how)*5), Options{Raw: opt.Raw})
			r.onlySlow = i%2 == 1
			rest, restErr := io.ReadAll(r)
			r.Close()
			if sentinel(err) != sentinel(restErr) || err == nil && !bytes.Equal(rest, out[p.Out:]) || !prefixes(rest, out[p.Out:]) {
				t.Fatalf("from %s: %d bytes, %v; want %d, %v", brief(p), len(rest), restErr, len(out)-int(p.Out), err)
			}
		}
		if err == nil && len(points) > 0 {
			var all []byte
			err := DecodeRanges(context.Background(), points, RangeOptions{Raw: opt.Raw, Size: int64(len(stream)), Workers: 2},
				func(_ context.Context, lo, hi int64) (Source, error) { return FromBytes(stream[lo:hi]), nil },
				func(_ int64, data []byte) error { all = append(all, data...); return nil })
			if err != nil || !bytes.Equal(all, out) {
				t.Fatalf("ranges: %d bytes, %v; want %d", len(all), err, len(out))
			}
		}

		cut := min(len(in), int(spacing))
		p := Point{In: int64(how & 7), Out: int64(len(in)), Window: in[:cut], Member: how == 200}
		if cut > 3 {
			p.Tables = in[:min(cut, 3+257+int(in[1])+1+int(in[2]))]
		}
		var got [2][]byte
		var errs [2]error
		for i := range 2 {
			r := Resume(p, FromBytes(bytes.Clone(in[cut:])), Options{Raw: how&1 == 0})
			r.onlySlow = i == 1
			got[i], errs[i] = io.ReadAll(r)
			r.Close()
		}
		if sentinel(errs[0]) != sentinel(errs[1]) || !prefixes(got[0], got[1]) {
			t.Fatalf("from a made-up point: fast %d bytes, %v; slow %d bytes, %v", len(got[0]), errs[0], len(got[1]), errs[1])
		}
	})
}
