package extract

import (
	"bytes"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// Extended attributes of an archive are the words of a stranger, and most of
// them speak to the kernel: security.capability makes root of a file,
// security.selinux and system.posix_acl_access change who may do what,
// trusted.overlay.* make holes into file systems. So only "user.*" is ever
// set, of which the kernel believes nothing, and only when it was asked for;
// "user.overlay.*" is left out, because overlayfs mounted with userxattr
// believes that.
//
// What is not set is counted, never an error: an archive of a whole system has
// a capability here and there, and is still to be had.

// Bounds of attributes: Linux's own (XATTR_NAME_MAX, XATTR_SIZE_MAX,
// XATTR_LIST_MAX).
const (
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrNames = 64 << 10 // bytes of all names of one entry, each with a NUL
)

// wantedXattrs picks the attributes of an entry that may be set and copies
// them; skipped is how many there are besides.
func wantedXattrs(e *entry, asked bool) (wanted []index.Xattr, skipped int64, err error) {
	names := 0
	for _, x := range e.xattrs {
		name := string(x.Name)
		own, ok := strings.CutPrefix(name, "user.")
		if !ok || !asked || own == "" || strings.HasPrefix(own, "overlay.") || e.name == "" || (e.kind != entryFile && e.kind != entryDir) {
			skipped++
			continue
		}
		names += len(name) + 1
		switch {
		case len(name) > maxXattrName:
			return nil, 0, refuse(ErrLimit, "the name of an extended attribute has %d bytes, more than %d", len(name), maxXattrName)
		case len(x.Value) > maxXattrValue:
			return nil, 0, refuse(ErrLimit, "its extended attribute %s has %d bytes, more than %d", quote(name), len(x.Value), maxXattrValue)
		case names > maxXattrNames:
			return nil, 0, refuse(ErrLimit, "the names of its extended attributes have more than %d bytes", maxXattrNames)
		}
		// The reader reuses the memory, and a writer may come to it later.
		wanted = append(wanted, index.Xattr{Name: []byte(name), Value: bytes.Clone(x.Value)})
	}
	return wanted, skipped, nil
}

// setXattrs sets attributes by descriptor. The last of two with one name wins,
// as it does in PAX headers.
func (t *tree) setXattrs(fd int, name string, xattrs []index.Xattr) error {
	for _, x := range xattrs {
		err := retry(func() error { return unix.Fsetxattr(fd, string(x.Name), x.Value, 0) })
		switch {
		case err == nil:
		case errors.Is(err, unix.EOPNOTSUPP):
			t.noXattrs.Add(1) // the file system has none
		case errors.Is(err, unix.ENOSPC) && !t.budget.full(), errors.Is(err, unix.E2BIG), errors.Is(err, unix.ERANGE):
			// ext4 keeps all attributes of a file in one block, and says the
			// same when they do not fit as when the disk is full.
			return refuse(ErrLimit, "the file system cannot hold its extended attribute %s of %d bytes", quote(string(x.Name)), len(x.Value))
		default:
			return writeError("set extended attribute "+quote(string(x.Name))+" of", name, err)
		}
	}
	return nil
}

// dropXattrs takes the user's attributes off a directory, of which a later
// entry gives others: the last word counts, not the sum.
func dropXattrs(fd int) error {
	buf := make([]byte, maxXattrNames)
	n, err := unix.Flistxattr(fd, buf)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if strings.HasPrefix(name, "user.") {
			if err := unix.Fremovexattr(fd, name); err != nil && !errors.Is(err, unix.ENODATA) {
				return err
			}
		}
	}
	return nil
}
