package index

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// member is an entry as both readers can tell it.
type member struct {
	Name, Link string
	Type       Type
	Mode       uint32
	UID, GID   int64
	ModTime    time.Time
	Size       int64
	Content    string // with its holes as zeros
}

// readOurs lists an archive with TarReader, its stream cut into pieces.
func readOurs(data []byte, piece int) ([]member, error) {
	t := NewTarReader(&pieces{data: data, n: piece}, TarLimits{})
	var all []member
	for {
		e, err := t.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		m := member{Name: string(e.Name), Link: string(e.Link), Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime, Size: e.Size}
		if e.Size > maxTestFile {
			return all, errTooLarge
		}
		sparse := append([]Extent(nil), e.Sparse...)
		holes := e.Sparse != nil
		var stored []byte
		for {
			p, err := t.ReadContent()
			if err == io.EOF {
				break
			}
			if err != nil {
				return all, err
			}
			stored = append(stored, p...)
		}
		if holes {
			full := make([]byte, e.Size)
			for _, x := range sparse {
				copy(full[x.Off:x.Off+x.Len], stored)
				stored = stored[x.Len:]
			}
			stored = full
		}
		m.Content = string(stored)
		all = append(all, m)
	}
}

// maxTestFile keeps a fuzzed sparse file from filling the memory.
const maxTestFile = 48 << 20 // the sparse files of TestGNUTar are 41 MiB

var errTooLarge = errors.New("too large for a test")

// pieces is a Stream of slices of n bytes; it overwrites what it gave before,
// as a reused buffer would.
type pieces struct {
	data []byte
	n    int
	buf  []byte
}

func (p *pieces) Next() ([]byte, error) {
	for i := range p.buf {
		p.buf[i] = 0xEE
	}
	if len(p.data) == 0 {
		return nil, io.EOF
	}
	p.buf = append(p.buf[:0], p.data[:min(p.n, len(p.data))]...)
	p.data = p.data[len(p.buf):]
	return p.buf, nil
}

// readTheirs lists it with the standard library.
func readTheirs(data []byte) ([]member, error) {
	r := tar.NewReader(bytes.NewReader(data))
	var all []member
	for {
		h, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == 'V' {
			continue
		}
		m := member{Name: h.Name, Link: h.Linkname, Type: Type(h.Typeflag), Mode: uint32(h.Mode) & 0o7777, UID: int64(h.Uid), GID: int64(h.Gid), ModTime: h.ModTime, Size: h.Size}
		switch h.Typeflag {
		case tar.TypeCont, tar.TypeGNUSparse:
			m.Type = TypeFile
		}
		if m.Type != TypeHardLink && m.Type != TypeSymlink {
			m.Link = ""
		}
		if h.Size > maxTestFile {
			return all, errTooLarge
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return all, err
		}
		m.Content = string(b)
		if m.Type == TypeFile && strings.HasSuffix(h.Name, "/") {
			m.Type = TypeDir
		}
		if h.Typeflag == 'D' { // its content is GNU tar's own list of names
			m.Type, m.Size, m.Content = TypeDir, 0, ""
		}
		all = append(all, m)
	}
}

// TestGoCorpus reads the standard library's own test archives as it does,
// but for those that are refused on purpose.
func TestGoCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goroot(), "src/archive/tar/testdata/*.tar"))
	if err != nil || len(files) < 20 {
		t.Fatalf("the corpus of archive/tar is not there: %d files, %v", len(files), err)
	}
	refused := map[string]string{ // why we are stricter
		"hdr-only.tar":           "content",                // links and directories with a size
		"pax-multi-hdrs.tar":     "two PAX headers",        // which of two counts?
		"gnu-multi-hdrs.tar":     "two long name",          // likewise
		"gnu-long-nul.tar":       "NUL inside",             // one reader would see a shorter name
		"pax-path-hdr.tar":       "before its entry",       // nothing to rename
		"pax-nul-path.tar":       "NUL",                    // both refuse
		"pax-global-records.tar": "global PAX header sets", // renames every file that follows
	}
	for _, f := range files {
		name := filepath.Base(f)
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			theirs, theirErr := readTheirs(data)
			for _, piece := range []int{1 << 20, 512, 100, 7} {
				ours, ourErr := readOurs(data, piece)
				if why := refused[name]; why != "" {
					if ourErr == nil || !strings.Contains(ourErr.Error(), why) {
						t.Fatalf("pieces of %d: got error %v, want one about %q", piece, ourErr, why)
					}
					continue
				}
				if errors.Is(ourErr, errTooLarge) {
					continue
				}
				if (ourErr == nil) != (theirErr == nil) {
					t.Fatalf("pieces of %d: ours %v, archive/tar %v", piece, ourErr, theirErr)
				}
				if ourErr == nil {
					forgiveGo17(theirs, ours)
					if diff := cmp.Diff(theirs, ours); diff != "" {
						t.Fatalf("pieces of %d (-archive/tar +ours):\n%s", piece, diff)
					}
				}
			}
		})
	}
}

// forgiveGo17 levels one known difference: archive/tar undoes a fault of Go
// before 1.8, which wrote a ustar prefix into GNU headers. GNU tar has no
// prefix there, and neither have we.
func forgiveGo17(theirs, ours []member) {
	for i := range min(len(theirs), len(ours)) {
		if strings.HasSuffix(theirs[i].Name, "/"+ours[i].Name) {
			theirs[i].Name = ours[i].Name
		}
	}
}

// TestGNUTar reads what GNU tar writes in each of its formats.
func TestGNUTar(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("e", 90) + "/" + strings.Repeat("f", 90)
	must(t, os.MkdirAll(filepath.Join(dir, "src", long), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "src", long, "file"), []byte("deep"), 0o640))
	must(t, os.WriteFile(filepath.Join(dir, "src", "plain"), bytes.Repeat([]byte("x"), 1500), 0o755))
	must(t, os.Symlink("plain", filepath.Join(dir, "src", "link")))
	must(t, os.Link(filepath.Join(dir, "src", "plain"), filepath.Join(dir, "src", "hard")))
	must(t, os.WriteFile(filepath.Join(dir, "src", "na\xffme"), nil, 0o600))
	holes, err := os.Create(filepath.Join(dir, "src", "holes"))
	must(t, err)
	for i := range 40 { // more ranges than one header block holds
		_, err := holes.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, 4096), int64(i)*1<<20)
		must(t, err)
	}
	must(t, holes.Truncate(41<<20))
	must(t, holes.Close())
	for _, format := range []string{"gnu", "oldgnu", "posix", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"} {
		t.Run(format, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "a.tar")
			args := append([]string{"-C", dir, "-cf", out, "--sparse"}, strings.Fields("--format="+format)...)
			if b, err := exec.Command("tar", append(args, "src")...).CombinedOutput(); err != nil {
				t.Fatalf("tar: %v\n%s", err, b)
			}
			data, err := os.ReadFile(out)
			must(t, err)
			theirs, err := readTheirs(data)
			must(t, err)
			for _, piece := range []int{1 << 20, 512, 333} {
				ours, err := readOurs(data, piece)
				must(t, err)
				if diff := cmp.Diff(theirs, ours); diff != "" {
					t.Fatalf("pieces of %d (-archive/tar +ours):\n%.2000s", piece, diff)
				}
			}
			if len(theirs) != 10 {
				t.Fatalf("%d entries, want 10", len(theirs))
			}
		})
	}
}

// TestTruncated cuts an archive at every byte: never a panic, and no cut in
// the middle of an entry is taken for the end.
func TestTruncated(t *testing.T) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(t, w.WriteHeader(&tar.Header{Name: strings.Repeat("n", 300), Size: 700, Mode: 0o644}))
	_, err := w.Write(make([]byte, 700))
	must(t, err)
	must(t, w.WriteHeader(&tar.Header{Name: "b", Size: 1, Mode: 0o644}))
	_, err = w.Write([]byte("x"))
	must(t, err)
	must(t, w.Close())
	whole := buf.Bytes()
	ends := map[int]bool{} // cuts after which the archive may be whole
	for _, e := range []int{512 + 512 + 512 + 1024, len(whole) - 1024, len(whole) - 512, len(whole)} {
		ends[e] = true
	}
	ends[0] = true
	for n := range len(whole) + 1 {
		_, err := readOurs(whole[:n], 4096)
		if (err == nil) != ends[n] {
			t.Errorf("cut at %d of %d: error %v", n, len(whole), err)
		}
		if err != nil && !errors.Is(err, ErrTarTruncated) && !errors.Is(err, ErrTarCorrupt) {
			t.Errorf("cut at %d: %v is no TarError", n, err)
		}
	}
}

// TestRefused has one case for each rule of this package.
func TestRefused(t *testing.T) {
	file := func(name string) *tar.Header { return &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg} }
	pax := func(records ...string) []byte {
		var body []byte
		for _, r := range records {
			n := len(r) + 3
			for len(fmt.Sprint(n))+len(r)+2 != n {
				n = len(fmt.Sprint(n)) + len(r) + 2
			}
			body = append(body, fmt.Sprintf("%d %s\n", n, r)...)
		}
		return body
	}
	for _, c := range []struct {
		name  string
		parts [][]byte
		want  error
		rule  string
	}{
		{"two PAX headers", [][]byte{ext('x', pax("path=a")), ext('x', pax("path=b")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "two PAX headers"},
		{"long name and PAX path", [][]byte{ext('L', []byte("a\x00")), ext('x', pax("path=b")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "a long name and a PAX path"},
		{"NUL in a PAX path", [][]byte{ext('x', pax("path=a\x00b")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "NUL"},
		{"NUL in a long name", [][]byte{ext('L', []byte("a\x00b")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "NUL"},
		{"PAX record longer than the header", [][]byte{ext('x', []byte("99 path=a\n")), raw(file("c"), '0', 0)}, ErrTarCorrupt, "malformed"},
		{"PAX record that ends elsewhere", [][]byte{ext('x', []byte("9 path=abc\n")), raw(file("c"), '0', 0)}, ErrTarCorrupt, "malformed"},
		{"negative PAX size", [][]byte{ext('x', pax("size=-1")), raw(file("c"), '0', 0)}, ErrTarCorrupt, "no number"},
		{"PAX size over int64", [][]byte{ext('x', pax("size=9223372036854775808")), raw(file("c"), '0', 0)}, ErrTarCorrupt, "no number"},
		{"PAX size at the end of int64", [][]byte{ext('x', pax("size=9223372036854775807")), raw(file("c"), '0', 0)}, ErrTarLimit, "impossible"},
		{"global path", [][]byte{ext('g', pax("path=evil")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "sets \"path\" for all"},
		{"global linkpath", [][]byte{ext('g', pax("linkpath=evil")), raw(file("c"), '0', 0)}, ErrTarAmbiguous, "for all"},
		{"extension at the end", [][]byte{ext('x', pax("path=a"))}, ErrTarCorrupt, "before its entry"},
		{"long name at the end", [][]byte{ext('L', []byte("a\x00"))}, ErrTarCorrupt, "before its entry"},
		{"huge extension", [][]byte{raw(file("x"), 'x', 2<<20)}, ErrTarLimit, "more than 1048576 (max-header)"},
		{"hard link with content", [][]byte{raw(&tar.Header{Name: "l", Linkname: "a"}, '1', 512)}, ErrTarAmbiguous, "content"},
		{"symbolic link without target", [][]byte{raw(file("l"), '2', 0)}, ErrTarCorrupt, "without a target"},
		{"no name", [][]byte{raw(file(""), '0', 0)}, ErrTarCorrupt, "no name"},
		{"unknown type", [][]byte{raw(file("q"), 'Q', 0)}, ErrTarAmbiguous, "unknown type"},
		{"multi-volume", [][]byte{raw(file("q"), 'M', 0)}, ErrTarCorrupt, "multi-volume"},
		{"size that is no number", [][]byte{patch(raw(file("c"), '0', 0), 124, "12a")}, ErrTarCorrupt, "size"},
		{"checksum", [][]byte{flip(raw(file("c"), '0', 0))}, ErrTarCorrupt, "checksum"},
		{"lone zero block", [][]byte{make([]byte, 512), raw(file("c"), '0', 0)}, ErrTarCorrupt, "lone zero block"},
		{"sparse 1.0 of a petabyte map", [][]byte{ext('x', pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=a", "GNU.sparse.realsize=1125899906842624")), raw(file("c"), '0', 512), pad("1000000000000\n")}, ErrTarCorrupt, "malformed sparse map"},
		{"sparse overlap", [][]byte{ext('x', pax("GNU.sparse.size=10", "GNU.sparse.numblocks=2", "GNU.sparse.map=0,5,4,5")), raw(file("c"), '0', 10), pad("0123456789")}, ErrTarCorrupt, "overlaps"},
		{"sparse out of file", [][]byte{ext('x', pax("GNU.sparse.size=10", "GNU.sparse.map=8,5")), raw(file("c"), '0', 5), pad("01234")}, ErrTarCorrupt, "leaves the file"},
		{"sparse sum", [][]byte{ext('x', pax("GNU.sparse.size=10", "GNU.sparse.map=0,4")), raw(file("c"), '0', 5), pad("01234")}, ErrTarCorrupt, "the archive 5"},
		{"sparse count", [][]byte{ext('x', pax("GNU.sparse.size=10", "GNU.sparse.numblocks=3", "GNU.sparse.map=0,5")), raw(file("c"), '0', 5), pad("01234")}, ErrTarCorrupt, "announced"},
		{"sparse without real size", [][]byte{ext('x', pax("GNU.sparse.map=0,5")), raw(file("c"), '0', 5), pad("01234")}, ErrTarCorrupt, "real size"},
		{"sparse format 2.0", [][]byte{ext('x', pax("GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.realsize=1")), raw(file("c"), '0', 0)}, ErrTarCorrupt, "unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := bytes.Join(append(c.parts, make([]byte, 1024)), nil)
			_, err := readOurs(data, 512)
			var te *TarError
			if !errors.Is(err, c.want) || !errors.As(err, &te) || !strings.Contains(te.Rule, c.rule) {
				t.Fatalf("got %v, want %v about %q", err, c.want, c.rule)
			}
		})
	}
}

// TestAccepted are the oddities that are read, and how.
func TestAccepted(t *testing.T) {
	v7dir := raw(&tar.Header{Name: "old/", Mode: 0o755}, 0, 0)
	copy(v7dir[257:265], make([]byte, 8))
	sum(v7dir)
	dump := append(raw(&tar.Header{Name: "dump/", Mode: 0o755}, 'D', 5), pad("Yfile")...)
	label := raw(&tar.Header{Name: "a tape"}, 'V', 0)
	data := bytes.Join([][]byte{label, v7dir, dump, raw(&tar.Header{Name: "cont", Mode: 0o600}, '7', 3), pad("abc"), make([]byte, 512)}, nil)
	got, err := readOurs(data, 100)
	must(t, err)
	var list []string
	for _, m := range got {
		list = append(list, fmt.Sprintf("%s %v %q", m.Name, m.Type, m.Content))
	}
	want := []string{`old/ directory ""`, `dump/ directory ""`, `cont file "abc"`}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Fatal(diff)
	}
}

// raw is a header block of the given type and size, its checksum right.
func raw(h *tar.Header, flag byte, size int64) []byte {
	b := make([]byte, 512)
	copy(b, h.Name)
	copy(b[100:], fmt.Sprintf("%07o\x00%07o\x00%07o\x00%011o\x00%011o\x00", h.Mode, 0, 0, size, 0))
	b[156] = flag
	copy(b[157:], h.Linkname)
	copy(b[257:], "ustar\x0000")
	sum(b)
	return b
}

func sum(b []byte) {
	copy(b[148:156], "        ")
	n := 0
	for _, c := range b {
		n += int(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", n))
}

func patch(b []byte, at int, s string) []byte { copy(b[at:], s); sum(b); return b }
func flip(b []byte) []byte                    { b[0] ^= 1; return b }
func pad(s string) []byte                     { return append([]byte(s), make([]byte, padding(int64(len(s))))...) }

// ext is an extension header with its body.
func ext(flag byte, body []byte) []byte {
	return append(raw(&tar.Header{Name: "ext"}, flag, int64(len(body))), pad(string(body))...)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestChecksum: the sum of eight bytes at a time is that of each.
func TestChecksum(t *testing.T) {
	b := make([]byte, 512)
	for i := range 1000 {
		for k := range b {
			b[k] = byte(k*k*i>>3 + i + k) // all of them, in no order
		}
		if i < 2 {
			for k := range b {
				b[k] = 0xff * byte(i)
			}
		}
		sum(b)
		if !checksumOK(b) {
			t.Fatalf("block %d: the sum of its bytes is not taken", i)
		}
		b[i%148]++
		if checksumOK(b) {
			t.Fatalf("block %d: one byte more is taken", i)
		}
		b[i%148]--
		signed := 0
		for k, c := range b {
			if k >= 148 && k < 156 {
				c = ' '
			}
			signed += int(int8(c))
		}
		if signed >= 0 {
			copy(b[148:156], fmt.Sprintf("%06o\x00 ", signed))
			if !checksumOK(b) {
				t.Fatalf("block %d: the sum of signed bytes is not taken", i)
			}
		}
	}
}

// goroot is where the Go tree lies.
func goroot() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(out))
}
