package archivetest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Tree describes what is in a directory, by slash-separated path; the
// directory itself is not in it. Trees are compared with cmp.Diff, or as
// strings.
type Tree map[string]Node

// Node is one entry of a tree.
type Node struct {
	Mode    fs.FileMode // type and permissions, with setuid, setgid and sticky bits
	Content string      // of a file: its bytes up to 64, else "N bytes sha256:..."
	Link    string      // of a symbolic link
	MTime   int64       // ns since 1970; 0: unknown, or not compared
	Same    string      // first path, in order, of the hard links to one file; "" if it is the only one
}

// Reg is a file of a tree with the time of entries that set none.
func Reg(mode fs.FileMode, body string) Node {
	return Node{Mode: mode, Content: content([]byte(body)), MTime: MTime * 1e9}
}

// Folder is a directory of a tree.
func Folder(mode fs.FileMode) Node { return Node{Mode: mode | fs.ModeDir, MTime: MTime * 1e9} }

// Implied is a directory that no entry of the archive mentions.
func Implied() Node { return Node{Mode: 0o755 | fs.ModeDir} }

// Sym is a symbolic link of a tree.
func Sym(target string) Node {
	return Node{Mode: 0o777 | fs.ModeSymlink, Link: target, MTime: MTime * 1e9}
}

// At returns the node with another time, in ns since 1970.
func (n Node) At(ns int64) Node { n.MTime = ns; return n }

// As returns the node as a hard link to the file first at path.
func (n Node) As(path string) Node { n.Same = path; return n }

func content(b []byte) string {
	if len(b) <= 64 {
		return string(b)
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d bytes sha256:%s", len(b), hex.EncodeToString(sum[:]))
}

// List reads the tree in dir. Times that are later than newest are left out
// (0): they come from the clock, not from an archive.
func List(dir string, newest time.Time) (Tree, error) {
	tree := Tree{}
	first := map[[2]uint64]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		n := Node{Mode: info.Mode()}
		if !info.ModTime().After(newest) {
			n.MTime = info.ModTime().UnixNano()
		}
		switch {
		case n.Mode.IsRegular():
			b, err := readFile(path)
			if err != nil {
				return err
			}
			n.Content = content(b)
		case n.Mode&fs.ModeSymlink != 0:
			if n.Link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		st := info.Sys().(*syscall.Stat_t)
		if !d.IsDir() && st.Nlink > 1 {
			id := [2]uint64{uint64(st.Dev), st.Ino}
			if first[id] == "" {
				first[id] = rel // WalkDir goes in order
			}
			n.Same = first[id]
		}
		tree[rel] = n
		return nil
	})
	return tree, err
}

// readFile reads a file even if its owner may not.
func readFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if !os.IsPermission(err) {
		return b, err
	}
	return []byte("unreadable"), nil
}

// Timeless returns the tree without times.
func (t Tree) Timeless() Tree {
	c := maps.Clone(t)
	for path, n := range c {
		n.MTime = 0
		c[path] = n
	}
	return c
}

// Forget returns the tree without the times that other does not have either:
// those of directories that an archive only implies.
func (t Tree) Forget(other Tree) Tree {
	c := maps.Clone(t)
	for path, n := range c {
		if o, ok := other[path]; ok && o.MTime == 0 {
			n.MTime = 0
			c[path] = n
		}
	}
	return c
}

// String lists the tree, one line for each entry, in order.
func (t Tree) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(t)) {
		n := t[path]
		fmt.Fprintf(&b, "%v %d %q", n.Mode, n.MTime, path)
		if n.Link != "" {
			fmt.Fprintf(&b, " -> %q", n.Link)
		}
		if n.Same != "" {
			fmt.Fprintf(&b, " = %q", n.Same)
		}
		if n.Mode.IsRegular() {
			fmt.Fprintf(&b, " %q", n.Content)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
