package mount

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// LayerError says why a mount cannot be writable.
type LayerError struct {
	Reason string
	Err    error // nil, or what the system said
}

func (e *LayerError) Error() string {
	if e.Err == nil {
		return "not writable: " + e.Reason
	}
	return "not writable: " + e.Reason + ": " + e.Err.Error()
}

func (e *LayerError) Unwrap() error { return e.Err }

// LayerPath is the directory below stateDir that keeps the changes to the object
// identity at the path dir. Who wants them gone removes it, when it is not
// mounted.
func LayerPath(stateDir, dir, identity string) string {
	sum := sha256.Sum256([]byte(identity + "\x00" + filepath.Clean(dir)))
	return filepath.Join(stateDir, hex.EncodeToString(sum[:16]))
}

// CheckLayer says whether stateDir can hold writable layers, by mounting one over
// an empty directory: nil, or a *LayerError.
func CheckLayer(ctx context.Context, stateDir string) error {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return &LayerError{"state directory", err}
	}
	dir, err := os.MkdirTemp(stateDir, "check-")
	if err != nil {
		return &LayerError{"state directory", err}
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, "at")
	if err := os.Mkdir(at, 0o700); err != nil {
		return &LayerError{"state directory", err}
	}
	l, err := openLayer(ctx, filepath.Join(dir, "state"), "", at, index.Attr{Type: index.TypeDir}, &server{root: rootAttr{mode: 0o755}})
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.mount(at); err != nil {
		return err
	}
	if err := detach(at); err != nil {
		return &LayerError{"unmount again", err}
	}
	return nil
}

// layer is a writable layer and its lock. All methods work on nil.
type layer struct {
	dir  string
	lock *os.File
}

func (l *layer) lower() string { return filepath.Join(l.dir, "lower") }

// close gives the layer's lock back.
func (l *layer) close() {
	if l != nil {
		l.lock.Close()
	}
}

// openLayer finds or makes the layer, locks it, and detaches what an earlier
// process left mounted in it. Errors are *LayerError.
func openLayer(ctx context.Context, stateDir, identity, dir string, root index.Attr, s *server) (*layer, error) {
	refuse := func(reason string, err error) (*layer, error) { return nil, &LayerError{reason, err} }
	if root.Type == index.TypeFile {
		return refuse("the object is a single file, and overlayfs lies over directories", nil)
	}
	if os.Geteuid() != 0 {
		return refuse("only root may mount overlayfs", nil)
	}
	stateDir, err := filepath.Abs(stateDir)
	if err != nil {
		return refuse("state directory", err)
	}
	// These mean something to overlayfs, or in the table of mounts.
	if strings.ContainsAny(stateDir, ",:\\\"\n") {
		return refuse(fmt.Sprintf("the path of the state directory %q has one of , : \\ \" or a line feed", stateDir), nil)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return refuse("state directory", err)
	}
	if stateDir, err = filepath.EvalSymlinks(stateDir); err != nil {
		return refuse("state directory", err)
	}
	if within(stateDir, dir) {
		return refuse("the state directory lies below the mount", nil)
	}
	l := &layer{dir: LayerPath(stateDir, dir, identity)}
	if err := l.open(ctx, identity, dir); err != nil {
		return refuse("layer "+l.dir, err)
	}
	if err := l.makeUpper(s); err != nil {
		l.close()
		return refuse("layer "+l.dir, err)
	}
	return l, nil
}

// open makes the layer's directory and takes its lock, which keeps a second
// server from laying it over another tree.
func (l *layer) open(ctx context.Context, identity, dir string) error {
	if err := os.Mkdir(l.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	var err error
	if l.lock, err = os.Open(l.dir); err != nil {
		return err
	}
	if err = unix.Flock(int(l.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		l.close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errors.New("another process uses it")
		}
		return os.NewSyscallError("flock", err)
	}
	if err = clean(ctx, l.lower()); err == nil {
		err = mkdir(l.lower(), 0o700)
	}
	if err == nil {
		err = mkdir(filepath.Join(l.dir, "work"), 0o700)
	}
	if err == nil {
		var b []byte
		b, err = json.Marshal(map[string]string{"identity": identity, "path": dir})
		if err == nil {
			err = os.WriteFile(filepath.Join(l.dir, "object"), append(b, '\n'), 0o600)
		}
	}
	if err != nil {
		l.close()
	}
	return err
}

func mkdir(path string, mode os.FileMode) error {
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// makeUpper makes the upper directory, whose root gives the mode and owner of the
// mount's. It appears by a rename, so that it is never there without them.
func (l *layer) makeUpper(s *server) error {
	upper := filepath.Join(l.dir, "upper")
	// Without extended attributes overlayfs mounts, but forgets what was removed.
	if err := unix.Lsetxattr(l.dir, "trusted."+fsName, []byte("layer"), 0); err != nil {
		return os.NewSyscallError("setxattr trusted."+fsName, err)
	}
	if _, err := os.Lstat(upper); err == nil {
		return nil // with the changes of earlier days
	}
	tmp := upper + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	if err := os.Lchown(tmp, int(s.root.uid), int(s.root.gid)); err != nil {
		return err
	}
	if err := unix.Chmod(tmp, s.root.mode); err != nil {
		return os.NewSyscallError("chmod", err)
	}
	if err := os.Chtimes(tmp, s.time, s.time); err != nil {
		return err
	}
	return os.Rename(tmp, upper)
}

// overlayOptions, the best first; older kernels know no xino.
//
//	redirect_dir  directories of the tree can be renamed, not only copied
//	metacopy      chmod and chown copy no content
//	xino          one st_dev for all, so that "tar --one-file-system" works
//	index=off     the index would refuse the tree of the next mount, which is
//	              another FUSE file system with the same content
var overlayOptions = []string{
	"redirect_dir=on,metacopy=on,index=off,xino=on",
	"redirect_dir=on,metacopy=on,index=off",
}

// mount lays the layer over the tree at lower and shows both at dir. The kernel asks
// the tree's server for its root meanwhile, which it answers from the index
// alone.
func (l *layer) mount(dir string) error {
	paths := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work,", l.lower(), l.dir, l.dir)
	var err error
	for _, opts := range overlayOptions {
		err = unix.Mount(fsName, dir, "overlay", unix.MS_NOSUID|unix.MS_NODEV, paths+opts)
		if !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENODEV):
		return &LayerError{"the kernel has no overlayfs", err}
	case errors.Is(err, unix.EPERM):
		return &LayerError{"mounting overlayfs is not allowed here", err}
	case errors.Is(err, unix.EINVAL):
		return &LayerError{"overlayfs does not take the file system of " + l.dir + " for its upper layer (it must be a local one, such as ext4 or xfs)", err}
	}
	return &LayerError{"mount overlayfs", err}
}

// settle makes the layer forget what it looked up while the tree still grew, when
// that has ended. Overlayfs keeps what it found below for good: a name that
// led to another entry in the end would give ESTALE for ever. A remount, which
// changes nothing else, drops all names that nobody uses at that moment: it is
// done a few times. The tree's own answers have to run out first.
func (l *layer) settle(s *server, dir string) {
	if s.tree.Complete() {
		return
	}
	s.work.Go(func() {
		// A listing waits for the end.
		if err := s.tree.Children(s.alive, 0, 0, func(int, index.Child) bool { return false }); err != nil {
			return
		}
		for _, pause := range []time.Duration{2 * unsettled, 2 * unsettled, 4 * unsettled, 8 * unsettled} {
			select {
			case <-time.After(pause):
			case <-s.alive.Done():
				return
			}
			if rows, err := at(dir); err != nil || len(rows) == 0 || lowerOf(rows[len(rows)-1]) != l.lower() {
				return // unmounted
			}
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
				s.log.Printf("remount %s: %v", dir, err)
			}
		}
	})
}
