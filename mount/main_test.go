package mount

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// The test binary is also the server of the tests that use a mount from their
// own process, and the reader of those that serve one: never both, see doc.go.
const (
	serveVar = "OBJECTMOUNT_TEST_SERVE"
	readVar  = "OBJECTMOUNT_TEST_READ"
)

func TestMain(m *testing.M) {
	if job := os.Getenv(serveVar); job != "" {
		serveChild(job)
		return
	}
	if job := os.Getenv(readVar); job != "" {
		readChild(job)
		return
	}
	if os.Geteuid() == 0 {
		if dev, err := openDevice(); err != nil {
			fmt.Fprintln(os.Stderr, "these tests mount:", err)
			os.Exit(1)
		} else {
			unix.Close(dev)
		}
	}
	goleak.VerifyTestMain(m)
}

// serveJob tells a child process what to serve.
type serveJob struct {
	Dir, StateDir string
	Tree          string // "many", "large", or the small one
	UID           uint32 // who serves; 0: root
	Path          string // PATH of the server, if not empty
}

func serveChild(arg string) {
	var job serveJob
	if err := json.Unmarshal([]byte(arg), &job); err != nil {
		panic(err)
	}
	tree := smallTree()
	switch job.Tree {
	case "many":
		tree = manyTree()
	case "large":
		tree = newTree(entry{name: "large", body: content(largeSize, 3)})
	}
	opt := Options{StateDir: job.StateDir, Identity: "test"}
	fs, err := Mount(context.Background(), job.Dir, tree, tree, opt)
	if err != nil {
		var hint string
		if u := new(UnavailableError); errors.As(err, &u) {
			hint = u.Hint()
		}
		fmt.Printf("failed: %v (%s)\n", err, hint)
		os.Exit(1)
	}
	b, _ := json.Marshal(fs.Info())
	fmt.Printf("ready %s\n", b)
	go func() {
		// The test closes our input, or dies.
		io.Copy(io.Discard, os.Stdin)
		if err := fs.Unmount(false); err != nil {
			fmt.Println(err)
			fs.Unmount(true)
		}
	}()
	fs.Wait()
}

// child is a server in another process.
type child struct {
	cmd  *exec.Cmd
	in   io.Closer
	info struct{ Writable bool }

	failed string // what it said instead of serving
}

// serveElsewhere mounts a tree from a child process.
func serveElsewhere(t testing.TB, job serveJob) *child {
	t.Helper()
	c := serveOrFail(t, job)
	if c.failed != "" {
		t.Fatalf("server: %q", c.failed)
	}
	return c
}

func serveOrFail(t testing.TB, job serveJob) *child {
	t.Helper()
	b, _ := json.Marshal(job)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serveVar+"="+string(b))
	cmd.Stderr = os.Stderr
	if job.Path != "" {
		cmd.Env = append(cmd.Env, "PATH="+job.Path)
	}
	if job.UID != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: job.UID, Gid: job.UID}}
		cmd.Dir = "/"
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: cmd, in: in}
	t.Cleanup(func() { c.kill(); detachAll(job.Dir) })
	line, _ := bufio.NewReader(out).ReadString('\n')
	after, ok := strings.CutPrefix(line, "ready ")
	if !ok {
		c.failed = line
		return c
	}
	if err := json.Unmarshal([]byte(after), &c.info); err != nil {
		t.Fatal(err)
	}
	return c
}

// stop has the child unmount and waits for it.
func (c *child) stop(t testing.TB) {
	t.Helper()
	c.in.Close()
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("server: %v", err)
	}
}

// kill ends the child with SIGKILL.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
}

// detachAll takes away whatever is mounted at or below dir.
func detachAll(dir string) {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	lines := strings.Split(string(b), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if f := strings.Fields(lines[i]); len(f) > 4 && within(f[4], dir) {
			unix.Unmount(f[4], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		}
	}
}

// show mounts a tree from this process and unmounts it at the end of the test.
func show(t testing.TB, tree *memTree, opt Options) (dir string, fs *FS) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir = filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, showAt(t, dir, tree, opt)
}

func showAt(t testing.TB, dir string, tree *memTree, opt Options) *FS {
	t.Helper()
	fs, err := Mount(t.Context(), dir, tree, tree, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		fs.Unmount(true)
		fs.Wait()
		detachAll(dir)
	})
	return fs
}

// sh runs a shell script in dir, in another process, and gives its output.
func sh(t testing.TB, dir, script string) string {
	t.Helper()
	out, err := try(dir, script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func try(dir, script string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", "set -eu -o pipefail; cd \"$0\"; "+script, dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("it never came to be that %s", what)
}
