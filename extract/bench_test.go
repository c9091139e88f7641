package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// BenchmarkSmallFiles holds 100,000 files of 512 bytes, 4 levels deep, against
// what the file system itself asks for them: the same tree made by a bare loop
// of openat, write, utimensat and close below descriptors that openat2 opened,
// on one thread. Each run has a fresh file system, in memory or an ext4 image in
// memory; both flush it at the end. The bar is 1.3 of the loop.
//
//	go test ./extract -run - -bench SmallFiles -benchtime 5x
func BenchmarkSmallFiles(b *testing.B) {
	const files, perDir = 100_000, 50
	body := bytes.Repeat([]byte("0123456789abcdef"), 32)
	name := func(i int) string {
		return fmt.Sprintf("a%d/b%d/c%d/file%05d", i/(20*20*perDir), i/(20*perDir), i/perDir, i)
	}
	var archive bytes.Buffer
	for i := range files {
		archive.Write(archivetest.File(name(i), string(body)))
	}
	archive.Write(archivetest.Zeros(2))
	for _, kind := range []string{"tmpfs", "ext4"} {
		for how, run := range map[string]func(dir string) error{
			"loop": func(dir string) error { return bareLoop(dir, files, name, body) },
			"extract": func(dir string) error {
				_, err := Extract(context.Background(), bytes.NewReader(archive.Bytes()), dir+"/x", Options{})
				return err
			},
		} {
			b.Run(kind+"/"+how, func(b *testing.B) {
				var cpu time.Duration
				for b.Loop() {
					b.StopTimer()
					dir, unmount := freshFS(b, kind)
					cpu -= cpuTime()
					b.StartTimer()
					if err := run(dir); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					cpu += cpuTime()
					unmount()
					b.StartTimer()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/files, "ns/file")
				b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/files, "cpu-ns/file")
			})
		}
	}
}

// cpuTime is what this process has used of processors.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// bareLoop makes files and nothing else, with nothing checked.
func bareLoop(dir string, files int, name func(int) string, body []byte) error {
	root, err := openat(unix.AT_FDCWD, dir, openDirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	d, err := newDirs(root)
	if err != nil {
		return err
	}
	defer d.close()
	last := ""
	for i := range files {
		path, base := splitPath(name(i))
		if path != last {
			for end, c := range path + "/" {
				if c != '/' {
					continue
				}
				if err := unix.Mkdirat(root, path[:end], 0o755); err != nil && err != unix.EEXIST {
					return err
				}
			}
			last = path
		}
		parent, err := d.get(path)
		if err != nil {
			return err
		}
		fd, err := openat(parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return err
		}
		if _, err = unix.Write(fd, body); err == nil {
			err = setTimes(fd, unix.Timespec{Sec: archivetest.MTime})
		}
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			return err
		}
	}
	return unix.Syncfs(root)
}

// freshFS mounts a new file system: on a used ext4, inodes that were deleted
// lately make every figure wrong.
func freshFS(b *testing.B, kind string) (dir string, unmount func()) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("only root can mount a fresh file system")
	}
	tmp := b.TempDir()
	dir = tmp + "/fs"
	must(b, os.Mkdir(dir, 0o755))
	sh := func(command string) {
		if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
			b.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	if kind == "tmpfs" {
		sh("mount -t tmpfs -o size=2g,nr_inodes=0 tmpfs " + dir)
		return dir, func() { sh("umount " + dir) }
	}
	sh("cd " + tmp + " && mkdir memory && mount -t tmpfs -o size=3g tmpfs memory && truncate -s 2G memory/image && " +
		"mkfs.ext4 -q -E lazy_itable_init=1 memory/image && mount -o loop memory/image fs")
	return dir, func() { sh("cd " + tmp + " && umount fs && umount memory") }
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
