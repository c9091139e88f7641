package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"objectmount/internal/faulttest"
)

// client is a way to fetch $URL, into the file system $OUT where it keeps
// what it fetched.
type client struct {
	name, command string
}

// Names that goals speak of.
const (
	curlNull  = "curl to /dev/null"
	aria      = "aria2c -x16 to a file"
	ours      = "objectmount, in order"
	oursSmall = "objectmount, in order, 32 MiB"
	ariaTar   = "aria2c -x16, then igzip | tar"
	oursTree  = "objectmount mount"
)

// aria2 with so many connections, as its manual wants it said: -s is the
// number of pieces at a time, -x that of connections to one host.
const aria2c = "aria2c -q -x16 -s16 -k4M --file-allocation=none --allow-overwrite=true -d $OUT -o object $URL"

// clients are ours and those that are installed, and lines about those that
// are not.
func clients() (list []client, missing []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	if _, err := exec.LookPath("curl"); err != nil {
		missing = append(missing, "curl is not installed: its rows are left out")
	} else {
		list = append(list, client{curlNull, "curl -sSf -o /dev/null $URL"}, client{"curl to a file", "curl -sSf -o $OUT/object $URL"})
	}
	if _, err := exec.LookPath("aria2c"); err != nil {
		missing = append(missing, "aria2c is not installed (Debian: aria2): its rows are left out")
	} else {
		list = append(list, client{aria, aria2c})
	}
	return append(list,
		client{ours, self + " cat $URL"},
		client{oursSmall, self + " cat -memory 33554432 $URL"},
		client{"objectmount, to a file", self + " cat -to $OUT/object $URL"},
	), missing, nil
}

// extractors go from $URL to a tree at $OUT/tree.
func extractors(binary string) []client {
	has := func(name string) bool { _, err := exec.LookPath(name); return err == nil }
	gunzip := "gzip"
	if has("igzip") {
		gunzip = "igzip"
	} else {
		fmt.Fprintln(os.Stderr, "igzip is not installed (Debian: isal): gzip takes its place")
	}
	var list []client
	if has("aria2c") {
		list = append(list, client{strings.Replace(ariaTar, "igzip", gunzip, 1),
			"mkdir $OUT/tree && " + aria2c + " && " + gunzip + " -dc $OUT/object | tar x -C $OUT/tree"})
	}
	if has("curl") {
		list = append(list, client{"curl | " + gunzip + " | tar", "mkdir $OUT/tree && curl -sSf $URL | " + gunzip + " -dc | tar x -C $OUT/tree"})
	}
	mount := binary + " mount $URL $OUT/tree --state-dir $OUT/state --run-dir $OUT/state"
	if help, _ := exec.Command(binary, "mount", "--help").CombinedOutput(); strings.Contains(string(help), "--extract") {
		mount += " --extract"
	}
	return append(list, client{oursTree, mount + " >/dev/null"})
}

// makeObject writes the object that is fetched.
func makeObject(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, faulttest.NewPattern(1, size).Reader())
	return errors.Join(err, f.Close())
}

// verify compares what our client gives with the object, once: a benchmark of
// wrong bytes is worth nothing.
func verify(ctx context.Context, list []client, url, path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, self, "cat", "-sum", url+"/object").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != hex.EncodeToString(h.Sum(nil)) {
		return fmt.Errorf("our client gave bytes of SHA-256 %s, want %x: %v", got, h.Sum(nil), err)
	}
	return nil
}

// packages are those of which the node_modules tree is made.
const packages = "react react-dom vite typescript next eslint webpack jest prettier tailwindcss express lodash @types/node"

// makeArchive puts a .tar.gz at path: the one given, or node_modules, or the Go
// source tree. It says what it is.
func makeArchive(ctx context.Context, tmp, path, given string) (what string, err error) {
	if given != "" {
		return filepath.Base(given), sh(ctx, fmt.Sprintf("cp '%s' '%s'", given, path))
	}
	fmt.Fprintln(os.Stderr, "installing and packing a node_modules tree ...")
	dir := filepath.Join(tmp, "npm")
	err = sh(ctx, fmt.Sprintf("mkdir %[1]s && cd %[1]s && npm init -y >/dev/null && npm install --silent --no-audit --no-fund %[2]s >/dev/null && tar -cf - node_modules | gzip -6 >%[3]s",
		dir, packages, path))
	if err == nil {
		return "node_modules", nil
	}
	fmt.Fprintf(os.Stderr, "%v: the Go source tree takes its place\n", err)
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	root := strings.TrimSpace(string(out))
	return "Go source tree", sh(ctx, fmt.Sprintf("tar -C %s -cf - %s | gzip -6 >%s", filepath.Dir(root), filepath.Base(root), path))
}

func sh(ctx context.Context, command string) error {
	if out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %v: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// also is the first error of two.
func also(first, second error) error {
	if first != nil {
		return first
	}
	return second
}
