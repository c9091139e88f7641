package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// UnavailableError says that this machine, or this user, cannot mount.
type UnavailableError struct {
	Reason string // what failed, with the system's words
	Fix    string // what to do about it, a sentence
}

func (e *UnavailableError) Error() string { return "FUSE is not available: " + e.Reason }

// Hint is what to do about it.
func (e *UnavailableError) Hint() string { return e.Fix }

// Check says whether this user could mount, as far as that is known without
// mounting: nil, or an *UnavailableError.
func Check() error {
	if os.Geteuid() != 0 {
		_, err := findHelper()
		return err
	}
	dev, err := openDevice()
	if err != nil {
		return err
	}
	return os.NewSyscallError("close /dev/fuse", unix.Close(dev))
}

// attach mounts a new FUSE file system at dir and gives the descriptor of its
// connection, through which somebody must answer soon.
func attach(ctx context.Context, dir string, root index.Type) (dev int, err error) {
	if os.Geteuid() != 0 {
		return attachByHelper(ctx, dir)
	}
	dev, err = attachDirect(dir, root)
	if errors.Is(err, unix.EPERM) {
		// Root without CAP_SYS_ADMIN, as in a container: the helper, if it is
		// there, has no more rights, but says it in the usual words.
		return -1, &UnavailableError{
			Reason: "mount(2): " + err.Error(),
			Fix:    "The process needs the capability CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN --device /dev/fuse).",
		}
	}
	return dev, err
}

const deviceMode = "Let everybody use the device (chmod 0666 /dev/fuse), and the container's device rules allow it."

// openDevice opens /dev/fuse for a new connection.
func openDevice() (int, error) {
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return dev, nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, &UnavailableError{Reason: "open /dev/fuse: " + err.Error(),
			Fix: `Load the kernel module with "modprobe fuse", or give the container --device /dev/fuse.`}
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return -1, &UnavailableError{Reason: "open /dev/fuse: " + err.Error(),
			Fix: deviceMode}
	}
	return -1, os.NewSyscallError("open /dev/fuse", err)
}

// attachDirect mounts as root.
func attachDirect(dir string, root index.Type) (int, error) {
	dev, err := openDevice()
	if err != nil {
		return -1, err
	}
	// default_permissions: the kernel checks modes, we need not.
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,default_permissions,allow_other,max_read=%d",
		dev, fileType(root), os.Geteuid(), os.Getegid(), maxRead)
	if err := unix.Mount(fsName, dir, fuseType, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		unix.Close(dev)
		if errors.Is(err, unix.ENODEV) {
			return -1, &UnavailableError{Reason: "the kernel knows no FUSE", Fix: `Load the module with "modprobe fuse".`}
		}
		return -1, &os.PathError{Op: "mount", Path: dir, Err: err}
	}
	return dev, nil
}

const helper = "fusermount3"

func findHelper() (string, error) {
	bin, err := exec.LookPath(helper)
	if err != nil {
		return "", &UnavailableError{
			Reason: "only root can mount without " + helper + ", which is not installed",
			Fix:    "Install the package fuse3, or run as root.",
		}
	}
	return bin, nil
}

// attachByHelper has fusermount3 mount, which hands the descriptor back through
// a socket.
func attachByHelper(ctx context.Context, dir string) (int, error) {
	bin, err := findHelper()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount"), os.NewFile(uintptr(pair[1]), "fusermount")
	defer ours.Close()

	cmd := exec.CommandContext(ctx, bin,
		"-o", fmt.Sprintf("ro,nosuid,nodev,default_permissions,fsname=%s,subtype=%s,max_read=%d", fsName, fsName, maxRead),
		"--", dir)
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.ExtraFiles = []*os.File{theirs} // descriptor 3
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		if ctx.Err() != nil {
			return -1, ctx.Err()
		}
		return -1, helperError(bin, dir, strings.TrimSpace(said.String()), err)
	}
	return receiveDescriptor(ours)
}

func receiveDescriptor(sock *os.File) (int, error) {
	var p [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	var oobn int
	raw, err := sock.SyscallConn()
	if err != nil {
		return -1, err
	}
	var rerr error
	if err := raw.Control(func(fd uintptr) {
		_, oobn, _, _, rerr = unix.Recvmsg(int(fd), p[:], oob, unix.MSG_CMSG_CLOEXEC)
	}); err != nil {
		return -1, err
	}
	if rerr != nil {
		return -1, os.NewSyscallError("recvmsg from "+helper, rerr)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return -1, fmt.Errorf("%s sent no descriptor", helper)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%s sent no descriptor", helper)
	}
	return fds[0], nil
}

// helperError explains why fusermount3 refused.
func helperError(bin, dir, said string, err error) error {
	if said == "" {
		said = helper + ": " + err.Error()
	}
	e := &UnavailableError{Reason: said}
	denied := strings.Contains(said, "ermission denied")
	switch st, serr := os.Stat(bin); {
	case strings.Contains(said, "/dev/fuse") && denied:
		e.Fix = deviceMode
	case strings.Contains(said, "/dev/fuse"):
		e.Fix = `Load the kernel module with "modprobe fuse", or give the container --device /dev/fuse.`
	case strings.Contains(said, "no write access"), strings.Contains(said, "not owned"):
		// Not the machine's fault: a wrong directory.
		return &os.PathError{Op: "mount", Path: dir, Err: fmt.Errorf("%w: %s", fs.ErrPermission, said)}
	case serr == nil && st.Mode()&os.ModeSetuid == 0:
		e.Fix = "Make it setuid root: chmod u+s " + bin + ", or run as root."
	case noNewPrivileges():
		e.Fix = "The process may not gain privileges (NoNewPrivileges=, or a container's no-new-privileges): allow it, or run as root."
	case appArmorConfines() && (denied || strings.Contains(said, "not permitted")):
		e.Fix = "AppArmor has a profile for fusermount3 that allows few directories, such as those below $HOME: mount there, " +
			"or allow " + dir + " in /etc/apparmor.d/local/fusermount3."
	default:
		e.Fix = "Containers need CAP_SYS_ADMIN and /dev/fuse for it; or run as root."
	}
	return e
}

// noNewPrivileges is true when setuid programs get no rights from us.
func noNewPrivileges() bool {
	n, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && n == 1
}

func appArmorConfines() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !bytes.HasPrefix(b, []byte("Y")) {
		return false
	}
	_, err = os.Stat("/etc/apparmor.d/fusermount3")
	return err == nil
}

// setReadAhead raises what INIT caps at 128 KiB.
func setReadAhead(dir string, n int) error {
	if n <= 0 {
		n = maxRead
	}
	m, err := at(dir)
	if err != nil {
		return err
	}
	if len(m) == 0 {
		return fmt.Errorf("%s is not in the table of mounts", dir)
	}
	top := m[len(m)-1]
	path := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", top.Major, top.Minor)
	return os.WriteFile(path, []byte(strconv.Itoa(n/1024)), 0)
}
