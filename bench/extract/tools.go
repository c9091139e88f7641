package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const oursName = "objectmount"

// tool is a way to extract an archive into the directory that $OUT names.
type tool struct {
	name, command string
	bar           float64 // what our time is to be of its, at most; 0: nothing is asked
}

// tools are ours, which is the first, and the installed peers.
func (b *bencher) tools(kind, archive string) ([]tool, error) {
	has := func(program string) bool {
		_, err := exec.LookPath(program)
		return err == nil
	}
	a := "'" + archive + "'"
	list := []tool{{name: oursName, command: b.ours(archive)}, {name: oursName + " --sync", command: b.ours(archive, "--sync")}}
	add := func(name, command string, bar float64) {
		list = append(list, tool{name, "mkdir $OUT && " + command, bar})
	}
	if !strings.HasSuffix(archive, ".gz") {
		add("tar x", "tar xf "+a+" -C $OUT", map[string]float64{"tmpfs": 1.0, "ext4": 0.85}[kind])
		if has("bsdtar") {
			add("bsdtar x", "bsdtar xf "+a+" -C $OUT", 0)
		}
		return list, nil
	}
	// Large files that hardly compress are a matter of inflating alone; trees
	// of small ones of all that is around it.
	weights := strings.Contains(filepath.Base(archive), "weights")
	of := func(tree, large float64) float64 {
		if weights {
			return large
		}
		return tree
	}
	add("tar xz", "tar xzf "+a+" -C $OUT", of(0.27, 0))
	if has("bsdtar") {
		add("bsdtar x", "bsdtar xf "+a+" -C $OUT", 0)
	}
	if has("pigz") {
		add("pigz | tar x", "pigz -dc "+a+" | tar xf - -C $OUT", 0)
	}
	if has("igzip") {
		add("igzip | tar x", "igzip -dc "+a+" | tar xf - -C $OUT", of(0.60, 0))
	}
	if has("rapidgzip") {
		add("rapidgzip -P 2 | tar x", "rapidgzip -P 2 -dc "+a+" | tar xf - -C $OUT", of(0.85, 0))
	}
	plain, err := b.plain(archive)
	if err != nil {
		return nil, err
	}
	add("tar x of the plain tar", "tar xf '"+plain+"' -C $OUT", of(1.7, 0))
	add("inflate alone", "'"+b.gunzip+"' "+a, of(0, 1.1))
	return list, nil
}

// ours is the command of ours; what it keeps for itself is beside $OUT.
func (b *bencher) ours(archive string, flags ...string) string {
	return "'" + b.binary + "' mount --extract " + strings.Join(flags, " ") + " '" + archive + "' $OUT --state-dir $OUT.state --run-dir $OUT.state --no-progress >/dev/null"
}

// plain is the uncompressed archive: the one beside it, or one made of it.
func (b *bencher) plain(archive string) (string, error) {
	name := strings.TrimSuffix(archive, ".gz")
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	name = filepath.Join(b.tmp, filepath.Base(name))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	return name, sh(fmt.Sprintf("gzip -dc '%s' >'%s'", archive, name))
}

// makesFiles are the system calls that extracting consists of.
var makesFiles = map[string]bool{
	"openat": true, "openat2": true, "write": true, "pwrite64": true, "close": true, "utimensat": true, "mkdirat": true,
	"fchmod": true, "fchown": true, "linkat": true, "symlinkat": true, "ftruncate": true, "fallocate": true, "fsetxattr": true,
}

// strace counts the system calls of ours for each regular file of the archive.
// Being watched, processes are slow and wait more often: what waiting costs is
// not counted as making files.
func (b *bencher) strace(kind, archive string, r *result) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil
	}
	log := filepath.Join(b.tmp, "strace")
	list := filepath.Join(b.tmp, "list")
	if _, err := b.once(kind, "strace -f -c -o '"+log+"' "+b.ours(archive)+" && find $OUT -type f >'"+list+"'"); err != nil {
		return fmt.Errorf("strace: %w", err)
	}
	files, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	n, total, making := strings.Count(string(files), "\n"), 0, 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// % time, seconds, usecs/call, calls, [errors,] syscall
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		var calls int
		if _, err := fmt.Sscan(fields[3], &calls); err != nil {
			continue
		}
		switch name := fields[len(fields)-1]; {
		case name == "total":
			total = calls
		case makesFiles[name]:
			making += calls
		}
	}
	if n >= 1000 { // else it is not about files
		r.Calls, r.File = float64(total)/float64(n), float64(making)/float64(n)
	}
	return nil
}
