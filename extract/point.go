package extract

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Point is where an object that is mounted, not extracted, can be shown.
type Point struct {
	Path  string
	Owner Owner // of what is there, or of the nearest parent, as Extract would choose
	Made  bool  // nothing was there: RemovePoint takes it away again
}

// MakePoint makes what another file system can be mounted on, at the place to
// which Extract would bring the object: an empty directory for an archive, an
// empty file for a file of that format. Parents are made as Extract makes them.
// An empty directory, or file, that is there is used; what else is there is in
// the way (ErrConflict), but for ConflictReplace, which lets the mount cover it.
func MakePoint(objectPath, format string, file bool, opts Options) (Point, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return Point{}, err
	}
	p, err := find(objectPath, file, targetName(opts.Name, format), opts, true)
	if err != nil {
		return Point{}, err
	}
	pt := Point{Path: p.path, Owner: p.owner}
	if opts.Owner != nil {
		pt.Owner = *opts.Owner
	}
	if p.there == vacant {
		if err := p.makePoint(file, pt.Owner); err != nil {
			p.undo()
			return Point{}, writeError("make mount point", p.path, err)
		}
		pt.Made = true
	} else if err := p.mayCover(file, opts.OnConflict); err != nil {
		p.undo()
		return Point{}, err
	}
	p.close()
	return pt, nil
}

// mayCover says why what is there cannot be covered by a mount.
func (p *place) mayCover(file bool, on OnConflict) error {
	isDir := p.there != aFile
	switch {
	case isDir == file, !isDir && p.st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s exists and is %s", ErrConflict, quote(p.path), typeName(p.st.Mode))
	case p.there == emptyDir, on == ConflictReplace:
		return nil
	case file && p.st.Size == 0:
		return nil
	case file:
		return fmt.Errorf("%w: %s exists and is %s", ErrConflict, quote(p.path), typeName(p.st.Mode))
	}
	return fmt.Errorf("%w: %s exists and is not empty", ErrConflict, quote(p.path))
}

// makePoint makes the point, with the mode that Extract gives a root.
func (p *place) makePoint(file bool, owner Owner) error {
	var fd int
	var err error
	if file {
		fd, err = openat(p.parent, p.base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
	} else {
		fd, err = makePrivateDir(p.parent, p.base)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if geteuid() == 0 {
		err = chown(fd, owner)
	}
	if err == nil {
		err = chmod(fd, map[bool]uint32{true: 0o644, false: 0o755}[file])
	}
	return err
}

// RemovePoint takes a point away that MakePoint made, if it is still as it was
// made. That it is gone, or has become something else, is no error.
func RemovePoint(path string) error {
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		err = unix.Rmdir(path)
	case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
		err = unix.Unlink(path)
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST):
		return nil
	}
	return fmt.Errorf("remove mount point %s: %w", quote(path), err)
}
