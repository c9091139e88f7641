package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func newDemo(a *app) *cobra.Command {
	var keep bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "the whole story on this machine, in a temporary directory",
		Long: `Start a server on a free port, upload objects of every kind, write a spec, let
the agent make its mounts, edit the spec while the agent runs, and show each
command, what it printed and how long it took. Everything happens in one
temporary directory, which is removed at the end.`,
		Example: "  objectmount demo\n  objectmount demo --keep   # look around afterwards",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			dir, err := os.MkdirTemp("", "objectmount-demo-")
			if err != nil {
				return err
			}
			defer func() {
				if keep {
					fmt.Fprintf(a.out, "\nkept in %s\n", dir)
				} else if rmErr := os.RemoveAll(dir); err == nil {
					err = rmErr
				}
			}()
			d := &demo{out: a.out, dir: dir, key: "ak_demo_" + rand.Text()}
			defer d.stop()
			return d.run(cmd.Context())
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave the directory when done")
	return c
}

// demo runs this very program as a user would, in processes of their own, so
// that what it shows is what the commands do.
type demo struct {
	out   io.Writer
	dir   string
	key   string
	base  string // URL of the server once it is up
	procs []*exec.Cmd
}

func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// run tells the story. Each chapter is one method, so that it reads in order.
func (d *demo) run(ctx context.Context) error {
	start := time.Now()
	d.say("1. Things to upload: a text, a .gz, a .tar, a .tgz and a directory")
	if err := d.makeFiles(); err != nil {
		return fmt.Errorf("make files: %w", err)
	}
	d.say("2. A Storage Objects server")
	if err := d.startServer(ctx); err != nil {
		return fmt.Errorf("start server: %w", err)
	}
	d.say("3. Upload: each command prints the new object's id")
	ids := map[string]string{}
	for _, name := range []string{"note.txt", "log.txt.gz", "site.tar", "tool.tgz", "dataset"} {
		id, err := d.command(ctx, "objects", "upload", d.path("src", name))
		if err != nil {
			return err
		}
		ids[name] = strings.TrimSpace(id)
	}
	if _, err := d.command(ctx, "objects", "list"); err != nil {
		return err
	}

	d.say("4. The spec, and the agent that makes it so")
	spec := d.path("spec", "mounts.json")
	if err := d.writeSpec(spec, ids, "note.txt", "log.txt.gz", "site.tar", "tool.tgz"); err != nil {
		return err
	}
	if _, err := d.start(ctx, "agent", "--spec", spec); err != nil {
		return err
	}
	if _, err := d.command(ctx, "status", "--wait", "30s"); err != nil {
		return err
	}
	d.say("5. What is there now")
	if err := d.tree(d.path("box")); err != nil {
		return err
	}
	d.say("6. The spec is edited while the agent runs: the directory joins")
	if err := d.writeSpec(spec, ids, "note.txt", "log.txt.gz", "site.tar", "tool.tgz", "dataset"); err != nil {
		return err
	}
	if err := d.waitFor(ctx, d.path("box", "dataset", "readme.md")); err != nil {
		return err
	}
	if _, err := d.command(ctx, "status", "--wait", "30s"); err != nil {
		return err
	}
	d.stopLast()
	d.say("7. The next boot: everything is there, nothing is downloaded")
	if _, err := d.command(ctx, "agent", "--once", "--spec", spec); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\nAll of it took %s.\n", took(time.Since(start)))
	return nil
}

func (d *demo) say(line string) { fmt.Fprintf(d.out, "\n%s\n", line) }

// env is the environment of every command: this server, this key, and places
// inside the demo's directory only.
func (d *demo) env() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "OBJECTMOUNT_") && !strings.HasPrefix(kv, "RUNLOOP_") && !strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			env = append(env, kv)
		}
	}
	return append(env, "RUNLOOP_API_KEY="+d.key, "RUNLOOP_BASE_URL="+d.base,
		"OBJECTMOUNT_STATE_DIR="+d.path("state"), "OBJECTMOUNT_RUN_DIR="+d.path("run"), "OBJECTMOUNT_CACHE_DIR="+d.path("cache"),
		"OBJECTMOUNT_LOG_LEVEL=warn", "NO_PROXY=127.0.0.1")
}

// process prepares one run of this program.
func (d *demo) process(ctx context.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, exe)
	c.Args = append([]string{"objectmount"}, args...)
	c.Env = d.env()
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	return c, nil
}

// show prints a command as one would type it.
func (d *demo) show(args []string) {
	fmt.Fprintf(d.out, "  $ objectmount %s\n", strings.Join(args, " "))
}

// command runs one command to its end, shows its output and how long it took,
// and returns its standard output.
func (d *demo) command(ctx context.Context, args ...string) (string, error) {
	d.show(args)
	c, err := d.process(ctx, args...)
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	start := time.Now()
	err = c.Run()
	for _, line := range strings.Split(strings.TrimRight(out.String()+errOut.String(), "\n"), "\n") {
		fmt.Fprintf(d.out, "    %s\n", line)
	}
	fmt.Fprintf(d.out, "    (%s)\n", took(time.Since(start)))
	if err != nil {
		return "", fmt.Errorf("objectmount %s: %w", args[0], err)
	}
	return out.String(), nil
}

// start runs a command in the background until the demo ends.
func (d *demo) start(ctx context.Context, args ...string) (io.Reader, error) {
	d.show(append(args, "&"))
	c, err := d.process(ctx, args...)
	if err != nil {
		return nil, err
	}
	pipe, err := c.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	d.procs = append(d.procs, c)
	return pipe, nil
}

// startServer starts the server on a free port and learns its URL from the
// export line that it prints for people.
func (d *demo) startServer(ctx context.Context) error {
	start := time.Now()
	talk, err := d.start(ctx, "serve", "--data-dir", d.path("server"), "--listen", "127.0.0.1:0")
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(talk)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "export RUNLOOP_BASE_URL="); ok {
			d.base = url
			fmt.Fprintf(d.out, "    export RUNLOOP_BASE_URL=%s\n    (%s)\n", url, took(time.Since(start)))
			go io.Copy(io.Discard, talk) //nolint:errcheck // drained until the server ends
			return nil
		}
	}
	return errors.Join(errors.New("the server ended before it was up"), lines.Err())
}

// writeSpec writes the object_mount spec that mounts the named objects, by
// rename, so that the agent never reads half of it.
func (d *demo) writeSpec(path string, ids map[string]string, names ...string) error {
	type mount struct {
		Type       string `json:"type"`
		ObjectID   string `json:"object_id"`
		ObjectPath string `json:"object_path"`
	}
	target := map[string]string{
		"note.txt": "note.txt", "log.txt.gz": "log.txt", "site.tar": "site", "tool.tgz": "tool", "dataset": "dataset",
	}
	lines := make([]string, 0, len(names))
	for _, n := range names {
		b, err := json.Marshal(mount{"object_mount", ids[n], d.path("box", target[n])})
		if err != nil {
			return err
		}
		lines = append(lines, "  "+string(b))
	}
	b := []byte("{\"mounts\": [\n" + strings.Join(lines, ",\n") + "\n]}\n")
	fmt.Fprintf(d.out, "  $ cat %s\n", path)
	for line := range strings.Lines(string(b)) {
		fmt.Fprint(d.out, "    ", line)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".tmp", b, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// waitFor waits until a path is there, and says how long that took.
func (d *demo) waitFor(ctx context.Context, path string) error {
	start := time.Now()
	for {
		if _, err := os.Lstat(path); err == nil {
			fmt.Fprintf(d.out, "    applied %s after the edit\n", took(time.Since(start)))
			return nil
		}
		if time.Since(start) > 30*time.Second {
			return fmt.Errorf("%s did not appear", path)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stopLast ends the process started last and waits for it.
func (d *demo) stopLast() {
	c := d.procs[len(d.procs)-1]
	d.procs = d.procs[:len(d.procs)-1]
	_ = c.Process.Signal(syscall.SIGTERM) // it may have ended already
	_ = c.Wait()                          // ended by a signal is what was asked
}

// stop ends what is still running, in reverse order.
func (d *demo) stop() {
	for len(d.procs) > 0 {
		d.stopLast()
	}
}
