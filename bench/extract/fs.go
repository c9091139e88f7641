package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// fs is a file system made for one run.
type fs struct {
	dir    string
	memory string // the tmpfs in which an ext4 image lies
}

// freshFS mounts a new tmpfs, or an ext4 on a loop device over one.
func freshFS(tmp, kind string) (f *fs, err error) {
	f = &fs{dir: filepath.Join(tmp, "fs")}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return nil, err
	}
	switch kind {
	case "tmpfs":
		return f, sh("mount -t tmpfs -o size=8g tmpfs " + f.dir)
	case "ext4":
		f.memory = filepath.Join(tmp, "memory")
		image := filepath.Join(f.memory, "image")
		return f, sh(fmt.Sprintf("mkdir -p %s && mount -t tmpfs -o size=8g tmpfs %s && truncate -s 6G %s && mkfs.ext4 -q -E lazy_itable_init=1 %s && mount -o loop %s %s",
			f.memory, f.memory, image, image, image, f.dir))
	}
	return nil, fmt.Errorf("file system %q: tmpfs or ext4", kind)
}

// close waits for processes that still flush: that is not what is measured, as
// it is not with tar, for which unmounting does it.
func (f *fs) close() error {
	if err := sh("for i in $(seq 600); do umount " + f.dir + " 2>/dev/null && exit; sleep 0.1; done; umount " + f.dir); err != nil {
		return err
	}
	if f.memory == "" {
		return nil
	}
	return sh("umount " + f.memory)
}

func sh(command string) error {
	if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %v: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// maxRSS is the resident size of the largest process below a command that has
// ended, in KiB.
func maxRSS(c *exec.Cmd) int64 {
	if c.ProcessState == nil {
		return 0
	}
	return c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
}
