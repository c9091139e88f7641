package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// realTrees are trees as people have them.
var realTrees = map[string]func(t *testing.T, b *lazyBox) (dir string){
	// Ten thousand files of all sizes.
	"the Go tree": func(t *testing.T, b *lazyBox) string {
		need(t, "go")
		dir := filepath.Join(strings.TrimSpace(shell(t, "/", "go env GOROOT")), "src")
		if testing.Short() {
			dir = filepath.Join(dir, "net")
		}
		return dir
	},
	// Symbolic links in .bin, long names, and a few extended attributes.
	"node_modules": func(t *testing.T, b *lazyBox) string {
		dir := nodeModules(t, b)
		shell(t, dir, "setfattr -n user.origin -v 'a registry' package.json; ln package.json again.json; setfattr -n user.empty node_modules; find node_modules/.bin -type l | grep -q .")
		return dir
	},
}

// nodeModules installs the public client, whose lock is in the store's tests.
func nodeModules(t *testing.T, b *lazyBox) string {
	t.Helper()
	need(t, "npm", "node")
	if testing.Short() {
		t.Skip("installs from npm")
	}
	dir := b.path("project")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join("../../store/sdktest", name))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), string(data))
	}
	// What is in npm's cache is not fetched again.
	shell(t, dir, "npm ci --prefer-offline --no-audit --no-fund --ignore-scripts --loglevel=error")
	return dir
}

// useModules is what people do with node_modules.
const useModules = `npm ls --all --offline | tail -n +2
		node --input-type=module -e 'import("@runloop/api-client").then(m => console.log(Object.keys(m).sort().join(" ")))'
		for l in node_modules/.bin/*; do test -x $l; readlink $l; done
		rm -r node_modules/.bin; mv node_modules n; npm ls --offline > /dev/null 2>&1 && echo found || echo missing`

// TestLazyLaw: a lazy mount of a real tree is the extracted tree: while the
// first pass runs, cold, warm, and while its cache is evicted; written to or
// not; whoever reads and however many.
func TestLazyLaw(t *testing.T) {
	for name, tree := range realTrees {
		t.Run(name, func(t *testing.T) {
			b := newLazyBox(t)
			archive := b.pack(tree(t, b), "a.tgz")
			b.extract(archive)
			id := b.serve(archive)
			st, err := os.Stat(archive)
			if err != nil {
				t.Fatal(err)
			}
			rate := max(st.Size()/3, 1<<20) // of the first pass: it lasts

			t.Run("while the first pass runs", func(t *testing.T) {
				path := b.mountLazily(t, id, "lazy", "--bandwidth", fmt.Sprintf("%d/s", rate))
				b.sample(t, path, 8, 50) // waits for each file until the pass has come to it
				b.equal(t, path)
				b.unmount(t, path)
			})
			for _, index := range []string{"first pass", "cached"} {
				t.Run("while the cache is evicted, index: "+index, func(t *testing.T) {
					path := b.mountLazily(t, id, "lazy", "--cache-size", "4MiB", "--read-only", "--cache-dir", b.path("small"))
					b.sample(t, path, 8, 50)
					b.equal(t, path)
					// The index and its companions are not part of the budget.
					if n := blocks(b.path("small")); n > 16<<20 {
						t.Errorf("the cache takes %d bytes: nothing was evicted", n)
					}
					b.unmount(t, path)
				})
			}
			t.Run("cold and warm", func(t *testing.T) {
				if err := os.RemoveAll(b.path("cache")); err != nil {
					t.Fatal(err)
				}
				path := b.mountLazily(t, id, "lazy")
				b.equal(t, path)
				b.equal(t, path)
				if name == "node_modules" {
					b.sameUse(t, path, useModules)
				}
				b.unmount(t, path)
			})
		})
	}
}
