package mount

import (
	"path/filepath"

	"golang.org/x/sys/unix"

	"objectmount/index"
)

// pollName is a name that go-fuse answers for by itself in the root of every tree,
// for what unpoll does; no listing has it.
const pollName = ".go-fuse-epoll-hack"

// unpoll makes the kernel learn that we have no POLL, before anybody else opens a
// file.
//
// Go puts every file that it opens into its epoll set, without telling the
// scheduler that this may block, because on other file systems it cannot. On FUSE
// the kernel asks the server. So a Go program that reads files of a mount which
// it serves itself comes to a standstill for good when it has no processor left to
// answer. Nobody should read what he serves, but whoever does it in passing
// should not hang where not even SIGKILL ends it. Once the answer was ENOSYS
// the kernel does not ask again.
//
// open and poll are system calls that the scheduler knows to block.
func unpoll(dir string, root index.Type) {
	if root != index.TypeFile {
		dir = filepath.Join(dir, pollName)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // as it was without
	}
	defer unix.Close(fd)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
}
