package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is kept. Spans beyond them are not cached; reading them works
// as if the cache were not there.
const (
	MaxSpans    = 1 << 22  // spans of one blob
	MaxSpanSize = 64 << 20 // bytes of one span
)

// version names the directory that holds everything of this format. Other
// versions have directories of their own, and each has a file "lock" on whose
// byte lockUsers its users hold a shared lock; that much must never change.
const version = 1

const (
	// openWait is how long opening and sweeping wait for the lock.
	openWait = 30 * time.Second
	// putWait is how long PutSpan does. A reader may be waiting behind it.
	putWait = 2 * time.Second
)

// Options of Open. The zero value is a good default.
type Options struct {
	// Budget is how many bytes of spans are kept, of all blobs together. Files
	// that the caller keeps beside them (WriteFile) are not counted. Processes
	// that share a directory should agree on it; each enforces its own.
	// 0: a quarter of the file system.
	Budget int64

	// FreeFloor is how many bytes of the file system stay free: below it spans
	// are evicted, and none added. 0: the larger of 1 GiB and 5 % of the file
	// system. Negative: no floor.
	FreeFloor int64
}

// Cache is a directory of spans. It is safe for concurrent use, and several
// processes may have the same directory open at once.
type Cache struct {
	dir    string   // of this version
	root   *os.Root // the same
	usage  *os.File
	lock   *lock
	block  int64 // of the file system
	budget int64
	floor  int64

	start  time.Time
	pause  time.Duration // after a failed write
	paused atomic.Int64  // no spans are written before this time after start

	hand      hand          // of the clock; guarded by lock
	recounted time.Duration // after start; guarded by lock

	mu     sync.Mutex
	blobs  map[*Blob]struct{} // guarded by mu; entries leave with lock.sem held, too
	closed bool               // guarded by mu
	past   counters           // of closed blobs, and what belongs to none
}

// Open opens the cache in dir and makes it if it is not there. A directory
// that belongs to someone else, or that others may write to, is refused; so is
// a file system that cannot punch holes.
func Open(dir string, opt Options) (*Cache, error) {
	c, err := open(dir, opt)
	if err != nil {
		return nil, fmt.Errorf("open cache %s: %w", dir, err)
	}
	return c, nil
}

func open(dir string, opt Options) (_ *Cache, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := ownDir(dir); err != nil {
		return nil, err
	}
	if err := tag(dir); err != nil {
		return nil, err
	}
	c := &Cache{
		dir:   filepath.Join(dir, "v"+strconv.Itoa(version)),
		start: time.Now(),
		pause: 30 * time.Second,
		blobs: map[*Blob]struct{}{},
	}
	defer func() {
		if err != nil {
			c.closeFiles()
		}
	}()
	if err := c.join(); err != nil {
		return nil, err
	}
	removeOtherVersions(dir)
	if err := punch(c.lock.file, 1<<30, 1<<30+4096); errors.Is(err, unix.EOPNOTSUPP) {
		return nil, errors.New("the file system cannot punch holes, which eviction needs; choose a directory on ext4, xfs, btrfs or tmpfs")
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(c.lock.file.Fd()), &fs); err != nil {
		return nil, err
	}
	c.block = min(max(int64(fs.Bsize), 512), 64<<10)
	total := int64(fs.Blocks) * int64(fs.Bsize)
	if c.budget = opt.Budget; c.budget <= 0 {
		c.budget = total / 4
	}
	if c.floor = opt.FreeFloor; c.floor == 0 {
		c.floor = max(1<<30, total/20)
	}
	if c.usage, err = c.root.OpenFile("usage", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := c.locked(openWait, c.recount); err != nil {
		return nil, err
	}
	c.removeDead()
	return c, nil
}

// ownDir makes dir with permissions 0700, or checks that it is safe to use.
func ownDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, not to user %d who runs this; choose another directory or change its owner", dir, st.Uid, os.Geteuid())
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s may be written by others (mode %04o); make it 0700, or choose another directory", dir, st.Mode&0o7777)
	}
	return nil
}

// tag marks dir as a cache for backup programs (bford.info/cachedir).
func tag(dir string) error {
	name := filepath.Join(dir, "CACHEDIR.TAG")
	if _, err := os.Lstat(name); err == nil {
		return nil
	}
	return os.WriteFile(name, []byte("Signature: 8a477f597d28d172789f06886806bc55\n"+
		"# This directory is a cache of objectmount. It can be removed when no\n"+
		"# objectmount process runs. See https://bford.info/cachedir/\n"), 0o600)
}

// join makes the directory of this version and becomes one of its users.
func (c *Cache) join() error {
	for range 10 {
		if err := ownDir(c.dir); err != nil {
			return err
		}
		root, err := os.OpenRoot(c.dir)
		if err != nil {
			return err
		}
		f, err := root.OpenFile("lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			_ = root.Close()
			return err
		}
		joined, err := tryLock(f, unix.F_RDLCK, lockUsers, 1)
		// Another version may have removed it all before the lock was had.
		fi, err1 := f.Stat()
		now, err2 := os.Stat(filepath.Join(c.dir, "lock"))
		if joined && err1 == nil && err2 == nil && os.SameFile(fi, now) {
			c.root, c.lock = root, newLock(f)
			return nil
		}
		_, _ = f.Close(), root.Close()
		if err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s is being removed by another version of this program", c.dir)
}

// removeOtherVersions removes the directories of versions that nobody uses.
func removeOtherVersions(dir string) {
	names, _ := filepath.Glob(filepath.Join(dir, "v[0-9]*"))
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(name), "v"))
		if err != nil || n == version {
			continue
		}
		f, err := os.OpenFile(filepath.Join(name, "lock"), os.O_RDWR, 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			continue
		}
		unused := true
		if err == nil {
			unused, _ = tryLock(f, unix.F_WRLCK, lockUsers, 1)
		}
		if unused {
			_ = os.RemoveAll(name)
		}
		if f != nil {
			_ = f.Close()
		}
	}
}

// locked runs f with the lock, under guard.
func (c *Cache) locked(wait time.Duration, f func() error) error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return os.ErrClosed
	}
	if err := c.lock.acquire(wait); err != nil {
		return err
	}
	defer c.lock.release()
	return guard(f)
}

// dirName is the directory of an identity.
func dirName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func isDirName(name string) bool {
	b, err := hex.DecodeString(name)
	return err == nil && len(b) == 16
}

// names lists the identities on disk.
func (c *Cache) names() ([]string, error) {
	d, err := c.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	all, err := d.Readdirnames(-1)
	names := all[:0]
	for _, n := range all {
		if isDirName(n) {
			names = append(names, n)
		}
	}
	return names, err
}

// Close closes the cache, and the blobs that are still open.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	open := make([]*Blob, 0, len(c.blobs))
	for b := range c.blobs {
		open = append(open, b)
	}
	c.mu.Unlock()
	for _, b := range open {
		_ = b.Close()
	}
	c.lock.sem <- struct{}{} // until whoever is at work has finished; for good
	c.closeFiles()
	return nil
}

func (c *Cache) closeFiles() {
	if c.usage != nil {
		_ = c.usage.Close()
	}
	if c.lock != nil {
		_ = c.lock.file.Close()
	}
	if c.root != nil {
		_ = c.root.Close()
	}
}
