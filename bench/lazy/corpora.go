package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// A corpus is a .tar.gz and the names of its files, in the archive's order.
type corpus struct {
	path  string
	size  int64 // of the .tar.gz, bytes
	files []string
}

// packer writes a corpus.
type packer struct {
	c    corpus
	file *os.File
	gz   *gzip.Writer
	tar  *tar.Writer
	rand *rand.Rand
}

func newPacker(path string) (*packer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	return &packer{c: corpus{path: path}, file: f, gz: z, tar: tar.NewWriter(z), rand: rand.New(rand.NewPCG(7, 7))}, nil
}

// add adds a file of so many bytes. Six bits of each are random, so that the
// archive is about three quarters of its files, like packed data.
func (p *packer) add(name string, size int64) error {
	p.c.files = append(p.c.files, name)
	if err := p.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.CopyN(p.tar, (*letters)(p.rand), size)
	return err
}

// letters are random ones.
type letters rand.Rand

func (l *letters) Read(b []byte) (int, error) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	for i := 0; i < len(b); {
		for bits := (*rand.Rand)(l).Uint64(); bits > 15 && i < len(b); i++ {
			b[i] = alphabet[bits&63]
			bits >>= 6
		}
	}
	return len(b), nil
}

func (p *packer) close() (*corpus, error) {
	err := errors.Join(p.tar.Close(), p.gz.Close())
	if info, e := p.file.Stat(); e == nil {
		p.c.size = info.Size()
	}
	return &p.c, errors.Join(err, p.file.Close())
}

// makeSized makes an archive of about so many bytes: small files and large
// ones by turns, of 170 KiB on average.
func makeSized(path string, size int64) (*corpus, error) {
	p, err := newPacker(path)
	if err != nil {
		return nil, err
	}
	raw := size * 8 / 6
	for i := 0; raw > 0; i++ {
		n := []int64{2 << 10, 8 << 10, 30 << 10, 640 << 10}[i%4]
		if err := p.add(fmt.Sprintf("data/%03d/%06d.bin", i/256, i), n); err != nil {
			return nil, err
		}
		raw -= n
	}
	return p.close()
}

// makeMany makes an archive of 50,000 files in 100 directories.
func makeMany(path string) (*corpus, error) {
	p, err := newPacker(path)
	if err != nil {
		return nil, err
	}
	for i := range 50_000 {
		if err := p.add(fmt.Sprintf("many/d%02d/f%03d", i/500, i%500), int64(100+i%900)); err != nil {
			return nil, err
		}
	}
	return p.close()
}

// makeLarge makes an archive of one file of 512 MiB.
func makeLarge(path string) (*corpus, error) {
	p, err := newPacker(path)
	if err != nil {
		return nil, err
	}
	if err := p.add("large", 512<<20); err != nil {
		return nil, err
	}
	return p.close()
}

// makeTree packs the Go source tree with gzip -6.
func (b *bench) makeTree(path string) (*corpus, error) {
	b.say("packing the Go source tree ...")
	err := sh(b.ctx, fmt.Sprintf(`root=$(go env GOROOT) && tar -C "$(dirname "$root")" -cf - "$(basename "$root")" | gzip -6 >'%s'`, path))
	if err != nil {
		return nil, err
	}
	return list(path)
}

// list reads the names and the size of an archive.
func list(path string) (*corpus, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c := &corpus{path: path, size: info.Size()}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if err == io.EOF {
			return c, nil
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			c.files = append(c.files, filepath.Clean(h.Name))
		}
	}
}

// upload puts a corpus into the store, with its index if asked, and gives its id.
func (b *bench) upload(c *corpus, withIndex bool) (id string, err error) {
	b.say("uploading %s ...", filepath.Base(c.path))
	args := []string{"objects", "upload", "--no-progress"}
	if withIndex {
		args = append(args, "--index")
	}
	out, err := b.command(b.store.near, b.tmp, append(args, c.path)...).Output()
	if err != nil {
		return "", fmt.Errorf("upload %s: %w", c.path, stderr(err))
	}
	return strings.TrimSpace(string(out)), nil
}
