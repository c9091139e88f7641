package mount

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"objectmount/index"
)

// server answers the kernel for one tree. Its methods are in tree.go (names and
// attributes), xattr.go, read.go (bytes) and wait.go (how requests wait).
type server struct {
	fuse.RawFileSystem // ENOSYS for all that a read-only tree does not have

	tree    index.Tree
	content Content
	fuse    *fuse.Server
	dev     int // descriptor of /dev/fuse; valid while a request is being answered
	log     *log.Logger

	owner    *Owner
	root     rootAttr
	time     time.Time
	deadline time.Duration
	pass     progresser // nil: nothing to be told about a first pass
	notes    []string

	slots   chan struct{} // one for each read that holds a buffer
	buffers buffers
	xattrs  anyXattrs
	stats   stats

	// alive ends when the kernel has let go of the mount, and with it every
	// wait. work counts what still uses tree or content then.
	alive context.Context
	end   context.CancelFunc
	work  sync.WaitGroup
}

// rootAttr are the mode and owner of what the mount hides: its root keeps them.
type rootAttr struct{ mode, uid, gid uint32 }

// progresser is what *index.Growing is: a tree that can tell how far it has got.
type progresser interface {
	Progress() (in, out int64)
}

const (
	fsName   = "objectmount"
	fuseType = "fuse." + fsName

	// maxRead is the most that one READ asks for.
	maxRead = 1 << 20

	// forever is how long the kernel may keep what will not change: a day, after
	// which it asks once more. unsettled is for the time of the first pass.
	forever   = 24 * time.Hour
	unsettled = time.Second
)

func newServer(tree index.Tree, content Content, opt Options, point os.FileInfo) (*server, error) {
	st := point.Sys().(*syscall.Stat_t)
	s := &server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		tree:          tree,
		content:       content,
		log:           opt.Log,
		owner:         opt.Owner,
		root:          rootAttr{st.Mode & 0o7777, st.Uid, st.Gid},
		time:          opt.Time,
		deadline:      opt.Deadline,
	}
	s.pass, _ = tree.(progresser)
	if s.log == nil {
		s.log = log.New(io.Discard, "", 0)
	}
	if s.time.IsZero() {
		s.time = time.Now()
	}
	if s.deadline <= 0 {
		s.deadline = 60 * time.Second
	}
	reads := opt.MaxReads
	if reads <= 0 {
		reads = 128
	}
	s.slots = make(chan struct{}, reads)
	s.limitByKernel()
	s.alive, s.end = context.WithCancel(context.Background())
	return s, nil
}

// limitByKernel shortens the deadline where the kernel has one of its own.
func (s *server) limitByKernel() {
	limit := RequestLimit()
	if limit == 0 {
		return
	}
	s.deadline = min(s.deadline, limit/2)
	s.pass = nil // no waiting for the first pass beyond that
	s.notes = append(s.notes, fmt.Sprintf("the kernel's own limit for FUSE requests is %v (fs.fuse.default_request_timeout, max_request_timeout): "+
		"reads give up after %v, during the first pass too; set both to 0", limit, s.deadline))
}

// RequestLimit is the time that the kernel gives a FUSE server for a request before
// it aborts the whole mount (Linux 6.15 and later, where an administrator has set
// it). 0: as long as it takes. Mount keeps within it, with shorter deadlines.
func RequestLimit() time.Duration {
	limit := kernelTimeout("/proc/sys/fs/fuse/default_request_timeout")
	if most := kernelTimeout("/proc/sys/fs/fuse/max_request_timeout"); most > 0 && (limit == 0 || most < limit) {
		limit = most
	}
	return limit
}

func kernelTimeout(path string) time.Duration {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0 // an older kernel: no such limit
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	return time.Duration(n) * time.Second
}

// init takes the descriptor of a mounted /dev/fuse and agrees with the kernel
// about the protocol. The descriptor is the server's from here on.
func (s *server) init(dev int) error {
	s.dev = dev
	// go-fuse could mount by itself. But it leaves the descriptor open for
	// every child process when it mounts directly, and tells nobody what
	// fusermount3 said; and with a descriptor given, a later process can go on where this
	// one ended. DirectMount together with /dev/fd/N would mount over /dev/fuse.
	var err error
	s.fuse, err = fuse.NewServer(s, fmt.Sprintf("/dev/fd/%d", dev), fuseOptions(s.log, s.panicked))
	if err != nil {
		return fmt.Errorf("FUSE protocol: %w", err)
	}
	return nil
}

// fuseOptions are what a server and the kernel agree about. Each for a reason:
func fuseOptions(log *log.Logger, panicked func(any) fuse.Status) *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxWrite:      maxRead, // and MaxPages: the size of a READ
		MaxBackground: 64,      // read-ahead of many processes at once
		// go-fuse 2.12.1 silently cuts unaligned reads short when it splices.
		DisableSplice: true,
		// What is immutable needs no invalidation by time or size.
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		// Passthrough would count as a layer of stacking, of which overlayfs
		// has two at most; and we never use it.
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		FsName:               fsName,
		Name:                 fsName,
		Logger:               log,
		PanicHandler:         panicked,
	}
}

// serve answers requests until the kernel lets go of the mount. After it nothing
// uses tree or content.
func (s *server) serve() {
	s.fuse.Serve()
	s.end()
	s.work.Wait()
}

// panicked answers a request whose handler panicked.
func (s *server) panicked(v any) fuse.Status {
	s.stats.failed(fmt.Errorf("panic: %v", v))
	buf := make([]byte, 16<<10)
	s.log.Printf("panic while answering the kernel: %v\n%s", v, buf[:runtime.Stack(buf, false)])
	return fuse.EIO
}

func (s *server) String() string { return fsName }
