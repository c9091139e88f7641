package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCanary marks the key and learns the names of the parameters of signed
// URLs, then runs the whole program through success and every kind of failure
// at debug level. Afterwards no log, error, status, state file or command line
// may hold a mark.
func TestCanary(t *testing.T) {
	c := &canary{t: t, dir: t.TempDir(), key: "ak_canary7f3a9c"}
	c.marks = []string{"canary7f3a9c"}

	server := c.start("server", "serve", "--data-dir", c.path("data"), "--listen", "127.0.0.1:0", "--log-level", "debug")
	c.base = c.await("server", "export RUNLOOP_BASE_URL=")

	writeFile(t, c.path("src", "a.txt"), strings.Repeat("content\n", 1000))
	out, err := c.run("", "objects", "upload", c.path("src"))
	if err != nil {
		t.Fatalf("upload: %v", err)
	}
	id := strings.TrimSpace(out)
	signed := c.signedURL(id, "3600")
	u, err := url.Parse(signed)
	if err != nil || len(u.Query()) < 2 {
		t.Fatalf("the download URL has no query to look for (error %v)", err)
	}
	for k, v := range u.Query() {
		c.marks = append(c.marks, k+"=")
		if len(v[0]) >= 20 {
			c.marks = append(c.marks, v[0])
		}
	}

	c.mustRun("", "mount", id, c.path("box", "id"))
	c.mustRun(signed, "mount", "-", c.path("box", "url"))
	altered := strings.Replace(signed, "=", "=00", 1)
	c.mustFail(altered, "mount", "-", c.path("box", "altered"))
	short := c.signedURL(id, "1")
	time.Sleep(2100 * time.Millisecond)
	c.mustFail(short, "mount", "-", c.path("box", "expired"))
	c.mustFail("", "mount", "obj_000000000000000000000", c.path("box", "missing"))

	// The agent, with a URL that works, one that does not, and an object that
	// is not there.
	spec, err := json.Marshal([]map[string]any{
		{"type": "object_mount", "object_id": id, "object_path": c.path("box", "spec")},
		{"type": "object_mount", "object_id": id, "download_url": signed, "object_path": c.path("box", "specurl")},
		{"type": "object_mount", "object_id": id, "download_url": altered, "object_path": c.path("box", "specbad")},
		{"type": "object_mount", "object_id": "obj_000000000000000000000", "object_path": c.path("box", "specmissing")},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.path("spec.json"), string(spec))
	agent := c.start("agent", "agent", "--spec", c.path("spec.json"), "--log-level", "debug")
	c.mustFail("", "status", "--wait", "3s") // two of the four cannot become ready
	c.mustRun("", "status", "--json")
	// A spec that is wrong right where the URL is.
	writeFile(t, c.path("spec.json"), `[{"type": "object_mount", "object_id": 7, "download_url": "`+signed+`"}]`)
	time.Sleep(500 * time.Millisecond)
	c.mustRun("", "status")
	c.checkCommandLines(server, agent)
	c.stop(agent)

	c.key = "ak_wrong_canary7f3a9c"
	c.mustFail("", "objects", "list")
	c.key = "ak_canary7f3a9c"
	c.stop(server)
	c.mustFail("", "objects", "list", "--timeout", "1s")
	c.mustFail(signed, "mount", "-", c.path("box", "down"), "--timeout", "1s")

	for _, place := range []string{"logs", "state", "run", "box"} {
		c.checkFiles(c.path(place))
	}
	if c.checked < 10 {
		t.Fatalf("only %d texts were checked", c.checked)
	}
}

// canary runs commands and keeps all they say.
type canary struct {
	t       *testing.T
	dir     string
	key     string
	base    string
	marks   []string
	checked int
}

func (c *canary) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

func (c *canary) command(args ...string) *exec.Cmd {
	cmd := exec.Command("objectmount", args...)
	cmd.Env = append(os.Environ(), "RUNLOOP_API_KEY="+c.key, "RUNLOOP_BASE_URL="+c.base,
		"OBJECTMOUNT_STATE_DIR="+c.path("state"), "OBJECTMOUNT_RUN_DIR="+c.path("run"), "OBJECTMOUNT_CACHE_DIR="+c.path("cache"))
	return cmd
}

// run runs one command and checks what it said, but for its standard output.
func (c *canary) run(stdin string, args ...string) (string, error) {
	cmd := c.command(args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := cmd.Run()
	c.check("standard error of "+args[0], errOut.Bytes())
	return out.String(), err
}

func (c *canary) mustRun(stdin string, args ...string) {
	c.t.Helper()
	out, err := c.run(stdin, args...)
	if err != nil {
		c.t.Fatalf("objectmount %s: %v", strings.Join(args, " "), err)
	}
	c.check("output of "+args[0], []byte(out))
}

func (c *canary) mustFail(stdin string, args ...string) {
	c.t.Helper()
	out, err := c.run(stdin, args...)
	if err == nil {
		c.t.Fatalf("objectmount %s succeeded", strings.Join(args, " "))
	}
	c.check("output of "+args[0], []byte(out))
}

// signedURL asks for a URL: the one output that may hold what is looked for.
func (c *canary) signedURL(id, seconds string) string {
	c.t.Helper()
	out, err := c.run("", "objects", "url", id, "--duration-seconds", seconds)
	if err != nil {
		c.t.Fatalf("objects url: %v", err)
	}
	return strings.TrimSpace(out)
}

func (c *canary) start(name string, args ...string) *exec.Cmd {
	c.t.Helper()
	if err := os.MkdirAll(c.path("logs"), 0o755); err != nil {
		c.t.Fatal(err)
	}
	f, err := os.Create(c.path("logs", name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	cmd := c.command(args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Kill() // most have ended before
		_ = cmd.Wait()
	})
	return cmd
}

func (c *canary) stop(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait() // ended by a signal is what was asked
}

// await waits for a line in a log and returns what follows the prefix.
func (c *canary) await(name, prefix string) string {
	c.t.Helper()
	for range 1000 {
		b, _ := os.ReadFile(c.path("logs", name))
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), prefix); ok {
				return rest
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	b, _ := os.ReadFile(c.path("logs", name))
	c.t.Fatalf("%q did not appear in the log of %s:\n%s", prefix, name, b)
	return ""
}

func (c *canary) check(what string, text []byte) {
	c.t.Helper()
	c.checked++
	for _, m := range c.marks {
		if i := bytes.Index(text, []byte(m)); i >= 0 {
			c.t.Errorf("%s holds %q: %.200q", what, m, text[max(0, i-80):])
		}
	}
}

func (c *canary) checkFiles(root string) {
	c.t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		c.check(path, b)
		return nil
	})
	if err != nil {
		c.t.Error(err)
	}
}

func (c *canary) checkCommandLines(cmds ...*exec.Cmd) {
	for _, cmd := range cmds {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", cmd.Process.Pid))
		if err != nil {
			c.t.Fatal(err)
		}
		c.check("command line", b)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
