package index_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// damageable is an archive with something of everything, and its index.
func damageable(t testing.TB, gzip bool) (data, file []byte) {
	stream := archivetest.Tar(
		archivetest.Dir("d/"),
		archivetest.PAX("SCHILY.xattr.user.a", "1", "SCHILY.xattr.user.b", "two", "mtime", "1.000000005"),
		archivetest.File("d/file", string(text(5000, 1))),
		archivetest.Symlink("d/link", "file"),
		archivetest.HardLink("hard", "d/file"),
		archivetest.PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize", "9000"),
		archivetest.Entry{Name: "x", Body: string(archivetest.Pad("2\n4096\n512\n8192\n512\n")) + string(text(1024, 2))}.Bytes(),
		archivetest.File("large", string(text(5<<18, 3))),
	)
	data = stream
	if gzip {
		data = gzipped(t, stream, 6)
	}
	return data, build(t, data, index.BuildOptions{Object: index.ObjectID{ID: "obj", ETag: `"e"`}}).Bytes()
}

// survey uses everything of an index, and says what it found; it must end, and
// must not panic.
func survey(x *index.Index, data []byte) (found []byte, err error) {
	ctx := context.Background()
	note := func(p ...byte) { found = append(found, p...) }
	number := func(v int64) { found = binary.LittleEndian.AppendUint64(found, uint64(v)) }
	keep := func(e error) bool {
		if e != nil && err == nil {
			err = e
		}
		return e == nil
	}
	r := index.NewReader(x, source(data), nil, index.ReaderOptions{ReadAhead: -1})
	defer r.Close()
	for row := range uint32(min(x.NumRows(), 50)) {
		a, e := x.Attr(row)
		if !keep(e) {
			continue
		}
		for _, v := range []int64{int64(a.Type), int64(a.Mode), int64(a.UID), int64(a.GID), a.Size, a.Stored, a.Sec, int64(a.Nsec), int64(a.Nlink), int64(a.Parent)} {
			number(v)
		}
		xattrs, e := x.Xattrs(row)
		keep(e)
		for _, a := range xattrs {
			note(a.Name...)
			note(a.Value...)
		}
		switch a.Type {
		case index.TypeDir:
			n := 0
			keep(x.Children(ctx, row, 0, func(pos int, c index.Child) bool {
				note([]byte(c.Name)...)
				number(int64(c.Row))
				got, e := x.Lookup(ctx, row, c.Name)
				if e == nil && got != c.Row || errors.Is(e, fs.ErrNotExist) {
					e = index.ErrDamaged // a directory that is out of order
				}
				keep(e)
				n++
				return n < 1000
			}))
		case index.TypeSymlink:
			s, e := x.ReadLink(row)
			keep(e)
			note([]byte(s)...)
		default:
			pieces, e := x.Extents(row)
			keep(e)
			for _, p := range pieces {
				number(p.Off)
				number(p.Stream)
				number(p.Len)
			}
			p := make([]byte, min(max(a.Size, 0), 1<<16))
			n, e := r.ReadFileAt(ctx, row, p, 0)
			if e != io.EOF {
				keep(e)
			}
			note(p[:n]...)
		}
	}
	for i := range min(x.NumSpans(), 50) {
		off, size, sum := x.Span(i)
		number(off)
		number(int64(size))
		number(int64(sum))
		n, e := r.ReadAt(ctx, make([]byte, 100), off+int64(size)/2)
		if e != io.EOF {
			keep(e)
		}
		number(int64(n))
	}
	return found, err
}

// TestDamage flips bits and cuts: an index is refused, or what is damaged is
// an error where it is used, or it does not matter; it never tells another
// story.
func TestDamage(t *testing.T) {
	for _, gzip := range []bool{false, true} {
		data, file := damageable(t, gzip)
		x, err := index.Parse(file, index.ObjectID{Size: -1})
		must(t, err)
		must(t, x.Verify())
		want, err := survey(x, data)
		must(t, err)
		rnd := rnd(1)
		silent := 0
		for i := range 300 {
			bad := bytes.Clone(file)
			at := rnd.IntN(len(bad))
			if i%3 == 0 {
				at = rnd.IntN(512) // the header
			}
			bad[at] ^= 1 << rnd.IntN(8)
			x, err := index.Parse(bad, index.ObjectID{Size: -1})
			if err != nil {
				if !errors.Is(err, index.ErrDamaged) {
					t.Fatalf("byte %d: %v", at, err)
				}
				continue
			}
			if err := x.Verify(); !errors.Is(err, index.ErrDamaged) {
				t.Fatalf("byte %d: Verify: %v", at, err)
			}
			got, err := survey(x, data)
			switch {
			case err == nil && bytes.Equal(got, want):
				silent++
			case err == nil:
				t.Fatalf("byte %d: another story", at)
			case !errors.Is(err, index.ErrDamaged):
				t.Fatalf("byte %d: %v", at, err)
			}
		}
		if silent > 0 {
			t.Logf("%d flips were not used", silent)
		}
		for n := 0; n < len(file); n += 1 + n/20 {
			if _, err := index.Parse(file[:n], index.ObjectID{Size: -1}); !errors.Is(err, index.ErrDamaged) {
				t.Fatalf("cut at %d: %v", n, err)
			}
		}
	}
}

// reseal makes all checksums of an index file right again, so that what is
// behind them is reached.
func reseal(file []byte) []byte {
	file = bytes.Clone(file)
	if len(file) < 512 {
		return file
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sums := file[96+16*9:] // the last section
	off, n := binary.LittleEndian.Uint64(sums), binary.LittleEndian.Uint64(sums[8:])
	if off >= 512 && off <= uint64(len(file)) && n <= uint64(len(file))-off {
		for k := uint64(0); 4*k+4 <= n; k++ {
			from := min(512+k<<16, off)
			binary.LittleEndian.PutUint32(file[off+4*k:], crc32.Checksum(file[from:min(from+1<<16, off)], table))
		}
		binary.LittleEndian.PutUint32(file[40:], crc32.Checksum(file[off:off+n], table))
	}
	binary.LittleEndian.PutUint64(file[16:], uint64(len(file)))
	binary.LittleEndian.PutUint32(file[508:], crc32.Checksum(file[:508], table))
	return file
}

// TestHostile changes an index whose checksums are then right, as who means
// harm would: anything may come out but a panic, an endless loop or bytes from
// outside.
func TestHostile(t *testing.T) {
	stream, _ := damageable(t, false)
	for _, gzip := range []bool{false, true} {
		data, file := damageable(t, gzip)
		if _, err := index.Parse(reseal(file), index.ObjectID{Size: -1}); err != nil || !bytes.Equal(reseal(file), file) {
			t.Fatal("reseal does not know the format", err)
		}
		rnd := rnd(2)
		rounds := 300
		if testing.Short() {
			rounds = 10
		}
		for range rounds {
			bad := bytes.Clone(file)
			for range 1 + rnd.IntN(4) {
				at := rnd.IntN(len(bad))
				if rnd.IntN(2) == 0 {
					at = rnd.IntN(min(2000, len(bad)))
				}
				copy(bad[at:], [][]byte{{0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {1}, {0x80}, {byte(rnd.Uint32())}}[rnd.IntN(5)])
			}
			if x, err := index.Parse(reseal(bad), index.ObjectID{Size: -1}); err == nil {
				survey(x, data)
				must(t, notForged(x, data, stream))
			}
		}
	}
}

// TestOpen refuses what is no index, and an index of something else.
func TestOpen(t *testing.T) {
	data, file := damageable(t, true)
	dir := t.TempDir()
	path := filepath.Join(dir, "index")
	must(t, os.WriteFile(path, file, 0o600))
	id := index.ObjectID{ID: "obj", ETag: `"e"`, Size: int64(len(data))}
	x, err := index.Open(path, id)
	must(t, err)
	if x.Object() != id || x.Format() != "tar.gz" || !x.HasSums() {
		t.Errorf("%+v, %s", x.Object(), x.Format())
	}
	if _, err := x.Lookup(bg, 1000, "x"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("row 1000: %v", err)
	}
	if _, err := x.Lookup(bg, 0, "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	must(t, x.Close())
	for name, want := range map[string]index.ObjectID{
		"size": {ID: "obj", Size: 1}, "id": {ID: "other", Size: id.Size}, "ETag": {Size: id.Size, ETag: `"f"`},
	} {
		if _, err := index.Open(path, want); !errors.Is(err, index.ErrMismatch) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for _, content := range []string{"", "short", string(make([]byte, 4096))} {
		must(t, os.WriteFile(path, []byte(content), 0o600))
		if _, err := index.Open(path, id); !errors.Is(err, index.ErrDamaged) {
			t.Errorf("%d bytes: %v", len(content), err)
		}
	}
	if _, err := index.Open(filepath.Join(dir, "missing"), id); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestPublish sends an index through its published form.
func TestPublish(t *testing.T) {
	data, file := damageable(t, true)
	id := index.ObjectID{ID: "obj", Size: int64(len(data)), ETag: `"e"`}
	x, err := index.Parse(file, id)
	must(t, err)
	var b bytes.Buffer
	must(t, x.Publish(&b))
	meta := x.Metadata()
	must(t, index.CheckMetadata(meta, id))
	dir := t.TempDir()
	path := filepath.Join(dir, "index")
	got, err := index.Install(bytes.NewReader(b.Bytes()), path, id, meta[index.MetaDigest])
	must(t, err)
	if !bytes.Equal(got.Bytes(), file) {
		t.Error("another index came out")
	}
	must(t, got.Close())
	must(t, os.Remove(path))

	other := id
	other.ETag = `"f"`
	if err := index.CheckMetadata(meta, other); !errors.Is(err, index.ErrMismatch) {
		t.Errorf("metadata of another version: %v", err)
	}
	if err := index.CheckMetadata(nil, id); !errors.Is(err, index.ErrMismatch) {
		t.Errorf("no metadata: %v", err)
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r      io.Reader
		id     index.ObjectID
		digest string
		want   error
	}{
		"of another version": {bytes.NewReader(b.Bytes()), other, "", index.ErrMismatch},
		"another digest":     {bytes.NewReader(b.Bytes()), id, "00", index.ErrMismatch},
		"cut":                {bytes.NewReader(b.Bytes()[:b.Len()/2]), id, "", index.ErrDamaged},
		"empty":              {bytes.NewReader(nil), id, "", index.ErrDamaged},
		"no zstd":            {bytes.NewReader(file), id, "", index.ErrDamaged},
		"a broken reader":    {io.MultiReader(bytes.NewReader(b.Bytes()[:100]), errorReader{broken}), id, "", broken},
	} {
		if _, err := index.Install(c.r, path, c.id, c.digest); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", slices.Collect(func(yield func(string) bool) {
			for _, e := range left {
				yield(e.Name())
			}
		}), err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// TestCut: a file that loses its pages under the mapping is an error for who
// reads it, not the end of the program.
func TestCut(t *testing.T) {
	_, file := damageable(t, true)
	path := filepath.Join(t.TempDir(), "index")
	must(t, os.WriteFile(path, file, 0o600))
	x, err := index.Open(path, index.ObjectID{Size: -1})
	must(t, err)
	defer x.Close()
	must(t, os.Truncate(path, 0))
	_, err = x.Lookup(bg, 0, "d")
	_, err2 := x.Attr(1)
	for _, err := range []error{err, err2, x.Verify(), x.Publish(io.Discard)} {
		if !errors.Is(err, index.ErrDamaged) {
			t.Errorf("a file that was cut: %v", err)
		}
	}
}
