package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"objectmount/agent"
	"objectmount/cache"
	"objectmount/mount"
	"objectmount/objects"
)

// check is one thing that doctor looked at. Its JSON is part of the interface.
type check struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"` // "ok"; "warning": something is not possible; "failure": nothing will work
	Detail  string `json:"detail"`
	Fix     string `json:"fix,omitempty"`
}

// The verdicts.
const (
	verdictOK      = "ok"
	verdictWarning = "warning"
	verdictFailure = "failure"
)

// Bounds of what doctor calls enough, and of how long it waits.
const (
	littleRoom = 1 << 30
	doctorWait = 10 * time.Second
	clockSlack = 30 * time.Second
)

func newDoctor(a *app, p places) *cobra.Command {
	var (
		asJSON bool
		dir    string
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "what this machine can and cannot do, with the fix for each",
		Long: `Look at what mounts need: FUSE and overlayfs for lazy ones, room on the disks,
the API key and the API itself. Each line has a verdict, and what to do if it is
not ok. The exit code is 0 unless one is a failure: a warning is something that
is not possible here and that mounts can do without.

Nothing stays changed. As another user it looks at what that user can do.`,
		Example: `  objectmount doctor
  objectmount doctor --json | jq '.checks[] | select(.verdict != "ok")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := doctor{a: a, cacheDir: dir}
			list := d.examine(cmd.Context())
			ok := true
			for _, c := range list {
				ok = ok && c.Verdict != verdictFailure
			}
			if err := printChecks(a, list, ok, asJSON); err != nil || ok {
				return err
			}
			return quietError{exitOther}
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&dir, "cache-dir", p.cache, "where indexes and fetched pieces of lazy mounts are kept")
	return c
}

func printChecks(a *app, list []check, ok, asJSON bool) error {
	if asJSON {
		return printJSON(a.out, struct {
			OK     bool    `json:"ok"`
			Checks []check `json:"checks"`
		}{ok, list})
	}
	rows := [][]string{{"CHECK", "VERDICT", "DETAIL"}}
	for _, c := range list {
		rows = append(rows, []string{c.Name, c.Verdict, c.Detail})
	}
	if err := table(a.out, rows); err != nil {
		return err
	}
	for _, c := range list {
		if c.Fix != "" {
			fmt.Fprintf(a.out, "\n%s: %s\n", c.Name, printable(c.Fix))
		}
	}
	return nil
}

// doctor looks at things one by one; no look changes what another sees.
type doctor struct {
	a        *app
	cacheDir string
}

func (d *doctor) examine(ctx context.Context) []check {
	list := []check{
		kernelCheck(), fuseCheck(), helperCheck(), d.overlayCheck(ctx), deadlineCheck(), namespaceCheck(), deadCheck(ctx),
		roomCheck("state", d.a.stateDir), d.cacheCheck(), d.keptCheck(),
	}
	return append(list, d.apiChecks(ctx)...)
}

func ok(name, format string, args ...any) check {
	return check{name, verdictOK, fmt.Sprintf(format, args...), ""}
}

// trouble is a check that an error decides; its own hint is the fix.
func trouble(name, verdict string, err error, fix string) check {
	err = objects.Redact(err)
	var h hinted
	switch {
	case errors.As(err, &h):
		fix = h.hint
	case agent.ErrorHint(err) != "":
		fix = agent.ErrorHint(err)
	}
	return check{name, verdict, err.Error(), fix}
}

func kernelCheck() check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return trouble("kernel", verdictWarning, err, "")
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n == 2 && (major < 5 || major == 5 && minor < 10) {
		return check{"kernel", verdictWarning, release, "Linux 5.10 or later is what objectmount is tested with: use a newer kernel."}
	}
	return ok("kernel", "%s", release)
}

func fuseCheck() check {
	if err := mount.Check(); err != nil {
		return trouble("fuse", verdictWarning, err, "")
	}
	return ok("fuse", "lazy mounts are possible")
}

// helperCheck looks at fusermount3, which all but root need.
func helperCheck() check {
	const name, install = "fusermount3", "Install the package fuse3, if users other than root are to mount lazily."
	verdict := verdictWarning
	if os.Geteuid() == 0 {
		verdict = verdictOK // root needs none
	}
	bin, err := exec.LookPath(name)
	if err != nil {
		return check{name, verdict, "not installed; users other than root cannot mount lazily", install}
	}
	st, err := os.Stat(bin)
	switch {
	case err != nil:
		return trouble(name, verdict, err, install)
	case st.Mode()&os.ModeSetuid == 0:
		return check{name, verdict, bin + " is not setuid root", "Make it so: chmod u+s " + bin}
	case appArmorHas(name):
		return check{name, verdict, bin + ", confined by AppArmor",
			"Its profile allows few directories: mount below $HOME, or allow others in /etc/apparmor.d/local/" + name + "."}
	}
	return ok(name, "%s", bin)
}

func appArmorHas(profile string) bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(b), "Y") {
		return false
	}
	_, err = os.Stat("/etc/apparmor.d/" + profile)
	return err == nil
}

func (d *doctor) overlayCheck(ctx context.Context) check {
	// Where layers are, or the directory nearest to it: nothing is left there.
	layers := filepath.Join(d.a.stateDir, "layers")
	dir, err := os.MkdirTemp(nearest(layers), ".objectmount-doctor-")
	if err == nil {
		defer os.RemoveAll(dir)
		err = mount.CheckLayer(ctx, dir)
	}
	if err != nil {
		return trouble("overlayfs", verdictWarning, err,
			"Lazy mounts are read-only here. They can be written to by root, with --state-dir on ext4 or xfs.")
	}
	return ok("overlayfs", "lazy mounts can be written to; changes are kept in %s", layers)
}

// deadlineCheck looks at the kernel's own limit for FUSE requests.
func deadlineCheck() check {
	const least = time.Minute
	if limit := mount.RequestLimit(); limit > 0 && limit < least {
		return check{"request timeout", verdictWarning, fmt.Sprintf("the kernel ends lazy mounts that are slower than %s", limit),
			"Set fs.fuse.default_request_timeout and fs.fuse.max_request_timeout to 0, or above 60."}
	}
	return ok("request timeout", "as long as a slow network needs")
}

// namespaceCheck says whether others see what is mounted here.
func namespaceCheck() check {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return trouble("mount namespace", verdictWarning, err, "")
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil {
		return ok("mount namespace", "that of PID 1 cannot be seen by this user")
	}
	if own != first {
		return check{"mount namespace", verdictWarning, "this process has one of its own: what it mounts, the rest of the system may not see",
			"Under systemd, leave out PrivateTmp=, ProtectSystem=, ProtectHome=, PrivateMounts= and the like, which make one."}
	}
	return ok("mount namespace", "what is mounted is seen by all")
}

// deadCheck looks for mounts whose server is gone.
func deadCheck(ctx context.Context) check {
	all, err := mount.List(ctx)
	if err != nil {
		return trouble("mounts", verdictWarning, err, "")
	}
	var bad []string
	for _, m := range all {
		if m.State != mount.Alive {
			bad = append(bad, fmt.Sprintf("%s is %s", m.Dir, m.State))
		}
	}
	if len(bad) > 0 {
		return check{"mounts", verdictWarning, strings.Join(bad, ", "),
			"Mount them again, or take them down: objectmount unmount PATH. The agent does it by itself for what is in its spec."}
	}
	return ok("mounts", "%d lazy mounts, all alive", len(all))
}

// nearest is the path, or the closest directory above it that is there.
func nearest(path string) string {
	path, err := filepath.Abs(path)
	for err == nil && path != "/" {
		if st, serr := os.Stat(path); serr == nil && st.IsDir() {
			return path
		}
		path = filepath.Dir(path)
	}
	return "/"
}

// room is what is free for this user where a path is or would be.
func room(path string) (free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(nearest(path), &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: nearest(path), Err: err}
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

func roomCheck(name, dir string) check {
	name += " directory"
	free, err := room(dir)
	switch {
	case err != nil:
		return trouble(name, verdictFailure, err, "")
	case unix.Access(nearest(dir), unix.W_OK) != nil:
		return check{name, verdictFailure, nearest(dir) + " cannot be written to", "Run it as root or as its owner, or name another with --state-dir."}
	case free < littleRoom:
		return check{name, verdictWarning, fmt.Sprintf("%s: %s free", dir, size(free)), "Free some space, or use a larger disk."}
	}
	return ok(name, "%s: %s free", dir, size(free))
}

func (d *doctor) cacheCheck() check {
	const name, other = "cache directory", "Name another with --cache-dir."
	if st, err := os.Stat(d.cacheDir); err == nil && st.IsDir() {
		c, err := cache.Open(d.cacheDir, cache.Options{})
		if err != nil {
			return trouble(name, verdictWarning, err, other+" Without a cache there are no lazy mounts.")
		}
		defer c.Close()
		free, err := room(d.cacheDir)
		if err != nil {
			return trouble(name, verdictWarning, err, other)
		}
		kept := c.Stats().Bytes
		if free+kept < littleRoom {
			return check{name, verdictWarning, fmt.Sprintf("%s: %s kept, %s free", d.cacheDir, size(kept), size(free)), "Free some space. " + other}
		}
		return ok(name, "%s: %s kept, %s free", d.cacheDir, size(kept), size(free))
	}
	c := roomCheck("cache", d.cacheDir)
	if c.Verdict == verdictFailure {
		c.Verdict, c.Fix = verdictWarning, other+" Without a cache there are no lazy mounts."
	}
	return c
}

// apiChecks look at the key, and ask the API for one object with it.
func (d *doctor) apiChecks(ctx context.Context) []check {
	cl, err := d.a.client()
	if errors.Is(err, objects.ErrCredentials) {
		return []check{trouble("API key", verdictWarning, err, "")}
	}
	if err != nil {
		return []check{trouble("API key", verdictFailure, err, "")}
	}
	defer cl.Close()
	list := []check{ok("API key", "found, and closed to others")}
	ctx, cancel := context.WithTimeout(ctx, min(d.a.timeout, doctorWait))
	defer cancel()
	start := time.Now()
	if _, err := cl.List(ctx, objects.ListQuery{Limit: 1, NoTotal: true}); err != nil {
		return append(list, trouble("API", verdictFailure, err, ""))
	}
	list = append(list, ok("API", "%s answers in %s", cl.Origin(), took(time.Since(start))))
	if skew := cl.Stats().ClockSkew; skew.Abs() > clockSlack {
		return append(list, check{"clock", verdictWarning, fmt.Sprintf("it differs from the server's by %s", skew.Abs().Round(time.Second)),
			"Set it by NTP: certificates and signed URLs go by it."})
	}
	return append(list, ok("clock", "that of the server"))
}
