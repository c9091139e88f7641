package objects

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const maxRestarts = 3

// Download writes the object to path, replacing a file (or a symlink, not
// what it points to) of that name only when all its bytes are there, right in
// number and in SHA-256 where that is known, and on the disk.
//
// Until then they are in path.part, with path.part.json beside it saying which
// they are and of which version of the object: several requests bring them,
// so there may be gaps. A later Download of the same version, also by another
// process and after a crash, brings what is missing. Two at the same time are
// kept apart by a lock.
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
	have   spans    // what it has
	synced spans    // what of that is on the disk for sure
	sum    hash.Hash
	summed int64 // bytes [0, summed) are in sum
	told   time.Time
	noted  time.Time // when the sidecar was last written
}

func (d *download) run() error {
	if info, err := os.Lstat(d.path); err == nil && info.IsDir() {
		return &fs.PathError{Op: "write", Path: d.path, Err: syscall.EISDIR}
	}
	if err := d.r.meet(d.ctx); err != nil { // which version is it?
		return d.r.named("open", err)
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
		if err := d.restart(nil); err != nil {
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
			err = d.restart(readSidecar(name, info.Size(), d.r.Identity()))
		}
		if err != nil {
			f.Close()
			return err
		}
		return nil
	}
}

// restart makes path.part have these bytes of this version from now on, and
// brings the checksum up to the first gap.
func (d *download) restart(have spans) error {
	d.have, d.synced, d.sum, d.summed = have, nil, nil, 0
	end := int64(0)
	if len(have) > 0 {
		end = have[len(have)-1][1]
	}
	if err := d.file.Truncate(end); err != nil {
		return err
	}
	if err := d.note(); err != nil {
		return err
	}
	if d.r.sha256 == nil {
		return nil
	}
	d.sum = sha256.New()
	return d.follow()
}

// room refuses to begin what cannot end, while the disk is still usable.
func (d *download) room() error {
	var s unix.Statfs_t
	if unix.Fstatfs(int(d.file.Fd()), &s) != nil {
		return nil // the write will tell
	}
	free := int64(s.Bavail) * s.Bsize
	if need := d.r.Size() - d.have.total(); need > free {
		d.remove()
		return fmt.Errorf("it needs %d bytes and %d are free: %w", need, free, syscall.ENOSPC)
	}
	return nil
}

// say tells the progress.
func (d *download) say() {
	d.told = time.Now()
	if d.tell != nil {
		d.tell(d.have.total(), d.r.Size())
	}
}

// save makes what is there durable: first the bytes, then the word that they
// are.
func (d *download) save() error {
	if err := d.file.Sync(); err != nil {
		return err
	}
	d.synced = slices.Clone(d.have)
	return d.note()
}

// note brings the sidecar up to date.
func (d *download) note() error {
	d.noted = time.Now()
	return sidecar{partVersion, d.r.Identity(), bootID(), d.have, d.synced}.write(d.path + ".part")
}

// publish gives the whole file its name.
func (d *download) publish() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != d.r.Size() {
		return fmt.Errorf("%s.part has %d bytes and should have %d: somebody else wrote to it", d.path, info.Size(), d.r.Size())
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
	d.say()
	return nil
}

// remove takes the half file away.
func (d *download) remove() {
	os.Remove(d.path + ".part")
	os.Remove(d.path + ".part.json")
	os.Remove(d.path + ".part.json.tmp")
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
