package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is where one mount is made: its path, and the directories in which the
// commands keep what they keep.
type place struct {
	b   *bench
	dir string
	mnt string
}

func (b *bench) newPlace() (*place, error) {
	dir, err := os.MkdirTemp(b.tmp, "place-")
	if err != nil {
		return nil, err
	}
	// In memory, and new: a file system on which trees were just removed is slow
	// for whoever makes the next one, and that is never a lazy mount.
	if err := sh(b.ctx, "mount -t tmpfs -o size=8g tmpfs '"+dir+"'"); err != nil {
		return nil, err
	}
	return &place{b: b, dir: dir, mnt: filepath.Join(dir, "mnt")}, nil
}

// command is an objectmount command against a store, with the state in dir.
func (b *bench) command(url, dir string, args ...string) *exec.Cmd {
	c := exec.CommandContext(b.ctx, b.binary, args...)
	c.Env = append(os.Environ(), "RUNLOOP_BASE_URL="+url, "RUNLOOP_API_KEY="+key,
		"OBJECTMOUNT_STATE_DIR="+filepath.Join(dir, "state"), "OBJECTMOUNT_RUN_DIR="+filepath.Join(dir, "run"),
		"OBJECTMOUNT_CACHE_DIR="+filepath.Join(dir, "cache"), "OBJECTMOUNT_NO_PROGRESS=true")
	return c
}

// mount mounts source, a file's path or an id of the far store.
func (p *place) mount(source string, flags ...string) error {
	c := p.b.command(p.b.store.far, p.dir, append(append([]string{"mount"}, flags...), source, p.mnt)...)
	// A file, not a pipe: the process that stays behind has it, too.
	said, err := os.CreateTemp(p.dir, "said-")
	if err != nil {
		return err
	}
	defer said.Close()
	c.Stderr = said
	if err := c.Run(); err != nil {
		text, _ := os.ReadFile(said.Name())
		return fmt.Errorf("mount: %w: %s", err, bytes.TrimSpace(text))
	}
	return nil
}

// unmount takes the mount down and waits for the process that served it.
func (p *place) unmount() error {
	c := p.b.command(p.b.store.far, p.dir, "unmount", p.mnt)
	if _, err := c.Output(); err != nil {
		return fmt.Errorf("unmount: %w", stderr(err))
	}
	return p.b.alone()
}

// remove takes away all that was kept, whether the mount is there or not.
func (p *place) remove() error {
	if _, err := os.Lstat(p.mnt); err == nil {
		if err := p.unmount(); err != nil {
			return err
		}
	}
	return p.gone()
}

// gone takes the place itself away.
func (p *place) gone() error {
	if err := p.b.alone(); err != nil {
		return err
	}
	return also(sh(context.Background(), "umount '"+p.dir+"'"), os.Remove(p.dir))
}

// alone waits until no process of ours runs but the store: one that serves a
// mount, or flushes an extraction, would disturb what comes next.
func (b *bench) alone() error {
	for range 600 {
		busy := false
		exes, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, exe := range exes {
			if to, err := os.Readlink(exe); err == nil && to == b.binary {
				busy = true
			}
		}
		if !busy {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("a process of an earlier measurement is still there")
}

// indexed mounts a local archive once, so that its index and its pieces are in
// the cache, and takes it down again.
func (p *place) indexed(c *corpus) error {
	if err := p.mount(c.path, "--lazy"); err != nil {
		return err
	}
	// The listing of the root is whole when the first pass is.
	if _, err := os.ReadDir(p.mnt); err != nil {
		return err
	}
	for range 600 {
		found := false
		filepath.WalkDir(filepath.Join(p.dir, "cache"), func(name string, d fs.DirEntry, err error) error {
			found = found || err == nil && d.Name() == "index"
			return nil
		})
		if found {
			return p.unmount()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("no index was made")
}

// read reads a file of the mount to its end.
func (p *place) read(name string) error {
	_, err := readAll(filepath.Join(p.mnt, name), make([]byte, 1<<20))
	return err
}

// readAll reads a file to its end and gives its size, by system calls alone:
// package os asks epoll about every file it opens, which most programs do not.
func readAll(name string, buf []byte) (n int64, err error) {
	f, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(f)
	for {
		k, err := unix.Read(f, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if k == 0 {
			return n, nil
		}
		n += int64(k)
	}
}

// readTree reads files below dir, in this order, by so many readers.
func readTree(ctx context.Context, dir string, files []string, readers int) error {
	next := make(chan string)
	done := make(chan error, readers)
	for range readers {
		go func() {
			buf := make([]byte, 1<<20)
			var first error
			for name := range next {
				if first == nil {
					_, first = readAll(filepath.Join(dir, name), buf)
				}
			}
			done <- first
		}()
	}
	for _, name := range files {
		if ctx.Err() != nil {
			break
		}
		next <- name
	}
	close(next)
	err := ctx.Err()
	for range readers {
		err = also(err, <-done)
	}
	return err
}

// timed is how long f takes, in seconds.
func timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

// stderr adds to a command's error what it said.
func stderr(err error) error {
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(ee.Stderr)))
	}
	return err
}
