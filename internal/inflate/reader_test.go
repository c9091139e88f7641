package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"
)

// member is a gzip member of a DEFLATE stream that decodes to data.
func member(deflated, data []byte) []byte {
	b := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	b = append(b, deflated...)
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(data))
	return binary.LittleEndian.AppendUint32(b, uint32(len(data)))
}

// decode reads a stream to its end, in one of several ways.
func decode(src Source, opt Options, slow bool) ([]byte, error) {
	r := NewReader(src, opt)
	r.onlySlow = slow
	defer r.Close()
	var out bytes.Buffer
	_, err := r.WriteTo(&out)
	return out.Bytes(), err
}

// pieces cuts b into slices of n bytes.
func pieces(b []byte, n int) Source {
	var all [][]byte
	for len(b) > 0 {
		k := min(n, len(b))
		all = append(all, bytes.Clone(b[:k])) // its own, so that checkptr and the race detector see its end
		b = b[k:]
	}
	return FromBytes(all...)
}

func TestReader(t *testing.T) {
	for name, data := range texts() {
		for _, enc := range encoders {
			t.Run(name+"/"+enc.name, func(t *testing.T) {
				t.Parallel()
				gz := enc.encode(t, data)
				if ref, err := gunzip(gz); err != nil || !bytes.Equal(ref, data) {
					t.Fatalf("the encoder is wrong: %v", err)
				}
				check := func(how string, got []byte, err error) {
					t.Helper()
					if err != nil || !bytes.Equal(got, data) {
						t.Errorf("%s: got %d bytes, want %d; error %v", how, len(got), len(data), err)
					}
				}
				got, err := decode(FromBytes(gz), Options{}, false)
				check("whole", got, err)
				got, err = decode(FromBytes(gz), Options{}, true)
				check("slow loop", got, err)
				got, err = decode(pieces(gz, 1), Options{}, false)
				check("one-byte slices", got, err)
				for _, n := range []int{31, 100, 4099} {
					got, err = decode(pieces(gz, n), Options{}, false)
					check("slices", got, err)
				}
				r := NewReader(FromReader(iotest.DataErrReader(bytes.NewReader(gz))), Options{})
				got, err = io.ReadAll(iotest.OneByteReader(r))
				check("one-byte reads", got, err)
				r.Reset(FromReader(iotest.HalfReader(bytes.NewReader(gz))))
				got, err = io.ReadAll(r)
				check("after Reset", got, err)
				r.Close()
				got, err = fillAll(NewReader(FromBytes(gz), Options{}), rand.New(rand.NewPCG(1, 1)))
				check("Fill", got, err)
			})
		}
	}
}

// fillAll decodes into a ring of buffers of different sizes.
func fillAll(r *Reader, rnd *rand.Rand) ([]byte, error) {
	defer r.Close()
	var ring [3][]byte
	for i := range ring {
		ring[i] = make([]byte, MinBuffer+rnd.IntN(100_000))
	}
	var out []byte
	for i := 0; ; i++ {
		data, err := r.Fill(ring[i%3])
		if err == io.EOF {
			return out, nil
		} else if err != nil {
			return out, err
		}
		out = append(out, data...)
		clear(ring[(i+2)%3]) // only the last buffer has to stay as it is
	}
}

func gunzip(gz []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// TestStandardData holds us against the standard library on its own data.
func TestStandardData(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(goroot(), "src/compress/flate/testdata/*"))
	deflated := 0
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := io.ReadAll(flate.NewReader(bytes.NewReader(raw)))
		got, err := decode(FromBytes(raw), Options{Raw: true}, false)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s: error %v, compress/flate says %v", filepath.Base(f), err, wantErr)
		}
		if wantErr == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: other output than compress/flate", filepath.Base(f))
		}
		if wantErr == nil {
			deflated++
		}
	}
	t.Logf("%d files, %d of them DEFLATE", len(files), deflated)
}

// TestFiles decodes what other programs wrote; testdata has what cannot be
// made here: zlib's Z_RLE, Z_FIXED and Z_HUFFMAN_ONLY, and zopfli.
func TestFiles(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.gz")
	if len(files) < 4 {
		t.Fatal("testdata is missing")
	}
	for _, f := range files {
		gz, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		want, err := gunzip(gz)
		if err != nil {
			t.Fatal(f, err)
		}
		got, err := decode(FromBytes(gz), Options{}, false)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// TestPrograms decodes what the encoders on this machine write.
func TestPrograms(t *testing.T) {
	for _, cmd := range []string{"gzip -1", "gzip -6", "gzip -9", "pigz -6", "pigz -p 4", "pigz -p 4 -i", "pigz -0", "pigz -H", "pigz -U", "igzip -0", "igzip -3", "libdeflate-gzip -12"} {
		args := strings.Fields(cmd)
		path, err := exec.LookPath(args[0])
		if err != nil {
			t.Logf("%s is not installed", args[0])
			continue
		}
		for name, data := range texts() {
			c := exec.Command(path, append(args[1:], "-c")...)
			c.Stdin = bytes.NewReader(data)
			gz, err := c.Output()
			if err != nil {
				t.Logf("%s: %v", cmd, err)
				break
			}
			got, err := decode(FromBytes(gz), Options{}, false)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %s: got %d bytes, want %d; error %v", cmd, name, len(got), len(data), err)
			}
			if kr, err := kgzip.NewReader(bytes.NewReader(gz)); err == nil {
				if ref, err := io.ReadAll(kr); err != nil || !bytes.Equal(ref, got) {
					t.Errorf("%s of %s: klauspost/compress gives other output (%v)", cmd, name, err)
				}
			}
		}
	}
}

// TestTruncated cuts a file at every place: none is taken for its end.
func TestTruncated(t *testing.T) {
	for _, enc := range []encoder{level(0), level(6), encoders[9], encoders[11]} {
		gz := enc.encode(t, texts()["gettysburg"][:1200])
		r := NewReader(nil, Options{})
		defer r.Close()
		for n := range gz {
			for _, slow := range []bool{false, true} {
				r.onlySlow = slow
				r.Reset(FromBytes(gz[:n]))
				_, err := r.WriteTo(io.Discard)
				if !errors.Is(err, ErrTruncated) {
					t.Fatalf("%s cut at %d of %d: %v", enc.name, n, len(gz), err)
				}
			}
		}
	}
	// Between members a file is whole.
	one, two := level(6).encode(t, []byte("one")), level(6).encode(t, []byte("two"))
	if got, err := decode(FromBytes(one, two), Options{}, false); err != nil || string(got) != "onetwo" {
		t.Errorf("two members: %q, %v", got, err)
	}
}

// TestFlipped flips every bit of a file: no other output is taken for right,
// and memory stays whole (run with -race for checkptr).
func TestFlipped(t *testing.T) {
	data := append(bytes.Clone(texts()["gettysburg"]), texts()["json"][:3000]...)
	for _, enc := range []encoder{level(1), level(9), encoders[11]} {
		gz := enc.encode(t, data)
		r := NewReader(nil, Options{})
		defer r.Close()
		for i := 0; i < len(gz)*8; i++ {
			bad := bytes.Clone(gz)
			bad[i/8] ^= 1 << (i % 8)
			// MTIME and the like, and the bits that fill the last byte, matter not.
			var got bytes.Buffer
			r.Reset(FromBytes(bad))
			if _, err := r.WriteTo(&got); err == nil && !bytes.Equal(got.Bytes(), data) {
				t.Fatalf("%s: bit %d flipped and not noticed", enc.name, i)
			}
			if testing.Short() {
				i += 60
			}
		}
	}
}

func TestFraming(t *testing.T) {
	body := level(6).encode(t, []byte("hello"))
	plain := body[10:]
	header := func(flags byte, fields ...byte) []byte {
		h := append([]byte{0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3}, fields...)
		if flags&flagHeaderCRC != 0 {
			h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
		}
		return append(h, plain...)
	}
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	badCRC := header(flagHeaderCRC)
	badCRC[10] ^= 1
	badSum, badSize := bytes.Clone(body), bytes.Clone(body)
	badSum[len(body)-8] ^= 1
	badSize[len(body)-1] ^= 1
	long := header(flagName)
	long = cat(long[:10], bytes.Repeat([]byte{'n'}, 2<<20))
	for _, tt := range []struct {
		name string
		in   []byte
		want error
	}{
		{"plain", header(0), nil},
		{"name", header(flagName, 'f', 0), nil},
		{"comment", header(flagComment, 'c', 0), nil},
		{"extra", header(flagExtra, 3, 0, 'a', 'b', 'c'), nil},
		{"header CRC", header(flagHeaderCRC), nil},
		{"everything", header(flagExtra|flagName|flagComment|flagHeaderCRC|1, 1, 0, 'x', 'n', 0, 'c', 0), nil},
		{"zero padding", cat(body, make([]byte, 100_000)), nil},
		{"padding after two members", cat(body, body, make([]byte, 3)), nil},
		{"empty member between", cat(body, level(6).encode(t, nil), body), nil},
		{"nothing", nil, ErrTruncated},
		{"no gzip", []byte("<?xml version='1.0'?><Error>"), ErrCorrupt},
		{"only zeros", make([]byte, 100), ErrCorrupt},
		{"other method", cat([]byte{0x1f, 0x8b, 7}, body[3:]), ErrCorrupt},
		{"reserved flag", header(0x20), ErrCorrupt},
		{"wrong header CRC", badCRC, ErrChecksum},
		{"endless name", long, ErrCorrupt},
		{"wrong CRC", badSum, ErrChecksum},
		{"wrong length", badSize, ErrChecksum},
		{"trailing text", cat(body, []byte("x")), ErrTrailing},
		{"trailing magic", cat(body, []byte{0x1f}), ErrTruncated},
		{"half a magic", cat(body, []byte{0x1f, 0x8c}), ErrTrailing},
		{"padding, then text", cat(body, make([]byte, 10), []byte("x")), ErrTrailing},
		{"padding, then a member", cat(body, make([]byte, 10), body), ErrTrailing},
		{"second member cut", cat(body, body[:len(body)-1]), ErrTruncated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []int{1, 1 << 20} {
				_, err := decode(pieces(tt.in, n), Options{}, false)
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if tt.want != nil && !strings.Contains(err.Error(), "compressed byte") {
					t.Errorf("no offset in %q", err)
				}
			}
		})
	}
}

// TestCodes tries Huffman codes on the edge of what is one, against
// compress/flate.
func TestCodes(t *testing.T) {
	// block writes a dynamic header with all 19 code length codes of 5 bits
	// but 13 of them (which makes a complete code), then the lengths one by one.
	block := func(lit, dist []uint8, tail func(w *bitWriter)) []byte {
		w := &bitWriter{}
		w.put(1|2<<1, 3)
		w.put(uint64(len(lit)-257), 5)
		w.put(uint64(len(dist)-1), 5)
		w.put(19-4, 4)
		for _, sym := range preOrder { // 13 codes of 4 bits and 6 of 5 bits fill the space
			if sym < 13 {
				w.put(4, 3)
			} else {
				w.put(5, 3)
			}
		}
		for _, n := range append(bytes.Clone(lit), dist...) {
			if n < 13 {
				w.code(uint64(n), 4)
			} else {
				w.code(uint64(26+n-13), 5)
			}
		}
		if tail != nil {
			tail(w)
		}
		w.put(0, 40)
		return w.bytes()
	}
	lens := func(n int, set map[int]uint8) []uint8 {
		l := make([]uint8, n)
		for i, v := range set {
			l[i] = v
		}
		return l
	}
	two := lens(258, map[int]uint8{'a': 2, 256: 2, 257: 1})
	for _, tt := range []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"it accepts one distance code of one bit", block(two, []uint8{1}, func(w *bitWriter) { w.code(2, 2); w.code(0, 1); w.code(0, 1); w.code(3, 2) }), true},
		{"it refuses the other bit of it", block(two, []uint8{1}, func(w *bitWriter) { w.code(2, 2); w.code(0, 1); w.code(1, 1); w.code(3, 2) }), false},
		{"it refuses one distance code of two bits", block(two, []uint8{2}, func(w *bitWriter) { w.code(2, 2); w.code(3, 2) }), false},
		{"it accepts no distance code", block(two, []uint8{0}, func(w *bitWriter) { w.code(2, 2); w.code(3, 2) }), true},
		{"it refuses a match without a distance code", block(two, []uint8{0}, func(w *bitWriter) { w.code(2, 2); w.code(0, 1); w.code(0, 1); w.code(3, 2) }), false},
		{"it accepts a lone end of block", block(lens(257, map[int]uint8{256: 1}), []uint8{0}, func(w *bitWriter) { w.code(0, 1) }), true},
		{"it refuses the other bit of that", block(lens(257, map[int]uint8{256: 1}), []uint8{0}, func(w *bitWriter) { w.code(1, 1) }), false},
		{"it refuses a lone end of block of two bits", block(lens(257, map[int]uint8{256: 2}), []uint8{0}, nil), false},
		{"it refuses a block without end", block(lens(257, map[int]uint8{'a': 1, 'b': 1}), []uint8{1, 1}, nil), false},
		{"it refuses too many codes", block(lens(257, map[int]uint8{'a': 1, 'b': 1, 256: 1}), []uint8{1, 1}, nil), false},
		{"it refuses too few codes", block(lens(257, map[int]uint8{'a': 2, 'b': 2, 256: 2}), []uint8{1, 1}, nil), false},
		{"it refuses too many distance codes", block(two, []uint8{1, 1, 1}, nil), false},
		{"it refuses a distance before the start", block(two, []uint8{1, 1}, func(w *bitWriter) { w.code(2, 2); w.code(0, 1); w.code(1, 1); w.code(3, 2) }), false},
		{"it refuses 287 length codes", block(lens(287, map[int]uint8{'a': 1, 256: 1}), []uint8{1}, nil), false},
		{"it refuses 31 distance codes", block(two, make([]uint8, 31), func(w *bitWriter) { w.code(3, 2) }), false},
		{"it accepts codes of 15 bits", block(lens(270, map[int]uint8{'a': 1, 'b': 2, 'c': 3, 'd': 4, 'e': 5, 'f': 6, 'g': 7, 'h': 8, 'i': 9, 'j': 10, 'k': 11, 'l': 12, 'm': 13, 'n': 14, 'o': 15, 256: 15}), []uint8{1, 1},
			func(w *bitWriter) { w.code(1<<15-2, 15); w.code(0, 1); w.code(1<<15-1, 15) }), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, wantErr := io.ReadAll(flate.NewReader(bytes.NewReader(tt.in)))
			if (wantErr == nil) != tt.ok {
				t.Fatalf("compress/flate says %v", wantErr)
			}
			for _, pad := range []int{0, 100} { // the fast loop, too, gets to see it
				for _, slow := range []bool{false, true} {
					got, err := decode(FromBytes(append(bytes.Clone(tt.in), make([]byte, pad)...)), Options{Raw: true}, slow)
					if (err == nil) != tt.ok || tt.ok && !bytes.Equal(got, want) {
						t.Errorf("got %q, %v; compress/flate %q, %v", got, err, want, wantErr)
					}
				}
			}
		})
	}
}

// TestSourceError passes a source's failure on, after what came before it.
func TestSourceError(t *testing.T) {
	data := texts()["json"]
	gz := level(6).encode(t, data)
	boom := errors.New("boom")
	r := NewReader(FromReader(io.MultiReader(bytes.NewReader(gz[:len(gz)/2]), iotest.ErrReader(boom))), Options{})
	defer r.Close()
	got, err := io.ReadAll(r)
	if !errors.Is(err, boom) || len(got) < len(data)/4 || !bytes.HasPrefix(data, got) {
		t.Errorf("got %d bytes and %v", len(got), err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, boom) {
		t.Errorf("the error does not stay: %v", err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed reader reads")
	}
}

// idle gives empty slices for ever.
type idle struct{}

func (idle) Next() ([]byte, error) { return nil, nil }

func TestNoProgress(t *testing.T) {
	if _, err := decode(idle{}, Options{}, false); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v", err)
	}
}

// TestMemory: a stream takes less than 1 MiB, source and all.
func TestMemory(t *testing.T) {
	size := func(v any) int { return int(reflect.TypeOf(v).Size()) }
	n := size(Reader{}) + size(memory{}) + size(tables{}) + bufferSize + sourceBuffer
	if n > 1<<20 {
		t.Errorf("%d bytes", n)
	}
	t.Logf("%d KiB: reader %d, tables and window %d, fixed tables %d, buffer %d, source %d",
		n>>10, size(Reader{})>>10, size(memory{})>>10, size(tables{})>>10, bufferSize>>10, sourceBuffer>>10)
}

// TestAllocations: a stream of many blocks costs no more than one of few.
func TestAllocations(t *testing.T) {
	gz := level(1).encode(t, bytes.Repeat(texts()["source"], 20))
	r := NewReader(FromBytes(gz), Options{OnPoint: func(Point) error { return nil }})
	defer r.Close()
	n := testing.AllocsPerRun(5, func() {
		r.Reset(FromBytes(gz))
		if _, err := r.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
	})
	if n > 8 {
		t.Errorf("%v allocations for %d bytes", n, len(gz))
	}
}

// TestUnchecked decodes a member whose trailer is wrong, and nothing else of it.
func TestUnchecked(t *testing.T) {
	data := texts()["source"]
	gz := level(6).encode(t, data)
	gz[len(gz)-1] ^= 1
	gz[len(gz)-8] ^= 1
	gz = append(gz, level(1).encode(t, data)...)
	r := NewReader(FromBytes(gz), Options{Unchecked: true})
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, append(bytes.Clone(data), data...)) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	r.Reset(FromBytes(gz[:len(gz)-3]))
	if _, err := io.ReadAll(r); !errors.Is(err, ErrTruncated) {
		t.Fatalf("a cut trailer: %v", err)
	}
}
