package mount

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// The benchmarks compare the mount, served by another process from memory, with
// the file system of the temporary directory. "cold" means that the kernel knows
// nothing of what is asked for.

const largeSize = 256 << 20

// onBoth runs f on a mount of the tree and on a native copy of it.
func onBoth(b *testing.B, tree string, f func(b *testing.B, dir string, remount func())) {
	b.Run("native", func(b *testing.B) {
		dir := b.TempDir()
		mnt := filepath.Join(b.TempDir(), "mnt")
		os.Mkdir(mnt, 0o755)
		c := serveElsewhere(b, serveJob{Dir: mnt, Tree: tree})
		sh(b, "/", "cp -a "+mnt+"/. "+dir)
		c.stop(b)
		f(b, dir, nil)
	})
	b.Run("mount", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "mnt")
		os.Mkdir(dir, 0o755)
		c := serveElsewhere(b, serveJob{Dir: dir, Tree: tree})
		f(b, dir, func() {
			c.stop(b)
			c = serveElsewhere(b, serveJob{Dir: dir, Tree: tree})
		})
		c.stop(b)
	})
}

func manyName(dir string, i int) string {
	return fmt.Sprintf("%s/d%02d/f%03d", dir, i/500%manyDirs, i%500)
}

// perFile runs f for files of the tree of 50,000, warm, and, on the mount, cold.
func perFile(b *testing.B, f func(name string) error) {
	run := func(b *testing.B, dir string, remount func()) {
		for i := range b.N {
			if remount != nil && i%(500*manyDirs) == 0 {
				b.StopTimer()
				remount()
				b.StartTimer()
			}
			if err := f(manyName(dir, i)); err != nil {
				b.Fatal(err)
			}
		}
	}
	onBoth(b, "many", func(b *testing.B, dir string, remount func()) {
		if remount != nil {
			b.Run("cold", func(b *testing.B) { run(b, dir, remount) })
		}
		for i := range 500 * manyDirs {
			if err := f(manyName(dir, i)); err != nil {
				b.Fatal(err)
			}
		}
		b.Run("warm", func(b *testing.B) { run(b, dir, nil) })
	})
}

func BenchmarkStat(b *testing.B) {
	perFile(b, func(name string) error {
		_, err := os.Lstat(name)
		return err
	})
}

func BenchmarkOpenReadClose(b *testing.B) {
	buf := make([]byte, 4096)
	perFile(b, func(name string) error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(buf)
		return err
	})
}

// BenchmarkReaddir lists 50,000 entries in 100 directories, with attributes.
func BenchmarkReaddir(b *testing.B) {
	onBoth(b, "many", func(b *testing.B, dir string, remount func()) {
		list := func() {
			n := 0
			filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
				if err != nil {
					b.Fatal(err)
				}
				if _, err := d.Info(); err != nil {
					b.Fatal(err)
				}
				n++
				return nil
			})
			if n != 501*manyDirs+1 {
				b.Fatal(n)
			}
		}
		if remount != nil {
			b.Run("cold", func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					remount()
					b.StartTimer()
					list()
				}
			})
		}
		list()
		b.Run("warm", func(b *testing.B) {
			for range b.N {
				list()
			}
		})
	})
}

// BenchmarkSequentialRead reads a file of 256 MiB with reads of 1 MiB.
func BenchmarkSequentialRead(b *testing.B) {
	onBoth(b, "large", func(b *testing.B, dir string, remount func()) {
		f, err := os.Open(filepath.Join(dir, "large"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		buf := make([]byte, 1<<20)
		read := func() {
			if n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{io.NewSectionReader(f, 0, largeSize)}, buf); n != largeSize {
				b.Fatal(n, err)
			}
		}
		b.SetBytes(largeSize)
		if remount != nil {
			b.Run("cold", func(b *testing.B) {
				b.SetBytes(largeSize)
				for range b.N {
					b.StopTimer()
					if err := dontNeed(f); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					read()
				}
			})
		}
		read()
		b.Run("warm", func(b *testing.B) {
			b.SetBytes(largeSize)
			for range b.N {
				read()
			}
		})
	})
}
