package mount

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestReadBySelf: a process that reads a file of its own mount by the os package
// does not hang, even if it has one processor. (It should not do it. Without
// unpoll the kernel would wait for an answer to POLL, and Go for the kernel.)
func TestReadBySelf(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir, _ := show(t, smallTree(), Options{})
	for range 20 {
		b, err := os.ReadFile(filepath.Join(dir, "hello"))
		if err != nil || string(b) != "hello\n" {
			t.Fatalf("%q %v", b, err)
		}
	}
}
