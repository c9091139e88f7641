package extract

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strconv"
	"testing"

	"objectmount/internal/archivetest"
)

// BenchmarkExtract extracts 100 directories of 50 files of 512 bytes. Each
// run has a fresh directory, and all are deleted at the end only: ext4 takes
// ten times as long for inodes that were deleted moments ago.
func BenchmarkExtract(b *testing.B) {
	const entries = 100 * 51
	tar := archivetest.Many(100, 50, 512)
	large := make([]byte, 64<<20)
	for name, data := range map[string][]byte{
		"small.tar": tar, "small.tar.gz": archivetest.Gzip(tar), "large.tar": archivetest.Tar(archivetest.File("large", string(large))),
	} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			n := 0
			for b.Loop() {
				n++
				if _, err := Extract(context.Background(), bytes.NewReader(data), filepath.Join(dir, strconv.Itoa(n)), Options{}); err != nil {
					b.Fatal(err)
				}
			}
			if name != "large.tar" {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/entries, "ns/entry")
			}
		})
	}
}

func BenchmarkPack(b *testing.B) {
	dir := b.TempDir() + "/src"
	if _, err := Extract(context.Background(), bytes.NewReader(archivetest.Many(100, 50, 512)), dir, Options{}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Pack(context.Background(), dir, io.Discard, PackOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEdited(b *testing.B) {
	dir := b.TempDir() + "/tree"
	res, err := Extract(context.Background(), bytes.NewReader(archivetest.Many(100, 50, 512)), dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if edited, err := Edited(dir, res.Fingerprint); edited || err != nil {
			b.Fatal(edited, err)
		}
	}
}
