package main

import (
	"archive/tar"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// makeCorpora packs the Go source tree, and files like weights, plain and with
// gzip -6.
func makeCorpora(dir string) error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	root := strings.TrimSpace(string(out))
	if err := sh(fmt.Sprintf("mkdir -p '%s' && tar -C '%s' -cf '%s/gosrc.tar' '%s'", dir, filepath.Dir(root), dir, filepath.Base(root))); err != nil {
		return err
	}
	if err := makeWeights(filepath.Join(dir, "weights.tar")); err != nil {
		return err
	}
	return sh(fmt.Sprintf("cd '%s' && gzip -6 -k gosrc.tar && gzip -6 weights.tar", dir))
}

// makeWeights writes eight files of 32 MiB: numbers of a normal distribution
// in 16 bits (bfloat16), of which a gzip takes a sixth.
func makeWeights(name string) error {
	const files, size = 8, 32 << 20
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	random := rand.New(rand.NewPCG(4, 2))
	block := make([]byte, 1<<20)
	for i := range files {
		if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("weights/%d.bin", i), Mode: 0o644, Size: size}); err != nil {
			return err
		}
		for range size / len(block) {
			for k := 0; k < len(block); k += 2 {
				bits := math.Float32bits(float32(random.NormFloat64()) / 50)
				block[k], block[k+1] = byte(bits>>16), byte(bits>>24)
			}
			if _, err := w.Write(block); err != nil {
				return err
			}
		}
	}
	return w.Close()
}
