package extract

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// place is where an object will be: a name in a directory that we hold open,
// and what is there now. Everything is done through the descriptor, so that
// renaming or replacing a parent meanwhile leads nowhere else.
type place struct {
	parent int    // of the directory; not O_PATH if we may read it
	base   string // the name in it
	path   string // for messages and results
	there  occupant
	st     unix.Stat_t // of what is there, unless vacant
	owner  Owner       // of the existing directory, or of the nearest parent
	made   []madeDir   // parents made on the way
}

// occupant is what is at a place.
type occupant byte

const (
	vacant occupant = iota
	emptyDir
	fullDir
	aFile // or anything else that is no directory; symbolic links too
)

// madeDir is a parent directory that we made; at is the directory it is in.
type madeDir struct {
	at   int
	name string
}

// parsePath checks an object path and cleans it lexically. inside says that
// it ended in a slash, which asks for a directory.
func parsePath(objectPath string) (clean string, inside bool, err error) {
	switch {
	case !strings.HasPrefix(objectPath, "/"):
		return "", false, fmt.Errorf("%w: object path %s is not absolute", ErrConflict, quote(objectPath))
	case strings.IndexByte(objectPath, 0) >= 0:
		return "", false, fmt.Errorf("%w: object path %s holds a NUL byte", ErrConflict, quote(objectPath))
	case len(objectPath) > 4095:
		return "", false, fmt.Errorf("%w: object path has %d bytes, more than 4095", ErrConflict, len(objectPath))
	}
	clean = path.Clean(objectPath)
	if clean == "/" {
		return "", false, fmt.Errorf("%w: object path %s is the root directory", ErrConflict, quote(objectPath))
	}
	for c := range strings.SplitSeq(clean, "/") {
		if len(c) > 255 {
			return "", false, fmt.Errorf("%w: a component of the object path has %d bytes, more than 255", ErrConflict, len(c))
		}
	}
	return clean, strings.HasSuffix(objectPath, "/"), nil
}

// find opens the place for a tree or a file. A file goes into the directory
// at objectPath if there is one or a slash asks for one, under its own name.
// With create, missing parents are made; without, their absence gives an
// error that wraps fs.ErrNotExist. The caller must close the place.
func find(objectPath string, file bool, name string, opts Options, create bool) (*place, error) {
	clean, inside, err := parsePath(objectPath)
	if err != nil {
		return nil, err
	}
	w := walker{create: create, owner: opts.Owner, within: opts.Within}
	if file && inside {
		base, err := fileName(name, clean)
		if err != nil {
			return nil, err
		}
		return w.place(clean, base)
	}
	p, err := w.place(path.Dir(clean), path.Base(clean))
	if err != nil || !file || (p.there != emptyDir && p.there != fullDir) {
		return p, err
	}
	p.close()
	base, err := fileName(name, clean)
	if err != nil {
		return nil, err
	}
	return w.place(clean, base)
}

// fileName checks that an object's name can name a file in a directory.
func fileName(name, dir string) (string, error) {
	if name == "" || name == "." || name == ".." || len(name) > 255 || strings.ContainsAny(name, "/\x00") {
		return "", fmt.Errorf("%w: %s is a directory, and the object's name %s cannot name a file in it: "+
			"give the path of the file itself", ErrConflict, quote(dir), quote(name))
	}
	return name, nil
}

func (w *walker) place(dir, base string) (*place, error) {
	parent, err := w.open(dir)
	if err != nil {
		return nil, err
	}
	p := &place{parent: parent, base: base, path: path.Join(dir, base), owner: w.nearest, made: w.made}
	if p.st, err = lstatat(parent, base); err != nil {
		if errors.Is(err, unix.ENOENT) {
			return p, nil
		}
		p.undo()
		return nil, fmt.Errorf("look at %s: %w", quote(p.path), err)
	}
	if p.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		p.there = aFile
		return p, nil
	}
	p.there = fullDir
	p.owner = Owner{int(p.st.Uid), int(p.st.Gid)}
	if fd, err := openat(parent, base, openDirFlags, 0); err == nil {
		if empty, err := isEmptyDir(fd); err == nil && empty {
			p.there = emptyDir
		}
		unix.Close(fd)
	}
	return p, nil
}

// close closes the place and keeps the parents that were made for it.
func (p *place) close() {
	unix.Close(p.parent)
	for _, m := range p.made {
		unix.Close(m.at)
	}
	p.made = nil
}

// undo removes the parents that were made, if they are still empty, and
// closes the place.
func (p *place) undo() {
	for i := len(p.made) - 1; i >= 0; i-- {
		_ = unix.Unlinkat(p.made[i].at, p.made[i].name, unix.AT_REMOVEDIR)
	}
	p.close()
}

// action is how a finished stage takes its place.
type action byte

const (
	actPut   action = iota // nothing is there: rename, and only if it is still so
	actOver                // rename over an empty directory, or a file over a file
	actSwap                // exchange, then delete the old
	actMerge               // move entry by entry
	actBind                // bind it over what is there, which no rename can move
)

// decide says how an object can take the place, or why it cannot: the error
// wraps ErrConflict.
func (p *place) decide(file bool, on OnConflict) (action, error) {
	if p.there == vacant {
		return actPut, nil
	}
	if isMountPoint(p.parent, p.base) {
		if on != ConflictReplace {
			return 0, fmt.Errorf("%w: %s is a mount point, which a rename cannot fill: "+
				"use a directory below it, or on_conflict replace to bind over it", ErrConflict, quote(p.path))
		}
		return actBind, p.mayBind(file)
	}
	switch {
	case p.there == emptyDir && !file:
		return actOver, nil
	case on == ConflictReplace:
		if p.there == aFile && file {
			return actOver, nil
		}
		return actSwap, noMountsBelow(p.path)
	case on == ConflictMerge && file && p.there == aFile:
		return actOver, nil
	case on == ConflictMerge && !file && p.there == fullDir:
		return actMerge, nil
	case on == ConflictMerge:
		return 0, fmt.Errorf("%w: %s is %s, which cannot be merged with %s", ErrConflict,
			quote(p.path), typeName(p.st.Mode), map[bool]string{true: "a file", false: "a directory"}[file])
	case p.there == aFile:
		return 0, fmt.Errorf("%w: %s exists and is %s", ErrConflict, quote(p.path), typeName(p.st.Mode))
	case p.there == emptyDir:
		return 0, fmt.Errorf("%w: %s exists and is a directory", ErrConflict, quote(p.path))
	}
	return 0, fmt.Errorf("%w: %s exists and is not empty", ErrConflict, quote(p.path))
}

// walker opens directories from the root of the file system, component by
// component, and judges every symbolic link on the way.
type walker struct {
	create bool   // make missing directories
	owner  *Owner // of made ones; nil: of the nearest existing
	within string // below it no link is followed

	nearest Owner // owner of the last existing directory
	made    []madeDir
	at      int // O_PATH descriptor of where we are
	links   int
	planted []uint32 // owners of links that neither root nor we made
}

// step is a component still to walk; link says that it came from a link's
// target, path is where it is by the path as given.
type step struct {
	name string
	link bool
	path string
}

// open opens the directory dir, an absolute clean path.
func (w *walker) open(dir string) (fd int, err error) {
	*w = walker{create: w.create, owner: w.owner, within: w.within}
	if w.at, err = openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return -1, fmt.Errorf("open /: %w", err)
	}
	defer func() {
		unix.Close(w.at)
		if err != nil {
			(&place{parent: -1, made: w.made}).undo()
		}
	}()
	var todo []step
	for p := dir; p != "/"; p = path.Dir(p) {
		todo = append([]step{{name: path.Base(p), path: p}}, todo...)
	}
	if err := w.arrive(); err != nil {
		return -1, err
	}
	for len(todo) > 0 {
		if todo, err = w.walk(todo[0], todo[1:]); err != nil {
			return -1, err
		}
	}
	if err := w.judgeLinks(dir); err != nil {
		return -1, err
	}
	fd, err = openat(w.at, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.EACCES) {
		// We may pass through it but not list it. It can still be worked in,
		// only not be fsynced.
		fd, err = openat(w.at, ".", unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", quote(dir), err)
	}
	return fd, nil
}

// arrive notes the owner of the directory that we are in.
func (w *walker) arrive() error {
	st, err := fstat(w.at)
	if err == nil {
		w.nearest = Owner{int(st.Uid), int(st.Gid)}
	}
	return err
}

// walk takes one step and returns what is left to walk.
func (w *walker) walk(s step, rest []step) ([]step, error) {
	fd, err := openat(w.at, s.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return rest, w.missing(s, rest)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", quote(s.path), err)
	}
	st, err := fstat(fd)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		unix.Close(w.at)
		w.at, w.nearest = fd, Owner{int(st.Uid), int(st.Gid)}
		return rest, nil
	case st.Mode&unix.S_IFMT == unix.S_IFLNK:
		rest, err = w.follow(fd, st, s, rest)
	default:
		err = fmt.Errorf("%w: %s is %s, not a directory", ErrConflict, quote(s.path), typeName(st.Mode))
	}
	unix.Close(fd)
	return rest, err
}

// follow puts a link's target before the rest.
func (w *walker) follow(fd int, st unix.Stat_t, s step, rest []step) ([]step, error) {
	if w.links++; w.links > 40 {
		return nil, fmt.Errorf("%w: too many symbolic links at %s", ErrConflict, quote(s.path))
	}
	if w.within != "" && strings.HasPrefix(s.path, path.Clean(w.within)+"/") {
		return nil, fmt.Errorf("%w: %s is a symbolic link inside of %s, where another object may have put it",
			ErrConflict, quote(s.path), quote(w.within))
	}
	if st.Uid != 0 && int(st.Uid) != geteuid() {
		w.planted = append(w.planted, st.Uid)
	}
	buf := make([]byte, 4096)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", quote(s.path), err)
	}
	target := string(buf[:n])
	if strings.HasPrefix(target, "/") {
		root, err := openat(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return nil, err
		}
		unix.Close(w.at)
		w.at = root
		if err := w.arrive(); err != nil {
			return nil, err
		}
	}
	var steps []step
	for c := range strings.SplitSeq(target, "/") {
		if c != "" && c != "." {
			steps = append(steps, step{name: c, link: true, path: s.path})
		}
	}
	return append(steps, rest...), nil
}

// judgeLinks refuses the way that we came if a link on it was planted: a link
// of a user (neither root nor us) is followed only to a directory of that
// user, where he could have written himself. Else /home/user/data -> /etc
// would let the user choose what root writes into /etc. It is asked where the
// existing directories end, before anything is made.
func (w *walker) judgeLinks(dir string) error {
	for _, uid := range w.planted {
		if int(uid) != w.nearest.UID {
			return fmt.Errorf("%w: the way to %s leads through a symbolic link of user %d to a directory of user %d: "+
				"give the real path", ErrConflict, quote(dir), uid, w.nearest.UID)
		}
	}
	return nil
}
