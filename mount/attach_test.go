package mount

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// An ordinary user mounts through fusermount3, and is the only one who sees it.
func TestUnprivileged(t *testing.T) {
	dir := mkdirs(t, "mnt", "theirs")
	if _, err := exec.LookPath(helper); err != nil {
		t.Skip(err)
	}
	mnt := filepath.Join(dir, "mnt")
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(mnt, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if !usableDevice(t) {
		return // done in another mount namespace
	}
	user := "setpriv --reuid 65534 --regid 65534 --clear-groups "
	c := serveOrFail(t, serveJob{Dir: mnt, UID: nobody, StateDir: filepath.Join(dir, "state")})
	if c.failed != "" {
		t.Fatal(c.failed)
	}
	if c.info.Writable {
		t.Error("writable, by an ordinary user")
	}
	if got := sh(t, "/", user+"cat "+mnt+"/tagged; "+user+"stat -c '%a %u %n' "+mnt+"/hello; findmnt -no OPTIONS,FSTYPE "+mnt+" | tr -s ' '"); got !=
		"x640 1000 "+mnt+"/hello\nro,nosuid,nodev,relatime,user_id=65534,group_id=65534,default_permissions,max_read=1048576 fuse.objectmount\n" {
		t.Error(got)
	}
	if out, err := try("/", user+"cat "+mnt+"/hello"); err == nil {
		t.Errorf("read another's file of mode 0640: %s", out)
	}
	if out, err := try("/", "cat "+mnt+"/tagged"); err == nil {
		t.Errorf("root read it: %s", out)
	}
	c.stop(t) // which unmounts through fusermount3 as well
	if n := mountsBelow(t, dir); n != 0 {
		t.Errorf("%d mounts left", n)
	}

	// A dead one is replaced by its owner, too.
	for range 2 {
		c = serveElsewhere(t, serveJob{Dir: mnt, UID: nobody})
		c.kill()
	}
	c = serveElsewhere(t, serveJob{Dir: mnt, UID: nobody})
	if n := mountsBelow(t, dir); n != 1 {
		t.Errorf("%d mounts", n)
	}
	c.stop(t)

	// Somebody else's directory is no place.
	c = serveOrFail(t, serveJob{Dir: filepath.Join(dir, "theirs"), UID: nobody})
	if !strings.Contains(c.failed, "permission denied") || !strings.Contains(c.failed, "theirs") {
		t.Errorf("said %q", c.failed)
	}
	// Without the helper there is a hint.
	c = serveOrFail(t, serveJob{Dir: mnt, UID: nobody, Path: dir})
	if !strings.Contains(c.failed, "FUSE is not available") || !strings.Contains(c.failed, "Install the package fuse3") {
		t.Errorf("said %q", c.failed)
	}
}

// usableDevice sees to it that ordinary users may open /dev/fuse. Where they may
// not, the test runs once more in a mount namespace with a device of its own.
func usableDevice(t *testing.T) bool {
	t.Helper()
	const nsVar = "OBJECTMOUNT_TEST_NAMESPACE"
	var st unix.Stat_t
	if err := unix.Stat("/dev/fuse", &st); err != nil {
		t.Fatal(err)
	}
	if st.Mode&0o666 == 0o666 {
		return true
	}
	if os.Getenv(nsVar) != "" {
		dev := filepath.Join(t.TempDir(), "fuse")
		err := unix.Mknod(dev, unix.S_IFCHR|0o666, int(st.Rdev))
		if err == nil {
			err = unix.Chmod(dev, 0o666)
		}
		if err == nil {
			err = unix.Mount(dev, "/dev/fuse", "", unix.MS_BIND, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), nsVar+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return false
}

func TestCheck(t *testing.T) {
	if err := Check(); err != nil {
		t.Error(err) // TestMain would not have come so far
	}
	if d := RequestLimit(); d != 0 {
		t.Logf("this kernel aborts mounts after %v", d)
	}
}

func TestHelperErrors(t *testing.T) {
	bin := filepath.Join(t.TempDir(), helper)
	if err := os.WriteFile(bin, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	exit := errors.New("exit status 1")
	for said, want := range map[string]string{
		"/usr/bin/fusermount3: failed to open /dev/fuse: Permission denied":       "chmod 0666 /dev/fuse",
		"fusermount3: fuse device not found, try 'modprobe fuse' first /dev/fuse": "modprobe fuse",
		"fusermount3: mount failed: Operation not permitted":                      "chmod u+s " + bin,
		"": "chmod u+s",
	} {
		err := helperError(bin, "/mnt", said, exit)
		var u *UnavailableError
		if !errors.As(err, &u) || !strings.Contains(u.Hint(), want) {
			t.Errorf("%q: %v, %+v", said, err, u)
		}
	}
	if err := os.Chmod(bin, os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	err := helperError(bin, "/mnt", "fusermount3: mount failed: Operation not permitted", exit)
	var u *UnavailableError
	if !errors.As(err, &u) || u.Hint() == "" || strings.Contains(u.Hint(), "chmod") {
		t.Errorf("%+v", u)
	}
	if err := helperError(bin, "/mnt", "fusermount3: user has no write access to mountpoint /mnt", exit); !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
}

// The server's descriptor goes to no child process.
func TestDescriptorIsNotInherited(t *testing.T) {
	dir, _ := show(t, smallTree(), Options{})
	if got := sh(t, dir, "ls -l /proc/self/fd | grep -c /dev/fuse || true"); got != "0\n" {
		t.Errorf("%s of /dev/fuse inherited", got)
	}
}

func TestMountErrors(t *testing.T) {
	tree := smallTree()
	dir := mkdirs(t, "mnt")
	for path, want := range map[string]error{
		filepath.Join(dir, "nothing"):     fs.ErrNotExist,
		filepath.Join(dir, "no/parent"):   fs.ErrNotExist,
		filepath.Join(dir, "mnt/../link"): nil,
	} {
		if want == nil {
			if err := os.Symlink("mnt", filepath.Join(dir, "link")); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Mount(t.Context(), path, tree, tree, Options{}); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if n := mountsBelow(t, dir); n != 0 {
		t.Errorf("%d mounts", n)
	}
}
