package extract

import (
	"container/list"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// dirs opens directories below one root and keeps the last used ones open:
// files of an archive come directory by directory, so that nearly all need no
// walk at all.
//
// No path it opens can lead out of the root: openat2 resolves it beneath the
// root and refuses symbolic links, magic links and mount points on the way.
// Where the kernel has no openat2 (before 5.6, or an old seccomp profile), it
// walks component by component with O_NOFOLLOW and compares devices, which is
// as strict and slower.
//
// A descriptor it returns is its own and is valid until openDirs more
// directories have been opened, or for as long as the dirFD is held.
type dirs struct {
	root  *dirFD // its descriptor is the caller's
	dev   uint64
	open  map[string]*list.Element // path → element holding a *dirFD
	byUse *list.List               // most recently used first
	walk  bool                     // never use openat2; for tests
}

// dirFD is an open directory. It is closed when it is neither among the last
// used ones nor held by a writer.
type dirFD struct {
	path  string
	fd    int
	holds atomic.Int32
}

func (d *dirFD) hold() { d.holds.Add(1) }

func (d *dirFD) release() {
	if d.holds.Add(-1) == 0 {
		unix.Close(d.fd)
	}
}

const openDirs = 128

// noOpenat2 remembers that the kernel or seccomp refused openat2.
var noOpenat2 atomic.Bool

const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func newDirs(root int) (*dirs, error) {
	st, err := fstat(root)
	if err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	own := &dirFD{fd: root}
	own.holds.Store(1) // never released: the caller closes it
	return &dirs{root: own, dev: st.Dev, open: map[string]*list.Element{}, byUse: list.New()}, nil
}

// get opens the directory at path, a clean name; "" is the root.
func (d *dirs) get(path string) (*dirFD, error) {
	if path == "" {
		return d.root, nil
	}
	if el := d.open[path]; el != nil {
		d.byUse.MoveToFront(el)
		return el.Value.(*dirFD), nil
	}
	fd, err := openBeneath(d.root.fd, d.dev, path, openDirFlags, d.walk)
	if err != nil {
		return nil, err
	}
	if d.byUse.Len() >= openDirs {
		el := d.byUse.Back()
		old := d.byUse.Remove(el).(*dirFD)
		delete(d.open, old.path)
		old.release()
	}
	dir := &dirFD{path: strings.Clone(path), fd: fd} // not to keep an entry's whole name alive
	dir.hold()
	d.open[dir.path] = d.byUse.PushFront(dir)
	return dir, nil
}

// close closes all directories but the root.
func (d *dirs) close() {
	for _, el := range d.open {
		el.Value.(*dirFD).release()
	}
	d.open = nil
}

// openBeneath opens path below root without following any link or crossing
// into another file system. dev is root's device.
func openBeneath(root int, dev uint64, path string, flags int, walk bool) (int, error) {
	if !walk && !noOpenat2.Load() {
		how := unix.OpenHow{
			Flags: uint64(flags),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS |
				unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		}
		var fd int
		err := retry(func() (err error) {
			fd, err = unix.Openat2(root, path, &how)
			return err
		})
		if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) {
			return fd, err
		}
		noOpenat2.Store(true)
	}
	return openWalking(root, dev, path, flags)
}

// openWalking is openBeneath with openat alone. path must be clean.
func openWalking(root int, dev uint64, path string, flags int) (int, error) {
	at := root
	for {
		c, rest, more := strings.Cut(path, "/")
		how := flags | unix.O_NOFOLLOW
		if more {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := openat(at, c, how, 0)
		if at != root {
			unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		st, err := fstat(fd)
		if err == nil && st.Dev != dev {
			err = unix.EXDEV
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		if !more {
			return fd, nil
		}
		at, path = fd, rest
	}
}
