package mount

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// Content is where the bytes of files come from: an *index.Reader.
type Content interface {
	// ReadFileAt reads len(p) bytes of the file row at off; fewer come with an
	// error, io.EOF at the end. It leaves soon after ctx ends. It is called
	// concurrently.
	ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error)
}

// ReadyContent is Content that can tell what it has at hand.
type ReadyContent interface {
	Content
	// ReadFileNow reads len(p) bytes of the file row at off if it can without
	// waiting for anything but a local disk. If not, it says false, and p may
	// hold anything.
	ReadFileNow(row uint32, p []byte, off int64) bool
}

// Owner is a numeric user and group.
type Owner struct{ UID, GID uint32 }

// Options says how to mount. The zero value mounts read-only.
type Options struct {
	// StateDir makes the mount writable: changes are kept in a directory below
	// it (see LayerPath). It is made if missing, with mode 0700, and must be on a
	// local file system that overlayfs takes as its upper one, such as ext4 or
	// xfs. Empty: read-only.
	StateDir string
	// Identity names the object and its content, so that changes to one are never
	// laid over another. Any string; needed with StateDir.
	Identity string
	// Owner is whom everything belongs to. Nil: whom the archive says.
	Owner *Owner
	// Time is shown where the archive gives none. Zero: now.
	Time time.Time
	// Deadline bounds every wait of a process for an answer; 60 s if 0.
	Deadline time.Duration
	// MaxReads bounds how many reads hold a buffer (of up to 1 MiB) at a time;
	// 128 if 0. Others wait.
	MaxReads int
	// ReadAhead is how many bytes the kernel reads ahead; 1 MiB if 0. Only root
	// can set it: for others it is 128 KiB.
	ReadAhead int
	// Log gets what go-fuse has to say, which is little. Nil: nobody.
	Log *log.Logger
}

// Info says what became of a mount.
type Info struct {
	Dir      string // the path as mounted: absolute, without symbolic links
	Lower    string // where the read-only tree is mounted: Dir, or below StateDir
	Layer    string // the directory of the writable layer; "" if read-only
	Writable bool
	// WhyReadOnly says why a mount that was asked to be writable is not. It is
	// a *LayerError.
	WhyReadOnly error
	// Notes are what else a user should know, a sentence each.
	Notes []string
}

// FS is a mounted tree and the server behind it.
type FS struct {
	info   Info
	server *server
	done   chan struct{}

	mu sync.Mutex // one Unmount at a time
}

// ErrMounted: there is a living mount of ours at the path already.
var ErrMounted = errors.New("already mounted")

// Mount shows tree at dir, an existing directory (or, if the root of the tree is
// a file, an existing file), and serves it until it is unmounted by whomever.
// What is at dir is hidden meanwhile; the root of the mount has its mode and
// owner. A dead mount of ours at dir is detached first; a living one gives
// ErrMounted. If FUSE cannot be used, the error is an *UnavailableError.
//
// Of an *index.Growing, Mount waits until the type of the root is known: its Run
// must be under way.
//
// tree and content belong to the mount until Wait returns. ctx bounds the
// mounting, not the mount.
func Mount(ctx context.Context, dir string, tree index.Tree, content Content, opt Options) (*FS, error) {
	fs, err := mountTree(ctx, dir, tree, content, opt)
	if err != nil {
		return nil, fmt.Errorf("mount %s: %w", dir, err)
	}
	return fs, nil
}

func mountTree(ctx context.Context, dir string, tree index.Tree, content Content, opt Options) (*FS, error) {
	dir, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	if err := clean(ctx, dir); err != nil {
		return nil, err
	}
	if g, ok := tree.(interface{ Ready(context.Context) error }); ok {
		// The first pass has to say first whether the root is a directory.
		if err := g.Ready(ctx); err != nil {
			return nil, err
		}
	}
	root, err := tree.Attr(0)
	if err != nil {
		return nil, fmt.Errorf("root of the tree: %w", err)
	}
	st, err := checkPoint(dir, root.Type)
	if err != nil {
		return nil, err
	}

	s, err := newServer(tree, content, opt, st)
	if err != nil {
		return nil, err
	}
	fs := &FS{info: Info{Dir: dir, Lower: dir}, server: s, done: make(chan struct{})}
	fs.info.Notes = append(fs.info.Notes, s.notes...)
	// Whoever unmounts while we are at it: tree is ours until we return.
	s.work.Add(1)
	release := sync.OnceFunc(s.work.Done)
	defer release()

	var l *layer
	if opt.StateDir != "" {
		if l, err = openLayer(ctx, opt.StateDir, opt.Identity, dir, root, s); err != nil {
			fs.info.WhyReadOnly = err
		} else {
			fs.info.Lower = l.lower()
		}
	}
	if err := fs.start(ctx, opt, root.Type, l); err != nil {
		l.close()
		return nil, err
	}
	if l == nil {
		return fs, nil
	}
	if err := l.mount(dir); err != nil {
		// The tree itself is fine: show it without the layer.
		fs.info.WhyReadOnly = err
		if err := fs.moveLower(dir); err != nil {
			release()
			<-fs.done
			return nil, err
		}
		return fs, nil
	}
	l.settle(fs.server, dir)
	fs.info.Writable, fs.info.Layer = true, l.dir
	return fs, nil
}

// start mounts the tree at info.Lower and serves it. The layer's lock is held
// as long.
func (fs *FS) start(ctx context.Context, opt Options, root index.Type, l *layer) error {
	dev, err := attach(ctx, fs.info.Lower, root)
	if err != nil {
		return err
	}
	if err := fs.server.init(dev); err != nil {
		return errors.Join(err, detach(fs.info.Lower))
	}
	go func() {
		defer close(fs.done)
		defer l.close()
		fs.server.serve()
	}()
	unpoll(fs.info.Lower, root)
	if err := setReadAhead(fs.info.Lower, opt.ReadAhead); err != nil {
		fs.info.Notes = append(fs.info.Notes, fmt.Sprintf("the kernel reads ahead 128 KiB only (%v)", err))
	}
	return nil
}

// moveLower moves the read-only tree from below the state directory to where the
// writable one should have been.
func (fs *FS) moveLower(dir string) error {
	lower := fs.info.Lower
	err := unix.Mount(lower, dir, "", unix.MS_MOVE, "")
	if err != nil {
		// A mount below a shared one cannot be moved: bind it instead.
		if err = unix.Mount(lower, dir, "", unix.MS_BIND, ""); err == nil {
			err = detach(lower)
		}
	}
	if err != nil {
		return errors.Join(fmt.Errorf("move the read-only tree from %s: %w", lower, err), detach(lower))
	}
	fs.info.Lower = dir
	return nil
}

// Info says what was mounted.
func (fs *FS) Info() Info { return fs.info }

// Done is closed when the mount is gone and nothing of it uses tree or content
// any more: after Unmount, or when somebody else unmounted it. After a lazy
// Unmount that is when the last process has closed its last file.
func (fs *FS) Done() <-chan struct{} { return fs.done }

// Wait waits for Done.
func (fs *FS) Wait() { <-fs.done }

// Stats is a snapshot of the counters.
func (fs *FS) Stats() Stats { return fs.server.stats.snapshot() }

// Unmount takes the mount down, the writable layer first, and waits until it is
// gone. If processes use it, it stays, and the error is a *BusyError that names
// them. With lazy it disappears at once for everybody who is not using it yet, and is
// served on for those who are: Unmount does not wait for them, Wait does.
// That it is gone already is no error.
func (fs *FS) Unmount(lazy bool) error {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	select {
	case <-fs.done:
		// Gone, or aborted (umount -f): then what is left in the table is dead. A
		// living mount is somebody else's by now.
		if _, err := Clean(context.Background(), fs.info.Dir); err != nil && !errors.Is(err, ErrMounted) {
			return fmt.Errorf("unmount %s: %w", fs.info.Dir, err)
		}
		return nil
	default:
	}
	if err := unmountAt(fs.info.Dir, fs.info.Lower, lazy); err != nil {
		return fmt.Errorf("unmount %s: %w", fs.info.Dir, err)
	}
	if !lazy {
		<-fs.done
	}
	return nil
}

// resolve makes dir absolute and free of symbolic links, without looking at dir
// itself: a dead mount there would answer ENOTCONN, a hanging one nothing.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// checkPoint looks at what will be hidden by the mount.
func checkPoint(dir string, root index.Type) (os.FileInfo, error) {
	st, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	switch {
	case root == index.TypeFile && !st.Mode().IsRegular():
		return nil, &os.PathError{Op: "mount a file on", Path: dir, Err: unix.EISDIR}
	case root != index.TypeFile && !st.IsDir():
		return nil, &os.PathError{Op: "mount a directory on", Path: dir, Err: unix.ENOTDIR}
	}
	return st, nil
}
