package mount

import (
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// anyXattrs knows whether the tree has extended attributes at all. Most have
// none, and then the kernel shall stop asking: "ls -l" asks twice for each file.
type anyXattrs struct {
	once sync.Once
	some bool
}

// noXattrs is true when it is certain that no row has any. The first call on a
// complete tree looks at all rows, until one has some.
func (s *server) noXattrs() bool {
	if !s.tree.Complete() {
		return false
	}
	s.xattrs.once.Do(func() {
		for row := range s.tree.NumRows() {
			if a, err := s.tree.Attr(uint32(row)); err != nil || a.Xattrs {
				s.xattrs.some = true
				return
			}
		}
	})
	return !s.xattrs.some
}

// GetXAttr implements getxattr. ENOSYS means "never ask again".
func (s *server) GetXAttr(_ <-chan struct{}, header *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	s.stats.xattrs.Add(1)
	if s.noXattrs() {
		return 0, fuse.ENOSYS
	}
	if !strings.HasPrefix(name, "user.") {
		return 0, fuse.ENOATTR
	}
	list, err := s.tree.Xattrs(row(header.NodeId))
	if err != nil {
		return 0, s.failed(err)
	}
	// Of attributes that are there twice the last counts, as with setxattr.
	for i := len(list) - 1; i >= 0; i-- {
		if string(list[i].Name) == name {
			return answer(dest, list[i].Value)
		}
	}
	return 0, fuse.ENOATTR
}

// ListXAttr implements listxattr: names, each with a NUL behind it.
func (s *server) ListXAttr(_ <-chan struct{}, header *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	s.stats.xattrs.Add(1)
	if s.noXattrs() {
		return 0, fuse.ENOSYS
	}
	list, err := s.tree.Xattrs(row(header.NodeId))
	if err != nil {
		return 0, s.failed(err)
	}
	var names []byte
	seen := map[string]bool{}
	for _, x := range list {
		if !seen[string(x.Name)] {
			seen[string(x.Name)] = true
			names = append(append(names, x.Name...), 0)
		}
	}
	return answer(dest, names)
}

// answer copies v, if dest has room. go-fuse makes the size alone of ERANGE when
// that is what was asked for.
func answer(dest, v []byte) (uint32, fuse.Status) {
	if len(v) > len(dest) {
		return uint32(len(v)), fuse.ERANGE
	}
	return uint32(copy(dest, v)), fuse.OK
}
