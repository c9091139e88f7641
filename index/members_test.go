package index

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"

	"objectmount/internal/archivetest"
)

// letters is n bytes of text.
func letters(n int, seed int) []byte {
	lines := make([]string, 997)
	for i := range lines {
		lines[i] = fmt.Sprintf("line %d of %d, ", i*i%9973, i)
	}
	var b bytes.Buffer
	for i := seed; b.Len() < n; i++ {
		b.WriteString(lines[i*i%len(lines)])
	}
	return b.Bytes()[:n]
}

func indexOf(t *testing.T, data []byte) *Index {
	t.Helper()
	x, err := Build(context.Background(), ReaderSource(bytes.NewReader(data), int64(len(data))), BuildOptions{})
	must(t, err)
	t.Cleanup(func() { x.Close() })
	return x
}

// TestMemberStarts: where a gzip has many members, spans begin where members
// do, and no window is kept.
func TestMemberStarts(t *testing.T) {
	stream := archivetest.Tar(archivetest.File("a", string(letters(3<<20, 1))))
	for _, size := range []int{65280, 300_000, 1 << 20} { // bgzip's, and larger ones
		var members [][]byte
		starts := map[int64]bool{}
		at := int64(0)
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			m := archivetest.Gzip(rest[:n])
			starts[at] = true
			members, at, rest = append(members, m), at+int64(len(m)), rest[n:]
		}
		x := indexOf(t, archivetest.Join(members...))
		if x.NumSpans() < 3 {
			t.Errorf("members of %d: %d spans", size, x.NumSpans())
		}
		for i := range x.NumSpans() {
			s, err := x.spanRow(i)
			must(t, err)
			// A block boundary right before a member's end may be as good.
			if begins := s.member && s.in%8 == 0 && starts[s.in/8]; !begins && size < 1<<20 || s.window != 0 || s.packed != 0 {
				t.Errorf("members of %d: span %d is %+v", size, i, s)
			}
		}
	}
}

// TestIndependentBlocks: pigz -i makes blocks that refer to nothing before
// them, and that a span begins with one costs no window either.
func TestIndependentBlocks(t *testing.T) {
	stream := archivetest.Tar(archivetest.File("a", string(letters(4<<20, 1))))
	data := []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}
	for rest := stream; len(rest) > 0; {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, 6)
		must(t, err)
		n := min(128<<10, len(rest))
		_, err = w.Write(rest[:n])
		must(t, err)
		must(t, w.Flush())
		data, rest = append(data, b.Bytes()...), rest[n:]
	}
	data = append(data, 3, 0)
	data = binary.LittleEndian.AppendUint32(data, crc32.ChecksumIEEE(stream))
	data = binary.LittleEndian.AppendUint32(data, uint32(len(stream)))
	x := indexOf(t, data)
	if x.NumSpans() < 3 {
		t.Errorf("%d spans", x.NumSpans())
	}
	for i := range x.NumSpans() {
		if s, err := x.spanRow(i); err != nil || s.window != 0 {
			t.Errorf("span %d is %+v, %v", i, s, err)
		}
	}
}

// eStargz is an archive as stargz-snapshotter makes it: each chunk of a file a
// member, at the end a table of contents as a file, and a footer of 51 bytes, an
// empty member whose extra field says where the table is.
func eStargz(toc string, files map[string][]byte, names []string) []byte {
	data := archivetest.Gzip(archivetest.Dir("d/"))
	for _, name := range names {
		content := files[name]
		entry := archivetest.File(name, string(content))
		head := entry[:len(entry)-len(archivetest.Pad(string(content)))]
		data = append(data, archivetest.Gzip(head)...)
		for rest := entry[len(head):]; len(rest) > 0; {
			n := min(3_700_000, len(rest))
			data, rest = append(data, archivetest.Gzip(rest[:n])...), rest[n:]
		}
	}
	at := len(data)
	data = append(data, archivetest.Gzip(archivetest.Tar(archivetest.File("stargz.index.json", toc)))...)
	extra := fmt.Sprintf("%016xSTARGZ", at)
	field := append([]byte{byte(len(extra) + 4), 0, 'S', 'G', byte(len(extra)), 0}, extra...)
	return append(data, archivetest.Member{Flags: 4, Fields: field}.Bytes()...)
}

// TestEStargz indexes an eStargz archive, and sees in it what tar sees: the
// table and the landmark are files like all others, and what the table says has
// no influence.
func TestEStargz(t *testing.T) {
	files := map[string][]byte{
		".no.prefetch.landmark": {0xf}, "d/large": letters(9<<20, 1), "d/small": []byte("small"), "d/empty": nil, "last": letters(1<<20, 2),
	}
	names := []string{".no.prefetch.landmark", "d/large", "d/small", "d/empty", "last"}
	for _, toc := range []string{
		`{"version":1,"entries":[{"name":"d/","type":"dir"},{"name":"d/small","type":"reg","size":5,"offset":1,"chunkDigest":"sha256:00"}]}`,
		`{"version":1,"entries":[{"name":"../../etc/shadow","type":"reg","size":1099511627776}]}`, "", "no JSON",
	} {
		if testing.Short() && toc != "no JSON" {
			continue
		}
		data := eStargz(toc, files, names)
		if footer := data[len(data)-51:]; !strings.Contains(string(footer), "STARGZ") {
			t.Fatalf("%q is no footer", footer)
		}
		x := indexOf(t, data)
		files["stargz.index.json"] = []byte(toc)
		if got := x.NumRows(); got != 1+1+len(files) { // root, d
			t.Errorf("%d rows", got)
		}
		r := NewReader(x, ReaderSource(bytes.NewReader(data), int64(len(data))), nil, ReaderOptions{})
		for name, want := range files {
			row, err := uint32(0), error(nil)
			for part := range strings.SplitSeq(name, "/") {
				if err == nil {
					row, err = x.Lookup(context.Background(), row, part)
				}
			}
			must(t, err)
			got := make([]byte, len(want))
			if _, err := r.ReadFileAt(context.Background(), row, got, 0); err != nil && err != io.EOF || !bytes.Equal(got, want) {
				t.Errorf("%s: other content, %v", name, err)
			}
		}
		must(t, r.Close())
		// Where chunks begin, spans do; inside of large ones others do.
		members := 0
		for i := range x.NumSpans() {
			s, err := x.spanRow(i)
			must(t, err)
			if s.member {
				members++
			}
		}
		if members < 3 { // at 0, 3.7 and 7.4 MB
			t.Errorf("%d of %d spans begin with a chunk", members, x.NumSpans())
		}
	}
}
