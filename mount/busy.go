package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Holder is a process that keeps a mount from being unmounted.
type Holder struct {
	PID     int
	Command string // its name, as in ps
	How     string // "working directory", "open file", ...
	Path    string // what it holds
}

func (h Holder) String() string {
	return fmt.Sprintf("%s (%d): %s %s", h.Command, h.PID, h.How, h.Path)
}

// BusyError says that a mount is in use, and by whom as far as this user may
// see.
type BusyError struct {
	Dir     string
	Holders []Holder
}

func (e *BusyError) Error() string {
	var who []string
	for i, h := range e.Holders {
		if i == 5 {
			who = append(who, fmt.Sprintf("and %d more", len(e.Holders)-i))
			break
		}
		who = append(who, h.String())
	}
	if len(who) == 0 {
		return e.Dir + " is in use"
	}
	return e.Dir + " is in use by " + strings.Join(who, ", ")
}

// Unwrap makes it errors.Is(err, syscall.EBUSY).
func (e *BusyError) Unwrap() error { return unix.EBUSY }

// Hint is what to do about it.
func (e *BusyError) Hint() string {
	return "End these processes, or unmount with --lazy: the mount disappears at once and ends when its last user does."
}

const maxHolders = 64

// holders looks through /proc, and through the table for mounts inside. It reads
// links only, so it never touches the mount.
func holders(dir string, m *mountinfo.Info) []Holder {
	var out []Holder
	inside, _ := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return i.Parent != m.ID || i.ID == m.ID, false
	})
	for _, i := range inside {
		out = append(out, Holder{Command: i.FSType, How: "mounted at", Path: i.Mountpoint})
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		how, path := holds(proc, dir, m)
		if how == "" {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(proc))
		comm, _ := os.ReadFile(proc + "/comm")
		out = append(out, Holder{PID: pid, Command: strings.TrimSpace(string(comm)), How: how, Path: path})
		if len(out) == maxHolders {
			break
		}
	}
	return out
}

// holds says how a process holds the mount m at dir: the first way found.
func holds(proc, dir string, m *mountinfo.Info) (how, path string) {
	for _, l := range []struct{ name, how string }{
		{"cwd", "working directory"}, {"root", "root directory"}, {"exe", "program"},
	} {
		if target, err := os.Readlink(proc + "/" + l.name); err == nil && within(target, dir) {
			return l.how, target
		}
	}
	fds, _ := os.ReadDir(proc + "/fd")
	for _, fd := range fds {
		target, err := os.Readlink(proc + "/fd/" + fd.Name())
		if err == nil && within(target, dir) && onMount(proc+"/fdinfo/"+fd.Name(), m.ID) {
			return "open file", target
		}
	}
	maps, _ := os.ReadFile(proc + "/maps")
	for line := range strings.Lines(string(maps)) {
		// address perms offset dev inode path
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		if _, path, ok := strings.Cut(line, f[5]); ok {
			if path = strings.TrimSuffix(f[5]+path, "\n"); within(path, dir) {
				return "mapped file", path
			}
		}
	}
	return "", ""
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// onMount says whether a descriptor belongs to mount id: a path alone could be of
// something that was there before.
func onMount(fdinfo string, id int) bool {
	b, err := os.ReadFile(fdinfo)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strings.TrimSpace(v) == strconv.Itoa(id)
		}
	}
	return true
}
