package archivetest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sample reads so many times from a file of the tree b, chosen at random, up
// to 300 KiB at a random offset, and holds the bytes against those of the tree
// a; the error says where they differ. What the kernel keeps of the file is
// dropped each time, so that the next reader asks the file system again. The
// same seed reads the same places.
func Sample(seed uint64, a, b string, times int) error {
	var files []string
	err := filepath.WalkDir(a, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(a, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no files in " + a)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	p, q := make([]byte, 300<<10), make([]byte, 300<<10)
	for range times {
		if err := sampleOne(rnd, a, b, files[rnd.IntN(len(files))], p, q); err != nil {
			return err
		}
	}
	return nil
}

func sampleOne(rnd *rand.Rand, a, b, name string, p, q []byte) error {
	f, err := os.Open(filepath.Join(a, name))
	if err != nil {
		return err
	}
	defer f.Close()
	g, err := os.Open(filepath.Join(b, name))
	if err != nil {
		return err
	}
	defer g.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	off, size := rnd.Int64N(st.Size()+1), 1+rnd.IntN(len(p))
	n, err1 := f.ReadAt(p[:size], off)
	m, err2 := g.ReadAt(q[:size], off)
	if n != m || err1 != err2 || string(p[:n]) != string(q[:m]) {
		return fmt.Errorf("%s [%d,+%d) gives %d bytes, %v; in %s it gives %d, %v", name, off, size, n, err1, b, m, err2)
	}
	return unix.Fadvise(int(g.Fd()), 0, 0, unix.FADV_DONTNEED)
}
