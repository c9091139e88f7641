package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// userScript is what an ordinary user does. $D is the test's directory.
const userScript = `
die() { echo "$*" >&2; exit 1; }
wait_gone() { for i in $(seq 400); do pgrep -f "serve-lazily $1" > /dev/null || return 0; sleep 0.05; done; die "the server of $1 goes on"; }
cd "$HOME"
[ "$(id -u)" = 65534 ] || die "not the user"

# A lazy mount, read-only, as only root may mount overlayfs; and it says so.
objectmount mount --lazy "$D/a.tgz" lazy 2> err > out || die "mount: $(cat err)"
grep -q 'mounted lazily, read-only' err && grep -q 'only root may mount overlayfs' err || die "said: $(cat err)"
[ "$(cat out)" = "$HOME/lazy" ] || die "printed: $(cat out)"
diff -r --no-dereference "$D/src" lazy
[ "$(stat -c %U:%a lazy/d/run)" = nobody:755 ] && [ "$(lazy/d/run)" = ran ] || die "$(stat lazy/d/run)"
(touch lazy/x 2>&1 || true) | grep -q 'Read-only file system'
findmnt -n -o FSTYPE,OPTIONS lazy | grep -q 'fuse.objectmount *ro,nosuid,nodev,.*user_id=65534' || die "$(findmnt lazy)"

# Its server dies: the next one takes its place, once.
kill -KILL $(pgrep -f "serve-lazily $HOME/lazy"); wait_gone "$HOME/lazy"
for i in $(seq 400); do case $(stat -f lazy 2>&1 || true) in *'not connected'*) break;; esac; sleep 0.05; done
objectmount mount --lazy "$D/a.tgz" lazy 2> err || die "mount: $(cat err)"
[ "$(grep -c " $HOME/lazy " /proc/self/mountinfo)" = 1 ] || die "$(cat /proc/self/mountinfo)"
cmp lazy/d/f "$D/src/d/f"
objectmount unmount lazy; wait_gone "$HOME/lazy"
[ ! -e lazy ] && ! grep -q "$HOME" /proc/self/mountinfo || die "left: $(cat /proc/self/mountinfo)"

# Somebody else's directory is no place.
! objectmount mount --lazy "$D/a.tgz" "$D/theirs/lazy" 2> err || die "mounted in $D/theirs"
grep -qi 'permission denied' err || die "said: $(cat err)"

# Without fusermount3: extracted, unless one insists; then with a hint.
export PATH=$D/bin:$D/few
code=0; objectmount mount --lazy "$D/a.tgz" lazy 2> err || code=$?
[ $code = 11 ] && grep -q 'hint: Install the package fuse3' err || die "$code: $(cat err)"
objectmount mount --lazy-above 1 "$D/a.tgz" plain 2> err || die "mount: $(cat err)"
grep -q 'extracted: FUSE is not available' err || die "said: $(cat err)"
[ -w plain/d/f ]; objectmount unmount plain; [ ! -e plain ] || die "plain is left"
`

// TestOrdinaryUser: an ordinary user has lazy mounts, too, through fusermount3.
// He has a device and a table of mounts of his own, as this machine's device
// may be root's alone.
func TestOrdinaryUser(t *testing.T) {
	need(t, "fusermount3", "setpriv", "unshare", "pgrep", "findmnt")
	b := newLazyBox(t)
	for _, dir := range []string{b.dir, filepath.Dir(b.dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, b.dir, `mkdir -p src/d home theirs bin few; seq 100000 > src/d/f; ln -s f src/d/link
		printf '#!/bin/sh\necho ran\n' > src/d/run; chmod 755 src/d/run; chmod 644 src/d/f
		for p in cat grep; do ln -s $(command -v $p) few; done; chown 65534:65534 home`)
	b.pack(b.path("src"), "a.tgz")
	shell(t, b.dir, "chmod 644 a.tgz")
	copyProgram(t, b.path("bin", "objectmount"))
	writeFile(t, b.path("user.sh"), "set -eu -o pipefail; trap 'echo line $LINENO >&2' ERR\n"+userScript)
	var st unix.Stat_t
	if err := unix.Stat("/dev/fuse", &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(b.path("fuse"), unix.S_IFCHR|0o666, int(st.Rdev)); err != nil {
		t.Fatal(err)
	}
	shell(t, b.dir, `chmod 666 fuse; chmod 644 user.sh
		exec unshare --mount --propagation private bash -c 'mount --bind fuse /dev/fuse
			exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i D=$PWD HOME=$PWD/home PATH=$PWD/bin:/usr/bin:/bin LC_ALL=C bash user.sh'`)
}

// copyProgram copies this program to where others may run it.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
