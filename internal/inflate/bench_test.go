package inflate

import (
	"io"
	"os"
	"testing"
)

func BenchmarkFile(b *testing.B) {
	name := os.Getenv("INFLATE_FILE")
	if name == "" {
		b.Skip("INFLATE_FILE is not set")
	}
	data, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r := NewReader(FromBytes(data), Options{})
		n, err := r.WriteTo(io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(n)
		r.Close()
	}
}
