package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// goroot is where the Go tree lies.
var goroot = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
})

// texts are inputs of different kinds, each a few hundred KiB at most, so
// that every encoder below can be tried on each.
var texts = sync.OnceValue(func() map[string][]byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	skewed := make([]byte, 200_000) // as hard as the bytes of floats
	for i := range skewed {
		skewed[i] = byte(128 + 20*rnd.NormFloat64())
		if i%2 == 0 {
			skewed[i] = byte(rnd.Uint32())
		}
	}
	var runs []byte // all short distances and all lengths
	for len(runs) < 300_000 {
		n := 1 + rnd.IntN(40)
		pat := make([]byte, n)
		for i := range pat {
			pat[i] = byte(rnd.Uint32())
		}
		for range 1 + rnd.IntN(600/n+2) {
			runs = append(runs, pat...)
		}
	}
	var json []byte
	for i := range 3000 {
		json = fmt.Appendf(json, `{"id":"%016x","score":%v,"role":"%s","text":"line %d of many"}`+"\n", rnd.Uint64(), rnd.Float64(), []string{"user", "assistant"}[i%2], i)
	}
	all := map[string][]byte{
		"empty": nil, "byte": {'x'}, "zeros": make([]byte, 400_000),
		"random": random, "skewed": skewed, "runs": runs, "json": json,
	}
	for name, file := range map[string]string{
		"source": "net/http/server.go", "unicode": "unicode/tables.go",
		"e":  "compress/testdata/e.txt",
		"pi": "compress/testdata/pi.txt", "gettysburg": "compress/testdata/gettysburg.txt",
	} {
		if b, err := os.ReadFile(filepath.Join(goroot(), "src", file)); err == nil {
			all[name] = b
		}
	}
	if testing.Short() { // enough for two windows
		for name, data := range all {
			all[name] = data[:min(len(data), 70_000)]
		}
	}
	return all
})

// An encoder makes a gzip file.
type encoder struct {
	name   string
	encode func(t testing.TB, data []byte) []byte
}

func level(n int) encoder {
	return encoder{fmt.Sprintf("std %d", n), func(t testing.TB, data []byte) []byte {
		var buf bytes.Buffer
		w, err := gzip.NewWriterLevel(&buf, n)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		return buf.Bytes()
	}}
}

// framed makes one gzip member of a DEFLATE stream written by write.
func framed(name string, write func(w io.Writer, data []byte) error) encoder {
	return encoder{name, func(t testing.TB, data []byte) []byte {
		var buf bytes.Buffer
		if err := write(&buf, data); err != nil {
			t.Fatal(err)
		}
		return member(buf.Bytes(), data)
	}}
}

var encoders = []encoder{
	level(0), level(1), level(6), level(9), level(gzip.HuffmanOnly),
	framed("klauspost 1", klauspost(1)), framed("klauspost 5", klauspost(5)), framed("klauspost 9", klauspost(9)),
	framed("klauspost stateless", func(w io.Writer, data []byte) error {
		z := kflate.NewStatelessWriter(w)
		z.Write(data)
		return z.Close()
	}),
	framed("sync flushes", func(w io.Writer, data []byte) error {
		z, err := flate.NewWriter(w, 6)
		for len(data) > 0 && err == nil {
			n := min(len(data), 1000)
			z.Write(data[:n])
			err = z.Flush()
			data = data[n:]
		}
		z.Close()
		return err
	}),
	framed("full flushes", func(w io.Writer, data []byte) error {
		for len(data) > 40_000 {
			z, _ := flate.NewWriter(w, 6)
			z.Write(data[:40_000])
			if err := z.Flush(); err != nil {
				return err
			}
			data = data[40_000:]
		}
		z, _ := flate.NewWriter(w, 6)
		z.Write(data)
		return z.Close()
	}),
	framed("fixed codes", func(w io.Writer, data []byte) error {
		_, err := w.Write(fixedBlock(data))
		return err
	}),
	{"members", func(t testing.TB, data []byte) []byte {
		var out []byte
		for len(data) > 30_000 {
			out = append(out, level(6).encode(t, data[:30_000])...)
			data = data[30_000:]
		}
		out = append(out, level(6).encode(t, nil)...)
		return append(out, level(1).encode(t, data)...)
	}},
}

func klauspost(level int) func(io.Writer, []byte) error {
	return func(w io.Writer, data []byte) error {
		z, err := kflate.NewWriter(w, level)
		if err != nil {
			return err
		}
		z.Write(data)
		return z.Close()
	}
}

// bitWriter writes DEFLATE by hand.
type bitWriter struct {
	out []byte
	acc uint64
	n   int
}

func (w *bitWriter) put(v uint64, n int) {
	w.acc |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
	}
}

// code puts a Huffman code, whose first bit is its highest.
func (w *bitWriter) code(v uint64, n int) {
	for n--; n >= 0; n-- {
		w.put(v>>n&1, 1)
	}
}

func (w *bitWriter) bytes() []byte {
	if w.n > 0 {
		w.put(0, 8-w.n)
	}
	return w.out
}

func (w *bitWriter) fixedSymbol(sym int) {
	switch {
	case sym < 144:
		w.code(uint64(0x30+sym), 8)
	case sym < 256:
		w.code(uint64(0x190+sym-144), 9)
	case sym < 280:
		w.code(uint64(sym-256), 7)
	default:
		w.code(uint64(0xc0+sym-280), 8)
	}
}

// fixedBlock is data as one block of the fixed codes: literals, and a match
// at distance 1 or 2 wherever there is one.
func fixedBlock(data []byte) []byte {
	w := &bitWriter{}
	w.put(1|1<<1, 3)
	for i := 0; i < len(data); {
		matched := false
		for dist := 1; dist <= 2 && !matched; dist++ {
			n := 0
			for i >= dist && i+n < len(data) && n < 258 && data[i+n] == data[i+n-dist] {
				n++
			}
			if n == 258 || n >= 3 && n <= 10 {
				if n == 258 {
					w.fixedSymbol(285)
				} else {
					w.fixedSymbol(254 + n)
				}
				w.code(uint64(dist-1), 5)
				i += n
				matched = true
			}
		}
		if !matched {
			w.fixedSymbol(int(data[i]))
			i++
		}
	}
	w.fixedSymbol(256)
	return w.bytes()
}
