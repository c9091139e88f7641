package extract

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"objectmount/internal/archivetest"
)

// The test binary, started with this variable, is a process that extracts the
// file $1 to the path $2 and can be killed.
const childEnv = "EXTRACT_TEST_CHILD"

func TestMain(m *testing.M) {
	if conflict := os.Getenv(childEnv); conflict != "" {
		f, err := os.Open(os.Args[1])
		if err == nil {
			_, err = Extract(context.Background(), f, os.Args[2], Options{StageID: "child", OnConflict: OnConflict(conflict)})
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestKill kills a process at random moments of an extraction. What is at the
// target afterwards is nothing, or the whole tree, or what was there before;
// Sweep leaves only that; and the next extraction works.
//
// EXTRACT_TEST_KILLS sets how many times.
func TestKill(t *testing.T) {
	kills := 24
	if n, err := strconv.Atoi(os.Getenv("EXTRACT_TEST_KILLS")); err == nil {
		kills = n
	} else if testing.Short() {
		kills = 6
	}
	dir := t.TempDir()
	archive := dir + "/archive.tar.gz"
	must(t, os.WriteFile(archive, archivetest.Gzip(archivetest.Many(30, 30, 500)), 0o644))
	work := dir + "/work"
	must(t, os.Mkdir(work, 0o755))
	target := work + "/target"

	child := func(on OnConflict) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", archive, target)
		cmd.Env = append(os.Environ(), childEnv+"="+string(on))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		must(t, cmd.Start())
		return cmd
	}
	start := time.Now()
	must(t, child(ConflictError).Wait())
	whole, took := listTree(t, target).Timeless().String(), time.Since(start)
	must(t, os.RemoveAll(target))

	var absent, complete, old int
	for i := range kills {
		on, before := ConflictError, ""
		if i%3 == 0 {
			on, before = ConflictReplace, "old"
			writeFile(t, target+"/old", "old")
			before = listTree(t, target).Timeless().String()
		}
		cmd := child(on)
		time.Sleep(time.Duration(rand.Int64N(int64(took * 5 / 4))))
		must(t, cmd.Process.Kill())
		err := cmd.Wait()
		var exit *exec.ExitError
		if errors.As(err, &exit) && !exit.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("%v: %s", err, cmd.Stderr)
		}
		switch got := ""; {
		case !exists(target):
			absent++
			if before != "" {
				t.Fatal("what was there before is gone")
			}
		default:
			got = listTree(t, target).Timeless().String()
			switch got {
			case whole:
				complete++
			case before:
				old++
			default:
				t.Fatalf("killed: neither nothing, nor all, nor the old:\n%s", got)
			}
		}
		must(t, Sweep(target, "child"))
		if left, _ := filepath.Glob(work + "/.*"); len(left) > 0 {
			t.Fatalf("Sweep left %q", left)
		}
		if err := child(ConflictReplace).Wait(); err != nil {
			t.Fatal(err)
		}
		if got := listTree(t, target).Timeless().String(); got != whole {
			t.Fatalf("extracted again, it is another tree:\n%s", got)
		}
		must(t, os.RemoveAll(target))
	}
	t.Logf("killed %d times within %v: %d absent, %d complete, %d old", kills, took, absent, complete, old)
}

// TestAsAnotherUser runs the tests again without root's privileges.
func TestAsAnotherUser(t *testing.T) {
	needRoot(t)
	const uid = 12345
	dir, err := os.MkdirTemp("/tmp", "extract-test-user-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chown(dir, uid, uid))
	cmd := exec.Command("/proc/self/exe", "-test.short", "-test.v", "-test.run",
		"^Test(Cases|AsTarDoes|Paths|Conflicts|Merge|Edited|NotEdited|ReaderErrors|Cancel|Stages|Remove|DeleteDeep|Kill|Pack.*|ForeignDirectory)$")
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		var failed []string
		for _, line := range strings.Split(string(out), "\n") {
			if !strings.Contains(line, "=== ") && !strings.Contains(line, "--- PASS") && !strings.Contains(line, "--- SKIP") {
				failed = append(failed, line)
			}
		}
		t.Fatalf("as user %d: %v\n%s", uid, err, strings.Join(failed, "\n"))
	}
	t.Logf("as user %d: %d passed, %d skipped", uid, strings.Count(string(out), "--- PASS"), strings.Count(string(out), "--- SKIP"))
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// TestForeignDirectory: without root's privileges, owners that cannot be set
// are counted and not fatal, and one cannot write where one may not.
func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	res := extractBytes(t, oneFile, dir+"/x", Options{Owner: &Owner{0, 0}})
	if os.Geteuid() != 0 && res.Skipped.Owners != 2 { // the file and the root
		t.Errorf("%d unowned", res.Skipped.Owners)
	}
	res = extractBytes(t, archivetest.Tar(archivetest.Entry{Name: "a", UID: 7, GID: 7}.Bytes()), dir+"/y", Options{PreserveOwner: true})
	if os.Geteuid() != 0 && res.Skipped.Owners != 1 {
		t.Errorf("%d unowned", res.Skipped.Owners)
	}
	if os.Geteuid() != 0 {
		refuses(t, oneFile, "/etc/x", Options{}, os.ErrPermission)
		refuses(t, oneFile, "/x/y/z", Options{}, os.ErrPermission)
	}
	// A parent that may be passed through and written to, but not listed.
	must(t, os.Mkdir(dir+"/blind", 0o700))
	must(t, os.Chmod(dir+"/blind", 0o300))
	blind := extractBytes(t, oneFile, dir+"/blind/x", Options{})
	must(t, Sweep(dir+"/blind/x", "none"))
	must(t, Remove(dir+"/blind/x", blind.Fingerprint))
	must(t, os.Chmod(dir+"/blind", 0o700))
	// An empty directory that is read-only is filled and stays so.
	must(t, os.Mkdir(dir+"/ro", 0o555))
	extractBytes(t, oneFile, dir+"/ro", Options{})
	if m := modeOf(t, dir+"/ro").Perm(); m != 0o555 {
		t.Errorf("mode %v", m)
	}
	must(t, os.Chmod(dir+"/ro", 0o755))
}
