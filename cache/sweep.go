package cache

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	tempPrefix = ".tmp-"  // files that WriteFile has not finished
	deadPrefix = ".dead-" // directories that Sweep is removing
)

// Sweep removes every identity that no process has open and of which keep says
// false (nil keeps none), with the files beside its spans. It returns how many.
func (c *Cache) Sweep(keep func(id string) bool) (int, error) {
	names, err := c.names()
	if err != nil {
		return 0, fmt.Errorf("sweep the cache: %w", err)
	}
	removed := 0
	for _, name := range names {
		id, err := c.root.ReadFile(name + "/id")
		if err == nil && dirName(string(id)) == name && keep != nil && keep(string(id)) {
			continue
		}
		err = c.locked(openWait, func() error {
			gone, err := c.bury(name)
			if gone {
				removed++
			}
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("sweep the cache: %w", err)
		}
	}
	c.removeDead()
	if err := c.locked(openWait, c.recount); err != nil {
		return removed, fmt.Errorf("sweep the cache: %w", err)
	}
	return removed, nil
}

// bury renames the directory if nobody uses it; removing it takes longer than
// the lock should be held. The lock is held.
func (c *Cache) bury(name string) (bool, error) {
	f, err := c.root.OpenFile(name+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return false, nil // another process was faster
		}
		return false, err
	}
	defer f.Close()
	if unused, err := tryLock(f, unix.F_WRLCK, lockState, 2); !unused {
		return false, err
	}
	return true, c.root.Rename(name, deadPrefix+name+"-"+rand.Text())
}

// removeDead removes what bury left, also when its process was killed.
func (c *Cache) removeDead() {
	d, err := c.root.Open(".")
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	for _, n := range names {
		if strings.HasPrefix(n, deadPrefix) {
			_ = c.root.RemoveAll(n)
		}
	}
}

// Path returns where the file called name lies beside the spans of id. It
// need not exist. The stream itself, as far as it is kept, is "data".
func (c *Cache) Path(id, name string) string { return filepath.Join(c.dir, dirName(id), name) }

// WriteFile makes the file called name beside the spans of id, an index or a
// trace, from what write writes: whole or not at all, in place of an earlier
// one. It is not synced, so after a power cut it may be damaged; whoever reads
// it must be able to tell. Sweep removes it together with the spans.
func (c *Cache) WriteFile(id, name string, write func(io.Writer) error) error {
	if err := c.writeFile(id, name, write); err != nil {
		return fmt.Errorf("write %s of %s: %w", name, id, err)
	}
	return nil
}

func (c *Cache) writeFile(id, name string, write func(io.Writer) error) error {
	switch name {
	case "", "data", "journal", "state", "lock", "id":
		return os.ErrInvalid
	}
	if strings.HasPrefix(name, ".") || strings.Contains(name, "/") || len(name) > 100 {
		return os.ErrInvalid
	}
	dir := dirName(id)
	var use *os.File // keeps the directory from being swept
	err := c.locked(openWait, func() (err error) {
		if err = c.makeDir(dir, id); err != nil {
			return err
		}
		if use, err = c.root.OpenFile(dir+"/lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return err
		}
		_, err = tryLock(use, unix.F_RDLCK, lockDir, 1)
		return err
	})
	if use != nil {
		defer use.Close()
	}
	if err != nil {
		return err
	}
	temp := dir + "/" + tempPrefix + rand.Text()
	f, err := c.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = c.root.Rename(temp, dir+"/"+name)
	}
	if err != nil {
		_ = c.root.Remove(temp)
	}
	return err
}
