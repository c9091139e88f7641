package inflate

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	kgzip "github.com/klauspost/compress/gzip"
)

// The benchmarks decode a few MiB in memory, in bytes of output per second.
// For figures to publish, and for other corpora, see bench/inflate.
var benchTexts = []string{"source", "json", "skewed", "zeros"}

func benchmark(b *testing.B, run func(b *testing.B, gz []byte)) {
	for _, name := range benchTexts {
		data := texts()[name]
		data = bytes.Repeat(data, 1+(4<<20)/len(data))
		gz := level(6).encode(b, data)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			run(b, gz)
		})
	}
}

func BenchmarkReader(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		r := NewReader(nil, Options{})
		defer r.Close()
		for b.Loop() {
			r.Reset(FromBytes(gz))
			if _, err := r.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSlow(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		r := NewReader(nil, Options{})
		r.onlySlow = true
		defer r.Close()
		for b.Loop() {
			r.Reset(FromBytes(gz))
			if _, err := r.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPoints(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		r := NewReader(nil, Options{OnPoint: func(Point) error { return nil }})
		defer r.Close()
		for b.Loop() {
			r.Reset(FromBytes(gz))
			if _, err := r.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRanges(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		points, _, err := record(gz, Options{Spacing: 256 << 10})
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if err := ranged(gz, points, 0, func(int64, []byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkKlauspost(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		r := new(kgzip.Reader)
		for b.Loop() {
			if err := r.Reset(bytes.NewReader(gz)); err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, r)
		}
	})
}

func BenchmarkStandard(b *testing.B) {
	benchmark(b, func(b *testing.B, gz []byte) {
		r := new(gzip.Reader)
		for b.Loop() {
			if err := r.Reset(bytes.NewReader(gz)); err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, r)
		}
	})
}
