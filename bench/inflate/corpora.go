package main

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeCorpora writes source.gz, json.gz and floats.gz, about mib MiB each
// before compression, by gzip -6 where it is installed.
func makeCorpora(dir string, mib int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src")
	for name, write := range map[string]func(w *limited) error{
		"source": func(w *limited) error {
			return walk(src, w, func(b []byte) error { _, err := w.Write(b); return err })
		},
		"json":   func(w *limited) error { return jsonLines(src, w) },
		"floats": floats,
	} {
		if err := pack(filepath.Join(dir, name+".gz"), mib, write); err != nil {
			return fmt.Errorf("corpus %s: %w", name, err)
		}
	}
	return nil
}

// limited is a writer that is full after left bytes.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	l.left -= len(p)
	return l.w.Write(p)
}

func (l *limited) full() bool { return l.left <= 0 }

func pack(name string, mib int, write func(*limited) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	var z io.WriteCloser
	wait := func() error { return nil }
	if path, err := exec.LookPath("gzip"); err == nil {
		cmd := exec.Command(path, "-6nc")
		cmd.Stdout = f
		if z, err = cmd.StdinPipe(); err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		wait = cmd.Wait
	} else {
		z, _ = gzip.NewWriterLevel(f, 6)
	}
	b := bufio.NewWriterSize(z, 1<<20)
	err = write(&limited{b, mib << 20})
	for _, end := range []func() error{b.Flush, z.Close, wait, f.Close} {
		if e := end(); err == nil {
			err = e
		}
	}
	return err
}

// walk gives the files below dir, again from the start if w has room left.
func walk(dir string, w *limited, use func([]byte) error) error {
	for !w.full() {
		before := w.left
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if w.full() {
				return fs.SkipAll
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return use(b)
		})
		if err != nil {
			return err
		}
		if w.left == before {
			return fmt.Errorf("no files in %s", dir)
		}
	}
	return nil
}

func jsonLines(dir string, w *limited) error {
	rnd := rand.New(rand.NewPCG(7, 7))
	enc := json.NewEncoder(w)
	return walk(dir, w, func(b []byte) error {
		for len(b) > 0 && !w.full() {
			n := min(len(b), 200+rnd.IntN(8000))
			if err := enc.Encode(map[string]any{
				"id": fmt.Sprintf("%016x", rnd.Uint64()), "score": rnd.Float64(), "tokens": n / 4, "text": strings.ToValidUTF8(string(b[:n]), ""),
			}); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	})
}

// floats writes bfloat16 and float32 numbers, as the weights of a model are.
func floats(w *limited) error {
	rnd := rand.New(rand.NewPCG(8, 8))
	var b []byte
	for i := 0; !w.full(); i++ {
		b = b[:0]
		for range 1 << 16 {
			v := math.Float32bits(float32(rnd.NormFloat64() * 0.02))
			if i%4 == 3 {
				b = binary.LittleEndian.AppendUint32(b, v)
			} else {
				b = binary.LittleEndian.AppendUint16(b, uint16(v>>16))
			}
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}
