package extract

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"objectmount/internal/archivetest"
)

// TestEdited: every edit is seen, at every depth, however soon after
// publishing; nothing else is taken for one.
func TestEdited(t *testing.T) {
	tree := archivetest.Tar(
		archivetest.File("file", "content"), archivetest.Symlink("link", "file"),
		archivetest.File("a/b/c/file", "content"), archivetest.File("a/b/other", "content"),
		archivetest.Entry{Name: "future", MTime: 1 << 33}.Bytes(), archivetest.Dir("empty/"))
	edits := map[string]func(root string) error{
		"content, same size": func(root string) error {
			f, err := os.OpenFile(root+"/a/b/c/file", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			if _, err := f.WriteAt([]byte("C"), 0); err != nil {
				return err
			}
			return f.Close()
		},
		"content, and the time set back": func(root string) error {
			if err := os.WriteFile(root+"/file", []byte("CONTENT"), 0o644); err != nil {
				return err
			}
			return os.Chtimes(root+"/file", time.Unix(1, 0), time.Unix(archivetest.MTime, 0))
		},
		"a file added":               func(root string) error { return os.WriteFile(root+"/a/b/new", nil, 0o644) },
		"a file added to the root":   func(root string) error { return os.WriteFile(root+"/new", nil, 0o644) },
		"a file removed":             func(root string) error { return os.Remove(root + "/a/b/other") },
		"removed from the root":      func(root string) error { return os.Remove(root + "/future") },
		"the last file removed":      func(root string) error { return os.Remove(root + "/a/b/c/file") },
		"an empty directory removed": func(root string) error { return os.Remove(root + "/empty") },
		"a directory added":          func(root string) error { return os.Mkdir(root+"/empty/d", 0o755) },
		"renamed":                    func(root string) error { return os.Rename(root+"/a/b/other", root+"/a/b/another") },
		"renamed in the root":        func(root string) error { return os.Rename(root+"/file", root+"/elif") },
		"a directory renamed":        func(root string) error { return os.Rename(root+"/a/b", root+"/a/B") },
		"exchanged by a rename": func(root string) error {
			if err := os.WriteFile(root+"/.tmp", []byte("content"), 0o644); err != nil {
				return err
			}
			return os.Rename(root+"/.tmp", root+"/a/b/c/file")
		},
		"a mode":                func(root string) error { return os.Chmod(root+"/a/b/c/file", 0o600) },
		"a directory's mode":    func(root string) error { return os.Chmod(root+"/a/b/c", 0o700) },
		"the root's mode":       func(root string) error { return os.Chmod(root, 0o700) },
		"an owner":              func(root string) error { return os.Chown(root+"/a/b/c/file", os.Getuid(), os.Getgid()) },
		"a time":                func(root string) error { return os.Chtimes(root+"/a/b/c/file", time.Time{}, time.Unix(1, 0)) },
		"a link's target":       func(root string) error { return errors.Join(os.Remove(root+"/link"), os.Symlink("a", root+"/link")) },
		"a hard link made":      func(root string) error { return os.Link(root+"/file", root+"/../hard") },
		"the root exchanged":    func(root string) error { return errors.Join(os.RemoveAll(root), os.Mkdir(root, 0o755)) },
		"the root now a link":   func(root string) error { return errors.Join(os.Rename(root, root+"2"), os.Symlink(root+"2", root)) },
		"the content truncated": func(root string) error { return os.Truncate(root+"/a/b/c/file", 0) },
		"moved in from outside": func(root string) error {
			old := root + "-old"
			if err := os.MkdirAll(old+"/x", 0o755); err != nil {
				return err
			}
			return os.Rename(old, root+"/a/b/old")
		},
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			// At once, when the clock of file times has hardly moved, and later.
			for _, later := range []time.Duration{0, 0, 0, 20 * time.Millisecond} {
				root := t.TempDir() + "/root"
				res := extractBytes(t, tree, root, Options{})
				time.Sleep(later)
				if edited, err := Edited(root, res.Fingerprint); edited || err != nil {
					t.Fatalf("Edited before = %v, %v", edited, err)
				}
				must(t, edit(root))
				if edited, err := Edited(root, res.Fingerprint); !edited || err != nil {
					t.Fatalf("Edited after = %v, %v", edited, err)
				}
			}
		})
		t.Run(name+", not looked at before", func(t *testing.T) {
			root := t.TempDir() + "/root"
			res := extractBytes(t, tree, root, Options{})
			must(t, edit(root))
			if edited, err := Edited(root, res.Fingerprint); !edited || err != nil {
				t.Fatalf("Edited after = %v, %v", edited, err)
			}
		})
	}
}

// TestNotEdited: reading, listing, running and copying from a tree are no edits.
func TestNotEdited(t *testing.T) {
	root := t.TempDir() + "/root"
	res := extractBytes(t, archivetest.Tar(
		archivetest.File("a/file", "content"), archivetest.Symlink("link", "a/file"), archivetest.Symlink("out", "../other"),
		archivetest.Entry{Name: "run", Mode: 0o755, Body: "#!/bin/sh\nexit 0\n"}.Bytes()), root, Options{})
	writeFile(t, root+"/../other/file", "not ours") // behind a link
	readFile(t, root+"/link")
	listTree(t, root)
	if out, err := exec.Command(root + "/run").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	must(t, exec.Command("cp", "-a", root, root+"-copy").Run())
	f, err := os.OpenFile(root+"/a/file", os.O_RDWR, 0) // opened for writing, but not written
	must(t, err)
	must(t, f.Close())
	if edited, err := Edited(root, res.Fingerprint); edited || err != nil {
		t.Errorf("Edited = %v, %v", edited, err)
	}
	if edited, err := Edited(root+"-copy", res.Fingerprint); !edited || err != nil {
		t.Errorf("Edited of a copy = %v, %v", edited, err)
	}
	if _, err := Edited(root+"/none/at/all", res.Fingerprint); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Edited of nothing = %v", err)
	}
	if _, err := Edited(root+"-none", res.Fingerprint); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Edited of nothing = %v", err)
	}
}

// TestEditedFile is for an object that became a file.
func TestEditedFile(t *testing.T) {
	dir := t.TempDir()
	for i, edit := range []func(path string) error{
		func(path string) error { return os.WriteFile(path, []byte("TEXT"), 0o644) },
		func(path string) error { return os.Chmod(path, 0o600) },
		func(path string) error { return os.Remove(path) },
		func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("text"), 0o644))
		},
	} {
		path := filepath.Join(dir, "file")
		res := extractBytes(t, []byte("text"), path, Options{OnConflict: ConflictReplace})
		readFile(t, path)
		if edited, err := Edited(path, res.Fingerprint); edited || err != nil {
			t.Errorf("%d: Edited before = %v, %v", i, edited, err)
		}
		must(t, edit(path))
		if edited, err := Edited(path, res.Fingerprint); !edited && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%d: Edited after = %v, %v", i, edited, err)
		}
	}
}

// TestEditWhileWatching: someone who waits for the tree to appear and edits it
// at that very moment is seen too.
func TestEditWhileWatching(t *testing.T) {
	for i := range 50 {
		root := t.TempDir() + "/root"
		done := make(chan error)
		go func() {
			deadline := time.Now().Add(10 * time.Second)
			for {
				var err error
				if i%2 == 0 {
					err = os.Remove(root + "/a")
				} else {
					err = os.WriteFile(root+"/d/new", nil, 0o644)
				}
				if err == nil || time.Now().After(deadline) {
					done <- err
					return
				}
			}
		}()
		res := extractBytes(t, archivetest.Tar(archivetest.File("a", ""), archivetest.Dir("d/")), root, Options{})
		must(t, <-done)
		if edited, err := Edited(root, res.Fingerprint); !edited || err != nil {
			t.Fatalf("Edited = %v, %v", edited, err)
		}
	}
}

// TestSeconds: on a file system whose times are whole seconds, what was just
// published is not taken for edited, and an edit right after it is.
func TestSeconds(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	image, mnt := dir+"/image", dir+"/mnt"
	must(t, os.Mkdir(mnt, 0o755))
	f, err := os.Create(image)
	must(t, err)
	must(t, f.Truncate(64<<20))
	must(t, f.Close())
	for _, cmd := range [][]string{{"mkfs.ext4", "-q", "-F", "-I", "128", image}, {"mount", "-o", "loop", image, mnt}} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			lacking(t, "%s: %v %s", cmd[0], err, out)
		}
	}
	defer func() { must(t, exec.Command("umount", mnt).Run()) }()
	data := archivetest.Tar(archivetest.File("a", "x"), archivetest.File("d/b", "x"))
	root := mnt + "/root"
	for _, on := range []OnConflict{ConflictError, ConflictReplace, ConflictMerge} {
		res := extractBytes(t, data, root, Options{OnConflict: on})
		if edited, err := Edited(root, res.Fingerprint); edited || err != nil {
			t.Errorf("%s: Edited before = %v, %v", on, edited, err)
		}
		must(t, os.WriteFile(root+"/d/b", []byte("y"), 0o644))
		if edited, err := Edited(root, res.Fingerprint); !edited || err != nil {
			t.Errorf("%s: Edited after = %v, %v", on, edited, err)
		}
	}
}
