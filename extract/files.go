package extract

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// makeFile makes a file with content. One that is small and lies in one piece
// goes to the writers; the parser makes the others, piece by piece.
func (t *tree) makeFile(parent *dirFD, base string, e *entry, m *members, owner *Owner) error {
	if err := t.budget.file(e.size, e.holes != nil); err != nil {
		return err
	}
	var first []byte
	if e.holes == nil && e.size <= maxJob && t.writers.jobs != nil {
		p, err := m.content()
		if err != nil && err != io.EOF {
			return err
		}
		if int64(len(p)) == e.size {
			if err := t.budget.wrote(len(p)); err != nil {
				return err
			}
			return t.writers.hand(fileJob{dir: parent, base: base, entry: *e, owner: owner, data: p}, m.in.current())
		}
		first = p
	}
	t.writers.flush() // they can go on meanwhile
	fd, err := t.create(parent.fd, base, e)
	if err != nil {
		return err
	}
	if e.holes == nil {
		if err = t.budget.reserveBlocks(fd, e.size); err != nil {
			err = writeError("allocate", e.name, err)
		}
	}
	if err == nil {
		err = t.copy(fd, e, first, m)
	}
	if err == nil {
		err = t.complete(fd, e, owner)
	}
	return closeFile(fd, e.name, err)
}

// makeSmall makes a file in a writer.
func (t *tree) makeSmall(j *fileJob) error {
	fd, err := t.create(j.dir.fd, j.base, &j.entry)
	if err != nil {
		return err
	}
	if err = pwrite(fd, j.data, 0); err != nil {
		err = writeError("write", j.entry.name, err)
	} else {
		err = t.complete(fd, &j.entry, j.owner)
	}
	return closeFile(fd, j.entry.name, err)
}

// create makes an empty file with the entry's mode as far as the kernel lets
// it: nobody else can reach the stage, so it need not be hidden while it is
// written.
func (t *tree) create(parent int, base string, e *entry) (fd int, err error) {
	mode := e.mode
	if len(e.xattrs) > 0 {
		mode |= 0o200 // else only root could set them
	}
	err = anew(parent, base, unix.S_IFREG, func() (err error) {
		fd, err = openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, mode)
		return err
	})
	if err != nil {
		return -1, writeError("create", e.name, err)
	}
	return fd, nil
}

// complete gives a file its owner, extended attributes, mode and time.
func (t *tree) complete(fd int, e *entry, owner *Owner) error {
	var err error
	if owner != nil {
		err = t.forgive(chown(fd, *owner)) // of the mode it clears set-ID bits only
	}
	if len(e.xattrs) > 0 {
		if err := t.setXattrs(fd, e.name, e.xattrs); err != nil {
			return err
		}
	}
	if err == nil && (e.mode&t.unasked != 0 || len(e.xattrs) > 0) {
		err = chmod(fd, e.mode)
	}
	if err == nil {
		err = setTimes(fd, e.mtime)
	}
	if err != nil {
		return writeError("set mode, owner and time of", e.name, err)
	}
	return nil
}

// closeFile closes fd and gives the first error.
func closeFile(fd int, name string, err error) error {
	cerr := unix.Close(fd)
	if err == nil && cerr != nil && !errors.Is(cerr, unix.EINTR) {
		err = writeError("close", name, cerr)
	}
	return err
}

// copy writes a file's content: first, and what the archive has behind it.
// What lies between the extents of a sparse file stays a hole.
func (t *tree) copy(fd int, e *entry, first []byte, m *members) error {
	x, more := index.Extent{Off: 0, Len: e.size}, e.holes
	if e.holes != nil {
		x = index.Extent{}
	}
	for p := first; ; {
		for len(p) > 0 {
			for x.Len == 0 { // the extents hold just what is stored
				x, more = more[0], more[1:]
			}
			n := min(int64(len(p)), x.Len)
			if err := pwrite(fd, p[:n], x.Off); err != nil {
				return writeError("write", e.name, err)
			}
			if err := t.budget.wrote(int(n)); err != nil {
				return err
			}
			p, x.Off, x.Len = p[n:], x.Off+n, x.Len-n
		}
		if t.progress != nil {
			t.progress()
		}
		var err error
		if p, err = m.content(); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if e.holes != nil {
		if err := retry(func() error { return unix.Ftruncate(fd, e.size) }); err != nil {
			return writeError("set size of", e.name, err)
		}
	}
	return nil
}

// unaskedBits are the mode bits that a new file in dir may lack although it
// was asked for: the process's umask, or any where the directory has a default
// access control list. A file without any of them needs no chmod, one system
// call less in five.
func unaskedBits(dir int) uint32 {
	const all = 0o7777
	if _, err := unix.Fgetxattr(dir, "system.posix_acl_default", nil); err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return all
	}
	// Asking the kernel by umask(2) would change it for a moment, for all.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return all
	}
	for line := range strings.Lines(string(status)) {
		var mask uint32
		if _, err := fmt.Sscanf(line, "Umask:\t%o", &mask); err == nil {
			return mask
		}
	}
	return all
}
