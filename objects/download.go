package objects

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	partVersion  = 1
	syncEvery    = 256 << 20 // bytes after which a download is made durable, so that a power loss costs at most so much
	copyBuffer   = 256 << 10
	tellEvery    = 100 * time.Millisecond
	maxRestarts  = 3
	maxSidecar   = 64 << 10
	bootIDSource = "/proc/sys/kernel/random/boot_id"
)

// sidecar is PATH.part.json: what the bytes in PATH.part are of.
type sidecar struct {
	Version  int      `json:"version"`
	Identity Identity `json:"identity"`
	BootID   string   `json:"boot_id"` // of the machine's run in which the bytes were written
	Synced   int64    `json:"synced"`  // bytes that are on the disk for sure
}

// Download writes the object to path, replacing a file (or a symlink, not
// what it points to) of that name only when all its bytes are there, right in
// number and in SHA-256 where that is known, and on the disk.
//
// Until then they are in path.part, with path.part.json beside it saying of
// which version of the object they are. A later Download of the same version,
// also by another process and after a crash, goes on from there. Two at the
// same time are kept apart by a lock.
//
// progress, which may be nil, is called from this goroutine about ten times a
// second and at the end.
func (r *Reader) Download(ctx context.Context, path string, progress func(done, total int64)) error {
	d := &download{r: r, ctx: ctx, path: path, tell: progress}
	if err := d.run(); err != nil {
		return Redact(fmt.Errorf("download to %s: %w", path, err))
	}
	return nil
}

// download is one call of Download.
type download struct {
	r    *Reader
	ctx  context.Context
	path string
	tell func(done, total int64)

	file   *os.File // path.part, locked
	sum    hash.Hash
	done   int64 // bytes in file that are known to be right
	synced int64
	told   time.Time
}

func (d *download) run() error {
	if info, err := os.Lstat(d.path); err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: d.path, Err: syscall.EISDIR}
	}
	if err := d.openPart(); err != nil {
		return err
	}
	defer d.file.Close()
	if err := d.room(); err != nil {
		return err
	}

	refetched := false
	for restarts := 0; ; {
		err := d.fill()
		switch {
		case err == nil:
			return d.publish()
		case errors.Is(err, ErrChecksum) && !refetched:
			// Once more, over another connection and without the bytes that
			// the first request brought: one bit may have tipped on the way.
			refetched = true
			d.r.refetch()
		case errors.Is(err, ErrChecksum), errors.Is(err, ErrChanged):
			d.remove() // nothing of it can be used again
			return err
		case errors.Is(err, syscall.ENOSPC):
			d.remove() // a full disk needs the room more than we do
			return err
		case (errors.Is(err, ErrNoRanges) || errors.Is(err, ErrNoValidator)) && restarts < maxRestarts:
			restarts++ // it cannot be resumed, but begun anew
		default:
			d.save() // best effort: the next run trusts what it finds
			return err
		}
		if err := d.restart(0); err != nil {
			return err
		}
	}
}

// openPart opens and locks path.part, and finds out how much of it is of use.
func (d *download) openPart() error {
	name := d.path + ".part"
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return err
		}
		info, err := f.Stat()
		switch {
		case err != nil:
		case !info.Mode().IsRegular():
			err = fmt.Errorf("%s is in the way: it is not a file", name)
		default:
			if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
				err = fmt.Errorf("%s is in use: another download of it is running", name)
			}
		}
		if err != nil {
			f.Close()
			return err
		}
		// Who had the lock before us may have finished: then this file has
		// its final name by now, and must not be touched.
		if still, err := os.Lstat(name); err != nil || !os.SameFile(still, info) {
			f.Close()
			continue
		}
		d.file = f
		if info, err = f.Stat(); err == nil { // anew: it may have grown before it was ours
			err = d.restart(d.usable(info.Size()))
		}
		if err != nil {
			f.Close()
			return err
		}
		return nil
	}
}

// usable is how many bytes of path.part, which is size bytes long, are of
// this version of the object. What a process wrote before it was killed is
// there; what was written before the machine went down is only if synced.
func (d *download) usable(size int64) int64 {
	b, err := readAtMost(d.path+".part.json", maxSidecar)
	var was sidecar
	if err != nil || json.Unmarshal(b, &was) != nil || was.Version != partVersion ||
		was.Identity != d.r.id || !d.r.id.Proven() {
		return 0
	}
	if was.BootID == "" || was.BootID != bootID() {
		size = min(size, was.Synced)
	}
	return max(0, min(size, d.r.id.Size))
}

// restart makes path.part end at off and be of this version from now on, and
// brings the checksum up to there.
func (d *download) restart(off int64) error {
	d.done, d.synced, d.sum = off, 0, nil
	if err := d.file.Truncate(off); err != nil {
		return err
	}
	if err := d.writeSidecar(); err != nil {
		return err
	}
	if d.r.sha256 == nil {
		return nil
	}
	d.sum = sha256.New()
	_, err := io.Copy(d.sum, io.NewSectionReader(d.file, 0, off))
	return err
}

// room refuses to begin what cannot end, while the disk is still usable.
func (d *download) room() error {
	var s unix.Statfs_t
	if unix.Fstatfs(int(d.file.Fd()), &s) != nil {
		return nil // the write will tell
	}
	free := int64(s.Bavail) * s.Bsize
	if need := d.r.id.Size - d.done; need > free {
		d.remove()
		return fmt.Errorf("it needs %d bytes and %d are free: %w", need, free, syscall.ENOSPC)
	}
	return nil
}

// fill brings the rest of the bytes.
func (d *download) fill() error {
	s, err := d.r.Stream(d.ctx, d.done)
	if err != nil {
		return err
	}
	defer s.Close()
	s.(*stream).sum = nil // ours covers what earlier runs brought, too
	buf := make([]byte, copyBuffer)
	for {
		n, rerr := s.Read(buf)
		if n > 0 {
			if _, err := d.file.WriteAt(buf[:n], d.done); err != nil {
				return err
			}
			d.done += int64(n)
			if d.sum != nil {
				d.sum.Write(buf[:n])
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return rerr
		}
		if d.done-d.synced >= syncEvery {
			if err := d.save(); err != nil {
				return err
			}
		}
		d.say(false)
	}
	if d.sum != nil {
		if err := checkSum(d.sum, d.r.sha256); err != io.EOF {
			return err
		}
	}
	return nil
}

// say tells the progress, not more often than anybody can read.
func (d *download) say(end bool) {
	if d.tell == nil || !end && time.Since(d.told) < tellEvery {
		return
	}
	d.told = time.Now()
	d.tell(d.done, d.r.id.Size)
}

// save makes what is there durable: first the bytes, then the word that they
// are.
func (d *download) save() error {
	if err := d.file.Sync(); err != nil {
		return err
	}
	d.synced = d.done
	return d.writeSidecar()
}

// writeSidecar replaces path.part.json as a whole.
func (d *download) writeSidecar() error {
	b, err := json.Marshal(sidecar{partVersion, d.r.id, bootID(), d.synced})
	if err != nil {
		return err
	}
	name := d.path + ".part.json"
	tmp, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil && d.synced > 0 {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// publish gives the whole file its name.
func (d *download) publish() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != d.r.id.Size {
		return fmt.Errorf("%s.part has %d bytes and should have %d: somebody else wrote to it", d.path, info.Size(), d.r.id.Size)
	}
	if err := d.file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(d.path+".part", d.path); err != nil {
		return err
	}
	os.Remove(d.path + ".part.json") // useless without the part
	if err := syncDir(filepath.Dir(d.path)); err != nil {
		return err
	}
	d.say(true)
	return nil
}

// remove takes the half file away.
func (d *download) remove() {
	os.Remove(d.path + ".part")
	os.Remove(d.path + ".part.json")
	os.Remove(d.path + ".part.json.tmp")
}

// refetch forgets what the first request brought, and the connections.
func (r *Reader) refetch() {
	r.mu.Lock()
	r.first = nil
	r.mu.Unlock()
	closeIdle(r.link.rt)
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	// Some file systems cannot sync a directory, and say so.
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}

func readAtMost(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// bootID names the machine's present run; "" when it cannot be known.
func bootID() string {
	b, err := readAtMost(bootIDSource, 64)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
