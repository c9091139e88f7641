package extract

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"objectmount/internal/archivetest"
)

// TestReserve: a large file has its blocks before its bytes have come, if the
// object can hold what it says; what is published has neither more nor less.
func TestReserve(t *testing.T) {
	const size = reserveFrom + 12345
	var st unix.Statfs_t
	must(t, unix.Statfs(t.TempDir(), &st))
	if st.Type == unix.TMPFS_MAGIC {
		lacking(t, "blocks are not set aside in memory")
	}
	header := archivetest.Entry{Name: "large", Size: size}.Bytes()
	content := make([]byte, size+(-size&(blockSize-1))+2*blockSize)
	whole := int64(len(header) + len(content))
	for _, c := range []struct {
		name  string
		size  int64 // that the object is said to have
		early bool
	}{
		{"an object that can hold it", whole, true},
		{"an object of unknown size", 0, false},
		{"an object that is too small", whole / 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := t.TempDir() + "/x"
			var blocks int64
			const half = 20 << 20
			r := io.MultiReader(bytes.NewReader(header), bytes.NewReader(content[:half]), readerFunc(func([]byte) (int, error) {
				// The ring holds a few MiB, so the file is there by now.
				found, _ := filepath.Glob(filepath.Dir(path) + "/.x.stage-*/new/large")
				if len(found) == 1 && blocks == 0 {
					var st unix.Stat_t
					must(t, unix.Stat(found[0], &st))
					blocks = st.Blocks * 512
				}
				return 0, io.EOF
			}), bytes.NewReader(content[half:]))
			_, err := Extract(t.Context(), r, path, Options{Size: c.size})
			if (err == nil) != (c.size != whole/2) {
				t.Fatal(err)
			}
			if err == nil {
				var st unix.Stat_t
				must(t, unix.Stat(path+"/large", &st))
				if st.Size != size || st.Blocks*512 < size || st.Blocks*512 > size+1<<20 {
					t.Errorf("%d bytes in %d", st.Size, st.Blocks*512)
				}
			}
			if blocks == 0 {
				t.Fatal("the file was not seen")
			}
			if early := blocks >= size; early != c.early {
				t.Errorf("%d bytes on disk half-way, of %d", blocks, size)
			}
		})
	}
	if b := (&budget{holdable: 1 << 40}); b.reserveBlocks(-1, 1<<40) != nil {
		t.Error("a file that cannot be allocated is an error")
	}
}
