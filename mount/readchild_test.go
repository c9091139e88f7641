package mount

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// readChild is what the test binary does as a reader: "hello" says hello, "loop
// <dir>" reads all files below dir again and again, in disorder, compares each with
// the first reading, and says so when it has to stop.
func readChild(job string) {
	dir, ok := strings.CutPrefix(job, "loop ")
	if !ok {
		fmt.Println("read", job)
		return
	}
	first := map[string]string{}
	for rounds := 0; ; rounds++ {
		failed := false
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !d.Type().IsRegular() {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h := sha256.Sum256(b)
			if got := hex.EncodeToString(h[:]); first[path] == "" {
				first[path] = got
			} else if first[path] != got {
				fmt.Println("WRONG BYTES in", path)
				failed = true
			}
			return nil
		})
		if failed {
			os.Exit(2)
		}
		_ = err // the server may be down for a while
		fmt.Println("round", rounds, "of", len(first), "files")
	}
}
