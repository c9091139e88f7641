package index

import (
	"context"
	"io"
	"io/fs"
	"time"
)

// FS shows a Tree as an fs.FS with symbolic links (fs.ReadLinkFS), for tests
// and tools. Its files implement io.ReaderAt and io.Seeker. Names that are no
// valid UTF-8 cannot be opened through it. On a Growing it waits as the tree
// does.
func FS(t Tree, r *Reader) fs.FS { return &fsys{t, r} }

type fsys struct {
	t Tree
	r *Reader
}

var (
	_ fs.ReadLinkFS  = (*fsys)(nil)
	_ fs.StatFS      = (*fsys)(nil)
	_ fs.ReadDirFile = (*openDir)(nil)
	_ io.ReadSeeker  = (*openFile)(nil)
	_ io.ReaderAt    = (*openFile)(nil)
)

// maxFollow is how many symbolic links a path may lead through.
const maxFollow = 40

// walk finds the row of a path. Links on the way are followed, and the last
// one if follow says so.
func (s *fsys) walk(op, path string, follow bool) (uint32, error) {
	if !fs.ValidPath(path) {
		return 0, &fs.PathError{Op: op, Path: path, Err: fs.ErrInvalid}
	}
	r, err := s.resolve(path, follow)
	if err != nil {
		return 0, &fs.PathError{Op: op, Path: path, Err: err}
	}
	return r, nil
}

func (s *fsys) resolve(path string, follow bool) (uint32, error) {
	at, links := []uint32{0}, 0 // the rows from the root to where we are
	for rest := path; rest != ""; {
		var c string
		c, rest = cutPath(rest)
		switch c {
		case "", ".":
			continue
		case "..":
			at = at[:max(len(at)-1, 1)]
			continue
		}
		r, err := s.t.Lookup(context.Background(), at[len(at)-1], c)
		if err != nil {
			return 0, err
		}
		a, err := s.t.Attr(r)
		if err != nil {
			return 0, err
		}
		if a.Type == TypeSymlink && (follow || rest != "") {
			target, err := s.t.ReadLink(r)
			if err != nil {
				return 0, err
			}
			if links++; links > maxFollow || target[0] == '/' || len(target)+len(rest) > 1<<16 {
				return 0, fs.ErrInvalid // a loop, or out of the tree
			}
			rest = target + "/" + rest
			continue
		}
		at = append(at, r)
	}
	return at[len(at)-1], nil
}

func cutPath(p string) (first, rest string) {
	for i := range len(p) {
		if p[i] == '/' {
			return p[:i], p[i+1:]
		}
	}
	return p, ""
}

// info is the fs.FileInfo and fs.DirEntry of a row.
type info struct {
	name string
	row  uint32
	a    Attr
}

func (i *info) Name() string               { return i.name }
func (i *info) Size() int64                { return i.a.Size }
func (i *info) Mode() fs.FileMode          { return i.a.FileMode() }
func (i *info) ModTime() time.Time         { return time.Unix(i.a.Sec, int64(i.a.Nsec)) }
func (i *info) IsDir() bool                { return i.a.Type == TypeDir }
func (i *info) Sys() any                   { return i.a }
func (i *info) Type() fs.FileMode          { return i.Mode().Type() }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }
func (i *info) String() string             { return fs.FormatFileInfo(i) }

// FileMode is type and permissions as package fs has them.
func (a Attr) FileMode() fs.FileMode {
	m := fs.FileMode(a.Mode & 0o777)
	switch a.Type {
	case TypeDir:
		m |= fs.ModeDir
	case TypeSymlink:
		m |= fs.ModeSymlink
	}
	if a.Mode&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m
}

func (s *fsys) info(path string, row uint32) (*info, error) {
	a, err := s.t.Attr(row)
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			path = path[i+1:]
			break
		}
	}
	return &info{path, row, a}, err
}

// Open implements fs.FS.
func (s *fsys) Open(path string) (fs.File, error) {
	row, err := s.walk("open", path, true)
	if err != nil {
		return nil, err
	}
	i, err := s.info(path, row)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if i.IsDir() {
		return &openDir{info: i, s: s}, nil
	}
	return &openFile{info: i, s: s}, nil
}

// Stat implements fs.StatFS.
func (s *fsys) Stat(path string) (fs.FileInfo, error) { return s.stat("stat", path, true) }

// Lstat implements fs.ReadLinkFS.
func (s *fsys) Lstat(path string) (fs.FileInfo, error) { return s.stat("lstat", path, false) }

func (s *fsys) stat(op, path string, follow bool) (fs.FileInfo, error) {
	row, err := s.walk(op, path, follow)
	if err != nil {
		return nil, err
	}
	i, err := s.info(path, row)
	if err != nil {
		return nil, &fs.PathError{Op: op, Path: path, Err: err}
	}
	return i, nil
}

// ReadLink implements fs.ReadLinkFS.
func (s *fsys) ReadLink(path string) (string, error) {
	row, err := s.walk("readlink", path, false)
	if err != nil {
		return "", err
	}
	target, err := s.t.ReadLink(row)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	return target, nil
}

type openDir struct {
	*info
	s   *fsys
	pos int // of the next child
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }

func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: fs.ErrInvalid}
}

func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	list := []fs.DirEntry{}
	var failed error
	err := d.s.t.Children(context.Background(), d.row, d.pos, func(pos int, c Child) bool {
		var i *info
		if i, failed = d.s.info(c.Name, c.Row); failed != nil {
			return false
		}
		list = append(list, i)
		d.pos = pos + 1
		return n <= 0 || len(list) < n
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		err = &fs.PathError{Op: "readdir", Path: d.name, Err: err}
	} else if n > 0 && len(list) == 0 {
		err = io.EOF
	}
	return list, err
}

type openFile struct {
	*info
	s   *fsys
	off int64
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

func (f *openFile) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(p, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.s.r.ReadFileAt(context.Background(), f.row, p, off)
	if err != nil && err != io.EOF {
		err = &fs.PathError{Op: "read", Path: f.name, Err: err}
	}
	return n, err
}

func (f *openFile) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += f.a.Size
	}
	if off < 0 || whence < 0 || whence > 2 {
		return 0, &fs.PathError{Op: "seek", Path: f.name, Err: fs.ErrInvalid}
	}
	f.off = off
	return off, nil
}
