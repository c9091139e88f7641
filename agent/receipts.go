package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"objectmount/extract"
	"objectmount/objects"
)

// A receipt is what is known on disk about one path, and survives everything:
// it is why a reboot downloads nothing, why edits are never overwritten, and
// why a crash leaves nothing behind that nobody knows of. It is a small JSON
// file in <state>/mounts, named by a hash of the path, beside a lock file of
// the same name:
//
//	            begin                 its root is made        flush
//	(nothing) ────────▶ staging ────────────────▶ staging + ────────▶ published
//	published ────────▶ published + staging       where, what
//	                                              (intent)            (durable)
//
// staging is written before the first byte, and names the staging directory;
// so what a dead process left is swept, exactly that and nothing else. Before
// any content is written it also learns the inode that is about to appear, and
// where: so a crash before the rename is told from one after it. published
// stays while something new is being staged: until the rename it is what is
// there. What is done about a receipt in each state: see recover.
//
// Where nothing was there before, the mount is ready when the rename is done,
// and the flush follows (see flush.go). In between, a second file holds what
// was published, with the run of the kernel that it is true in. It is not
// synced, because that would wait for the flush, and need not be: a power cut
// that takes it away is what makes it untrue.
//
// No URL with a query and no key is ever in a receipt.

// receiptFormat is the version of the file. A newer one is not touched.
const receiptFormat = 1

// maxReceipt bounds a receipt in bytes; they have about a thousand.
const maxReceipt = 1 << 20

// Origin says who asked for a mount.
type Origin string

// The origins of a mount.
const (
	OriginSpec   Origin = "spec"   // an entry of the spec: taken down when it is no longer there
	OriginManual Origin = "manual" // the mount command: taken down by the unmount command only
)

type receipt struct {
	Format    int        `json:"format"`
	Path      string     `json:"path"`
	Origin    Origin     `json:"origin"`
	Spec      string     `json:"spec,omitempty"` // which spec, for OriginSpec: its path
	Published *published `json:"published,omitempty"`
	Staging   *staging   `json:"staging,omitempty"`
	// Inside lists the paths at which other mounts were made below this one.
	// What is there is not an edit of this one's tree.
	Inside []string `json:"inside,omitempty"`

	// unflushed is the staging that Published came out of, while the disk may
	// not hold it yet: then that is what the receipt says on disk.
	unflushed *staging
}

// wanted is that of a mount which decides what its files are. Two mounts of
// one path with equal digests are the same, whatever else differs.
type wanted struct {
	ObjectID string `json:"object_id,omitempty"`
	Store    string `json:"store,omitempty"`  // base URL of the API whose object it is; "": not known
	Source   string `json:"source,omitempty"` // local file, or URL without its query
	Digest   string `json:"digest"`
	// Options is the digest of everything but a download URL's query, which
	// is another one each time the same object is signed for.
	Options string `json:"options"`
	// How it is shown; see published.shownAs.
	Mode     string `json:"mode,omitempty"` // "lazy", "extract"; "": either
	ReadOnly bool   `json:"read_only,omitempty"`
}

// sameStore says whether ids of both are ids of one server, as far as is
// known: without a key nobody knows, and needs not, as long as nothing is to
// be fetched.
func (w wanted) sameStore(o wanted) bool { return w.Store == o.Store || w.Store == "" || o.Store == "" }

// same says whether what was published is what is wanted.
func (p *published) same(w wanted) bool {
	return p.Digest == w.Digest && p.sameStore(w) && p.shownAs(w)
}

// shownAs says whether what was published is lazy or not, as is wanted. What
// could not be lazy when it was made stays as it is.
func (p *published) shownAs(w wanted) bool {
	switch {
	case p.Lazy == nil:
		return (w.Mode != "lazy" && !w.ReadOnly) || p.Lesser != ""
	case w.Mode == "extract":
		return false
	}
	return p.Lazy.ReadOnly == w.ReadOnly
}

// published says what is at the path.
type published struct {
	wanted
	Identity    objects.Identity    `json:"identity"`
	Kind        extract.Kind        `json:"kind"`
	Format      string              `json:"format"`
	RealPath    string              `json:"real_path"`        // a file may have been put into the directory Path
	Tree        string              `json:"tree,omitempty"`   // where the files lie, if they are bound to RealPath
	Filled      bool                `json:"filled,omitempty"` // an empty directory was there
	Entries     int64               `json:"entries"`
	Bytes       int64               `json:"bytes"`
	Skipped     extract.Skipped     `json:"skipped,omitzero"`
	Fingerprint extract.Fingerprint `json:"fingerprint"`
	BirthNS     int64               `json:"birth_ns,omitempty"` // birth time of the root, 0 where there is none
	BootID      string              `json:"boot_id"`
	Time        time.Time           `json:"time"`
	Lazy        *lazyMount          `json:"lazy,omitempty"`   // it is mounted, not extracted
	Lesser      string              `json:"lesser,omitempty"` // why it was extracted although it was to be lazy
}

// staging says what is being made.
type staging struct {
	wanted
	Origin  Origin    `json:"origin"`
	Spec    string    `json:"spec,omitempty"`
	StageID string    `json:"stage_id"`
	BootID  string    `json:"boot_id"`
	Time    time.Time `json:"time"`
	// Next is what publishing will put at the path: the intent. nil before its
	// root is made.
	Next *published `json:"next,omitempty"`
	Root string     `json:"root,omitempty"` // where Next is until then
	// Later: it is flushed after the publishing, so that after a power cut it
	// may be at the path and be wrong.
	Later bool `json:"later,omitempty"`
}

// receipts is the directory of all receipts.
type receipts struct{ dir string }

// receiptID names the receipt of a clean path.
func receiptID(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

func (rs receipts) file(path string) string { return filepath.Join(rs.dir, receiptID(path)+".json") }

// load reads the receipt of a path; nil when there is none.
func (rs receipts) load(path string) (*receipt, error) {
	rc, err := rs.read(rs.file(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if rc.Path != path {
		return nil, fmt.Errorf("receipt %s is of %s, not of %s", rs.file(path), rc.Path, path)
	}
	return rc, nil
}

func (rs receipts) read(name string) (*receipt, error) {
	b, err := readBounded(name)
	rc := new(receipt)
	if err == nil {
		err = json.Unmarshal(b, rc)
	}
	var pe *fs.PathError
	switch {
	case errors.As(err, &pe):
		return nil, err
	case err != nil:
		return nil, &receiptError{name, err}
	case rc.Format != receiptFormat:
		return nil, &receiptError{name, fmt.Errorf("format %d, and this version knows %d", rc.Format, receiptFormat)}
	case !filepath.IsAbs(rc.Path) || filepath.Clean(rc.Path) != rc.Path:
		return nil, &receiptError{name, fmt.Errorf("its path %q is not clean", rc.Path)}
	}
	if st := rc.Staging; st != nil && st.Later {
		if f := readFresh(name, st.StageID); f != nil && f.BootID != "" && f.BootID == bootID() {
			rc.Published, rc.Staging, rc.unflushed = f.Published, nil, st
		}
	}
	return rc, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxReceipt+1))
	if err == nil && len(b) > maxReceipt {
		err = fmt.Errorf("larger than %d bytes", maxReceipt)
	}
	return b, err
}

// receiptError is a receipt that cannot be understood.
type receiptError struct {
	name string
	err  error
}

func (e *receiptError) Error() string { return "receipt " + e.name + ": " + e.err.Error() }
func (e *receiptError) Unwrap() error { return e.err }

// all reads every receipt, in the order of their paths. What cannot be read is
// left out and reported.
func (rs receipts) all() (list []*receipt, bad []error) {
	entries, err := os.ReadDir(rs.dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, []error{err}
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || strings.HasPrefix(id, ".") { // ".": being written by renameio
			continue
		}
		rc, err := rs.read(filepath.Join(rs.dir, e.Name()))
		switch {
		case errors.Is(err, fs.ErrNotExist): // taken away just now
		case err != nil:
			bad = append(bad, err)
		case receiptID(rc.Path) != id:
			bad = append(bad, &receiptError{e.Name(), fmt.Errorf("its path %q belongs into another file", rc.Path)})
		default:
			list = append(list, rc)
		}
	}
	slices.SortFunc(list, func(a, b *receipt) int { return strings.Compare(a.Path, b.Path) })
	return list, bad
}

// lock is the right to change one path and its receipt. It is held by one
// process at a time, and given up when that process dies.
type lock struct {
	rs   receipts
	path string
	f    *os.File
}

// lockPoll is how often a lock that another process holds is tried. (flock
// cannot wait with a context, and nothing wakes up who polls.)
const lockPoll = 50 * time.Millisecond

// lock waits until it has the lock of a path, or ctx ends. waiting, which may
// be nil, is called once if there is somebody to wait for.
func (rs receipts) lock(ctx context.Context, path string, waiting func()) (*lock, error) {
	if err := os.MkdirAll(rs.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of receipts: %w", err)
	}
	name := filepath.Join(rs.dir, receiptID(path)+".lock")
	for first := true; ; first = false {
		f, err := tryLock(name)
		if err == nil {
			return &lock{rs, path, f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if first && waiting != nil {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another process that works on %s: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// tryLock opens and locks a file, or gives EWOULDBLOCK. The holder may have
// removed the file before giving it up: then the lock is worth nothing, for
// the next one will make a new file.
func tryLock(name string) (*os.File, error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			return nil, err
		}
		mine, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if there, err := os.Lstat(name); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close()
	}
}

// unlock gives the lock up. Without a receipt the lock file goes too, so that
// a path that is no longer a mount leaves nothing behind.
func (l *lock) unlock() {
	if _, err := os.Lstat(l.rs.file(l.path)); errors.Is(err, fs.ErrNotExist) {
		os.Remove(freshFile(l.rs.file(l.path)))
		os.Remove(l.f.Name())
	}
	l.f.Close()
}

// load reads the receipt, which nobody else can change now. nil: there is none.
func (l *lock) load() (*receipt, error) { return l.rs.load(l.path) }

// save makes rc the receipt, durably: when it returns, no crash takes it back.
// What is not flushed yet is not told as if it were.
func (l *lock) save(rc *receipt) error {
	rc.Format, rc.Path = receiptFormat, l.path
	disk := *rc
	if rc.unflushed != nil {
		if err := l.saveFresh(rc); err != nil {
			return err
		}
		disk.Published, disk.Staging = nil, rc.unflushed
	}
	b, err := json.MarshalIndent(disk, "", "  ")
	if err == nil {
		err = renameio.WriteFile(l.rs.file(l.path), append(b, '\n'), 0o600, renameio.WithTempDir(l.rs.dir))
	}
	if err == nil {
		err = syncDir(l.rs.dir) // renameio leaves this to its caller
	}
	if err != nil {
		return fmt.Errorf("write the receipt of %s: %w", l.path, err)
	}
	if rc.unflushed == nil {
		os.Remove(freshFile(l.rs.file(l.path))) // if it stays, it is of no staging
	}
	return nil
}

// remove forgets the path, durably.
func (l *lock) remove() error {
	os.Remove(freshFile(l.rs.file(l.path)))
	err := os.Remove(l.rs.file(l.path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(l.rs.dir)
	}
	if err != nil {
		return fmt.Errorf("forget %s: %w", l.path, err)
	}
	return nil
}

// lockNow takes the lock of a path if nobody has it.
func (rs receipts) lockNow(path string) (*lock, bool) {
	f, err := tryLock(filepath.Join(rs.dir, receiptID(path)+".lock"))
	return &lock{rs, path, f}, err == nil
}

// tidy removes what a process that died while it wrote a receipt left behind.
func (rs receipts) tidy() {
	entries, _ := os.ReadDir(rs.dir) // nothing to tidy if it is not there
	for _, e := range entries {
		id, _, ok := strings.Cut(strings.TrimPrefix(e.Name(), "."), ".json")
		if !ok || !strings.HasPrefix(e.Name(), ".") || len(id) != len(receiptID("")) {
			continue
		}
		// Whoever holds the lock may be writing it at this moment.
		f, err := tryLock(filepath.Join(rs.dir, id+".lock"))
		if err != nil {
			continue
		}
		os.Remove(filepath.Join(rs.dir, e.Name()))
		if _, err := os.Lstat(filepath.Join(rs.dir, id+".json")); errors.Is(err, fs.ErrNotExist) {
			os.Remove(f.Name())
		}
		f.Close()
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// bootID tells one run of the kernel from another; "" where there is none.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
