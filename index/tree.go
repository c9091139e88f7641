package index

import "context"

// Tree is the file system in an object, by row numbers. *Index has all of it;
// *Growing is the same tree while the first pass still runs. Row 0 is the
// root: a directory, or, when the object is no archive, the file that the
// object is. The row of everything else is final from the moment it is first
// told. Methods are safe for concurrent use.
//
// Each row is one inode: names that are hard links to one file all lead to
// the row of the first.
//
// Errors wrap fs.ErrNotExist, syscall.ENOTDIR (dir is no directory),
// syscall.EINVAL (no such row, or not one of the kind asked for), ctx.Err(),
// or tell that the index is damaged (ErrDamaged) or that the first pass
// failed (its error).
type Tree interface {
	// Lookup gives the row of name in the directory dir. On a Growing it
	// waits until an entry of that name has been seen, or the end.
	Lookup(ctx context.Context, dir uint32, name string) (row uint32, err error)
	// Attr gives the attributes of a row. On a Growing those of directories,
	// and link counts, may change until it is complete.
	Attr(row uint32) (Attr, error)
	// Children calls yield with the entries of dir, in order of their names,
	// from position from on (0 is the first), until yield returns false. A
	// position stays what it is. On a Growing it waits for the end.
	Children(ctx context.Context, dir uint32, from int, yield func(pos int, c Child) bool) error
	// ReadLink gives the target of a symbolic link.
	ReadLink(row uint32) (string, error)
	// Xattrs gives the extended attributes of a row, all of which are in the
	// "user." namespace, in the archive's order; nil if there are none.
	Xattrs(row uint32) ([]Xattr, error)
	// Extents gives where in the stream a file's content lies: pieces in
	// ascending order, without touching; what is between them, and behind the
	// last, is a hole. It does not wait for the content.
	Extents(row uint32) ([]Piece, error)
	// NumRows is one more than the highest row. It grows on a Growing.
	NumRows() int
	// Complete says that nothing will change any more.
	Complete() bool
}

// Attr are the attributes of a row.
type Attr struct {
	Type    Type   // TypeFile, TypeDir or TypeSymlink
	Mode    uint32 // permission bits, and 01000 (sticky) on directories
	UID     uint32 // as in the archive; 0 where it says nothing
	GID     uint32
	Size    int64 // bytes of a file with its holes; of a link's target; 0 for directories
	Stored  int64 // bytes of a file without its holes
	Sec     int64 // time of modification: seconds since 1970, and
	Nsec    uint32
	HasTime bool   // false: no entry gave a time (the root, and implied directories)
	Nlink   uint32 // names of a file, 0 when a later entry took its last; 2 + directories in it for a directory
	Parent  uint32 // row of the directory that holds the first name; of the root itself: 0
	Xattrs  bool   // there are some
}

// Child is an entry of a directory.
type Child struct {
	Name string
	Row  uint32
	Type Type
}

// Piece is a range [Off, Off+Len) of a file that lies at Stream in the stream.
type Piece struct{ Off, Stream, Len int64 }
