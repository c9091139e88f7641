package mount

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/internal/archivetest"
)

// readChild is what the test binary does as a reader, which has its own process
// because this one serves.
func readChild(job string) {
	verb, dir, _ := strings.Cut(job, " ")
	switch verb {
	case "hello":
		fmt.Println("read", job)
	case "list": // as archivetest does
		tree, err := archivetest.List(dir, time.Now().Add(-time.Hour))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		gob.NewEncoder(os.Stdout).Encode(tree) // not JSON: names are bytes
	case "loop":
		loop(dir)
	case "sums":
		sums(dir)
	case "compare":
		seed, dirs, _ := strings.Cut(dir, " ")
		a, b, _ := strings.Cut(dirs, " ")
		compare(seed, a, b)
	}
}

// listElsewhere is archivetest.List in another process.
func listElsewhere(t *testing.T, dir string) archivetest.Tree {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), readVar+"=list "+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	tree := archivetest.Tree{}
	if err := gob.NewDecoder(bytes.NewReader(out)).Decode(&tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// loop reads all files below dir again and again until it is killed, or finds one
// that has another content than before.
func loop(dir string) {
	first := map[string]string{}
	for rounds := 0; ; rounds++ {
		filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err // the server may be down for a while
			}
			h := sha256.Sum256(b)
			if got := hex.EncodeToString(h[:]); first[path] == "" {
				first[path] = got
			} else if first[path] != got {
				fmt.Fprintln(os.Stderr, "WRONG BYTES in", path)
				os.Exit(2)
			}
			return nil
		})
		fmt.Println("round", rounds, "of", len(first), "files")
	}
}

// sums reads each file once, and says its SHA-256 or why it cannot be read. What
// the kernel keeps of it is dropped.
func sums(dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, e := range files {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		switch {
		case errors.Is(err, syscall.EIO):
			fmt.Println(e.Name(), "EIO")
		case err != nil:
			fmt.Println(e.Name(), strings.ReplaceAll(err.Error(), " ", "_"))
		default:
			fmt.Println(e.Name(), hex.EncodeToString(h.Sum(nil)))
		}
		dontNeed(f)
		f.Close()
	}
}

// compare reads at random offsets and holds the bytes of two trees against each
// other.
func compare(seed, a, b string) {
	n, _ := strconv.ParseUint(seed, 10, 64)
	rounds := 400
	if underRace {
		rounds = 50
	}
	if err := archivetest.Sample(n, a, b, rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
