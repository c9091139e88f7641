package mount

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"objectmount/index"
)

// Rows and node ids. The root is node 1 for the kernel and row 0 for the index,
// and no node may be 0.
func row(node uint64) uint32 { return uint32(node - 1) }
func node(row uint32) uint64 { return uint64(row) + 1 }

// keep is how long the kernel may keep an answer that is about to be made. It is
// asked before: an answer made before the end of the first pass may be outdated
// by the end.
func (s *server) keep() time.Duration {
	if s.tree.Complete() {
		return forever
	}
	return unsettled
}

// failed counts an error and gives the answer for it.
func (s *server) failed(err error) fuse.Status {
	st := errno(err)
	if st == fuse.EIO {
		s.stats.failed(err)
	}
	return st
}

// Lookup finds a name. On a complete tree there is nothing to wait for.
func (s *server) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.stats.lookups.Add(1)
	keep := s.keep()
	var child uint32
	var err error
	if dir := row(header.NodeId); keep == forever {
		child, err = s.tree.Lookup(context.Background(), dir, name)
	} else {
		// name lies in the request's buffer, which may be another's by the time
		// that f looks.
		name := strings.Clone(name)
		child, err = await(s, cancel, header.Pid, func(ctx context.Context) (uint32, error) {
			return s.tree.Lookup(ctx, dir, name)
		})
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.tree.Complete():
		// Node 0 with a timeout: the kernel keeps that there is no such name.
		out.SetEntryTimeout(keep)
		return fuse.OK
	case errors.Is(err, fs.ErrNotExist):
		// The first pass failed because something else does not exist.
		s.stats.failed(err)
		return fuse.EIO
	case err != nil:
		return s.failed(err)
	}
	return s.entry(child, keep, out)
}

func (s *server) entry(child uint32, keep time.Duration, out *fuse.EntryOut) fuse.Status {
	a, err := s.tree.Attr(child)
	if err != nil {
		return s.failed(err)
	}
	out.NodeId = node(child)
	out.SetEntryTimeout(keep)
	out.SetAttrTimeout(keep)
	s.fill(&out.Attr, child, a)
	return fuse.OK
}

// GetAttr implements stat.
func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.stats.getattrs.Add(1)
	keep := s.keep()
	a, err := s.tree.Attr(row(in.NodeId))
	if err != nil {
		return s.failed(err)
	}
	out.SetTimeout(keep)
	s.fill(&out.Attr, row(in.NodeId), a)
	return fuse.OK
}

func fileType(t index.Type) uint32 {
	switch t {
	case index.TypeDir:
		return syscall.S_IFDIR
	case index.TypeSymlink:
		return syscall.S_IFLNK
	}
	return syscall.S_IFREG
}

// fill translates attributes. They are those that extraction would have given.
func (s *server) fill(out *fuse.Attr, row uint32, a index.Attr) {
	sec, nsec := a.Sec, a.Nsec
	if !a.HasTime {
		sec, nsec = s.time.Unix(), uint32(s.time.Nanosecond())
	}
	*out = fuse.Attr{
		Ino:    node(row),
		Size:   uint64(a.Size),
		Blocks: uint64(a.Stored+511) / 512, // fewer than Size says: sparse
		Mode:   fileType(a.Type) | a.Mode,
		Nlink:  a.Nlink,
		Owner:  fuse.Owner{Uid: a.UID, Gid: a.GID},
		Atime:  uint64(sec), Mtime: uint64(sec), Ctime: uint64(sec),
		Atimensec: nsec, Mtimensec: nsec, Ctimensec: nsec,
	}
	if s.owner != nil {
		out.Owner = fuse.Owner{Uid: s.owner.UID, Gid: s.owner.GID}
	}
	if row == 0 && a.Type == index.TypeDir {
		out.Mode = syscall.S_IFDIR | s.root.mode
		out.Owner = fuse.Owner{Uid: s.root.uid, Gid: s.root.gid}
	}
}

// Readlink gives a link's target, which the kernel keeps.
func (s *server) Readlink(_ <-chan struct{}, header *fuse.InHeader) ([]byte, fuse.Status) {
	s.stats.links.Add(1)
	target, err := s.tree.ReadLink(row(header.NodeId))
	if err != nil {
		return nil, s.failed(err)
	}
	return []byte(target), fuse.OK
}

// OpenDir answers ENOSYS like Open; the kernel then keeps listings too.
func (s *server) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// ReadDir lists a directory.
func (s *server) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(cancel, in, func(e fuse.DirEntry, _ int) bool { return out.AddDirEntry(e) })
}

// ReadDirPlus lists a directory with attributes, which the kernel keeps: an
// "ls -l" then needs no request for each file.
func (s *server) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(cancel, in, func(e fuse.DirEntry, child int) bool {
		entry := out.AddDirLookupEntry(e)
		if entry == nil {
			return false
		}
		// "." and ".." have none, and an entry whose attributes cannot be had is
		// looked up when somebody wants them.
		if child >= 0 && s.entry(uint32(child), forever, entry) != fuse.OK {
			*entry = fuse.EntryOut{}
		}
		return true
	})
}

// list gives entries to add from offset in.Offset on, until it has no more room.
// Offsets are positions, and 0 and 1 are "." and "..": they mean the same
// whoever asks, after a restart too. child is the row, -1 for those two.
func (s *server) list(cancel <-chan struct{}, in *fuse.ReadIn, add func(e fuse.DirEntry, child int) bool) fuse.Status {
	s.stats.listings.Add(1)
	dir := row(in.NodeId)
	if !s.tree.Complete() {
		// add writes into the request's buffer, so only the waiting is done in
		// await.
		_, err := await(s, cancel, in.Pid, func(ctx context.Context) (struct{}, error) {
			return struct{}{}, s.tree.Children(ctx, dir, 0, func(int, index.Child) bool { return false })
		})
		if err != nil {
			return s.failed(err)
		}
		if !s.tree.Complete() {
			return s.failed(errors.New("the listing ended before the first pass"))
		}
	}
	a, err := s.tree.Attr(dir)
	if err != nil {
		return s.failed(err)
	}
	off := in.Offset
	if off == 0 && !add(fuse.DirEntry{Name: ".", Ino: node(dir), Mode: syscall.S_IFDIR, Off: 1}, -1) {
		return fuse.OK
	}
	if off <= 1 && !add(fuse.DirEntry{Name: "..", Ino: node(a.Parent), Mode: syscall.S_IFDIR, Off: 2}, -1) {
		return fuse.OK
	}
	if off > 1<<40 {
		return fuse.EINVAL
	}
	err = s.tree.Children(context.Background(), dir, max(0, int(off)-2), func(pos int, c index.Child) bool {
		return add(fuse.DirEntry{Name: c.Name, Ino: node(c.Row), Mode: fileType(c.Type), Off: uint64(pos) + 3}, int(c.Row))
	})
	if err != nil {
		return s.failed(err)
	}
	return fuse.OK
}

// StatFs describes a full file system of the size of the stream.
func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	s.stats.other.Add(1)
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Files = uint64(s.tree.NumRows())
	if t, ok := s.tree.(interface{ StreamSize() int64 }); ok {
		out.Blocks = (uint64(t.StreamSize()) + 4095) / 4096
	}
	return fuse.OK
}
