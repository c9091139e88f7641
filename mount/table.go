package mount

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// State is how a mount of ours answers.
type State string

const (
	Alive State = "alive" // it answers
	Dead  State = "dead"  // its server is gone: everything is ENOTCONN
	Hung  State = "hung"  // nobody answered in time, but there is a server
)

// patience is how long a mount may take to answer a statfs, which needs neither
// network nor disk.
const patience = 2 * time.Second

// Mounted is a mount of ours, of whatever process.
type Mounted struct {
	Dir      string // where it is seen
	Lower    string // where its read-only tree is mounted; Dir without a layer
	Writable bool
	State    State
}

// List finds all mounts of ours in this mount namespace, and asks each how it
// does. The read-only trees below writable layers are not listed for themselves,
// unless their layer is gone.
func List(ctx context.Context) ([]Mounted, error) {
	all, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) { return !isOurs(m), false })
	if err != nil {
		return nil, fmt.Errorf("table of mounts: %w", err)
	}
	return ask(ctx, all), nil
}

// ask makes Mounteds of rows of the table.
func ask(ctx context.Context, all []*mountinfo.Info) []Mounted {
	below := map[string]bool{}
	for _, m := range all {
		if lower := lowerOf(m); lower != "" {
			below[lower] = true
		}
	}
	var out []Mounted
	for _, m := range all {
		lower := lowerOf(m)
		switch {
		case lower != "":
			// The layer itself would answer: ask what is below it.
			out = append(out, Mounted{Dir: m.Mountpoint, Lower: lower, Writable: true, State: probe(ctx, lower)})
		case !below[m.Mountpoint]:
			out = append(out, Mounted{Dir: m.Mountpoint, Lower: m.Mountpoint, State: probe(ctx, m.Mountpoint)})
		}
	}
	return out
}

// StateAt is how the mount of ours at dir answers, the topmost if there are
// several; "" if there is none. No other mount is asked anything.
func StateAt(ctx context.Context, dir string) (State, error) {
	rows, err := at(dir)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	top := rows[len(rows)-1]
	if lower := lowerOf(top); lower != "" {
		return probe(ctx, lower), nil
	}
	return probe(ctx, top.Mountpoint), nil
}

// isOurs goes by the names that attach and layer.mount give.
func isOurs(m *mountinfo.Info) bool {
	return m.Source == fsName && (m.FSType == fuseType || m.FSType == "overlay")
}

// lowerOf is where the tree below a writable layer is mounted; "" for trees.
func lowerOf(m *mountinfo.Info) string {
	if m.FSType != "overlay" {
		return ""
	}
	for opt := range strings.SplitSeq(m.VFSOptions, ",") {
		for _, key := range []string{"lowerdir=", "lowerdir+="} {
			if v, ok := strings.CutPrefix(opt, key); ok {
				return unescape(v)
			}
		}
	}
	return ""
}

// unescape reads the octal escapes of the table's options. The paths themselves
// have nothing that overlayfs would escape: openLayer sees to that.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}

// at gives what of ours is mounted at dir, the topmost last.
func at(dir string) ([]*mountinfo.Info, error) {
	return mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != dir || !isOurs(m), false
	})
}

// probe asks a mount for its statfs, which FUSE never answers from memory. The
// asking thread of a hung mount stays until its server dies: it is one.
func probe(ctx context.Context, dir string) State {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		for errors.Is(err, unix.EINTR) {
			err = unix.Statfs(dir, &st)
		}
		answer <- err
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-answer:
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return Dead
		}
		return Alive
	case <-timer.C:
	case <-ctx.Done():
	}
	return Hung
}

// Clean detaches dead mounts of ours at dir, writable or not, and says how many there
// were. A living or hung one gives an error that wraps ErrMounted.
func Clean(ctx context.Context, dir string) (int, error) {
	dir, err := resolve(dir)
	if err != nil {
		return 0, err
	}
	return cleanCount(ctx, dir)
}

func clean(ctx context.Context, dir string) error {
	_, err := cleanCount(ctx, dir)
	return err
}

func cleanCount(ctx context.Context, dir string) (n int, err error) {
	// Mounts may have been stacked, by somebody else: from the top down.
	for ; ; n++ {
		rows, err := at(dir)
		if err != nil || len(rows) == 0 {
			return n, err
		}
		top := rows[len(rows)-1]
		lower := top.Mountpoint
		if l := lowerOf(top); l != "" {
			lower = l
		}
		switch probe(ctx, lower) {
		case Alive:
			// A layer whose tree is gone from the table is dead as well.
			if below, err := at(lower); err != nil || len(below) > 0 {
				return n, errors.Join(ErrMounted, err)
			}
		case Hung:
			if err := ctx.Err(); err != nil {
				return n, err
			}
			return n, fmt.Errorf("%w, and its server does not answer", ErrMounted)
		}
		if err := unmountAt(dir, lower, true); err != nil {
			return n, err
		}
	}
}
