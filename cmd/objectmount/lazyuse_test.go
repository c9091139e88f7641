package main

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"objectmount/internal/archivetest"
)

// lazyUses are what people do in a tree, as scripts: what they say in a lazy
// mount is what they say in an extracted tree.
var lazyUses = []struct {
	name   string
	needs  []string
	make   func(t *testing.T, dir string) // in dir, which is packed then
	script string
}{
	{"build a Go module", []string{"go"}, func(t *testing.T, dir string) {
		for name, text := range map[string]string{
			"go.mod":                "module example.test/prog\n\ngo 1.24\n\nrequire example.test/dep v1.0.0\n\nreplace example.test/dep => ./dep\n",
			"main.go":               "package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n\n\t\"example.test/dep\"\n\t\"example.test/prog/internal/text\"\n)\n\nfunc main() { fmt.Fprintln(os.Stdout, text.Hello, dep.Answer()) }\n",
			"internal/text/t":       "hello from a file",
			"internal/text/text.go": "// Package text embeds one.\npackage text\n\nimport _ \"embed\"\n\n//go:embed t\nvar Hello string\n",
			"dep/go.mod":            "module example.test/dep\n\ngo 1.24\n",
			"dep/dep.go":            "package dep\n\nfunc Answer() int { return 42 }\n",
			"dep/dep_test.go":       "package dep\n\nimport \"testing\"\n\nfunc TestAnswer(t *testing.T) {\n\tif Answer() != 42 {\n\t\tt.Fatal(Answer())\n\t}\n}\n",
			"tmp/keep":              "",
		} {
			writeFile(t, filepath.Join(dir, name), text)
		}
	}, `export GOFLAGS='-mod=mod -buildvcs=false' GOPROXY=off GOWORK=off GOTOOLCHAIN=local GOTMPDIR=$PWD/tmp
		go build -o out/prog . && out/prog && out/prog | wc -c
		sed -i s/42/43/ dep/dep.go; go build -o out/prog . && out/prog
		(cd dep; go vet .; go list -f '{{.Name}} {{.GoFiles}}')`},

	{"work in a git repository", []string{"git"}, func(t *testing.T, dir string) {
		shell(t, dir, `git init -q -b main; git config user.email a@example.test; git config user.name a
			for i in $(seq 200); do mkdir -p d$((i % 9)); seq $i $((i * 20)) > d$((i % 9))/f$i; done
			ln -s d1 link; chmod +x d0/f9; git add .; git commit -q -m one
			git checkout -q -b other; seq 7 > d1/f1; git rm -q d2/f2; git commit -q -a -m two
			git checkout -q main; git gc -q; seq 100 > d3/new; git add .; git commit -q -m three`)
	}, `export GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_DATE=@1700000000+0000
		git status --porcelain; git log --format=%s; git diff --stat other
		echo more >> d1/f1; rm d4/f4; mkdir e; echo e > e/f; git status --porcelain
		git stash -q; git status --porcelain; git stash pop -q; git status --porcelain
		git checkout -q -- d1 d4; git checkout -q other; cat d1/f1; ls d2 | wc -l; git checkout -q main
		git mv d5 d55; git commit -q -a -m moved; git grep -c 4000 | head -3
		git fsck --full --strict; git gc -q --prune=now; git status --porcelain; git show --stat --format=%s | tail -1`},

	{"import Python packages", []string{"python3"}, func(t *testing.T, dir string) {
		shell(t, dir, `lib=$(cd /; python3 -IS -c 'import email, os; print(os.path.dirname(os.path.dirname(email.__file__)))')
			cp -r $lib/email $lib/json $lib/xml .; find . -name __pycache__ -prune -exec rm -r {} +`)
	}, `here=$PWD; cd /; for i in 1 2; do python3 -IS -c '
import sys; sys.path.insert(0, sys.argv[1])
import email.mime.multipart, json.tool, xml.dom.minidom
for m in email, json, xml.dom.minidom: assert m.__file__.startswith(sys.argv[1]), m.__file__
print(json.dumps({"a": [1, 2]}), xml.dom.minidom.parseString("<a/>").toxml())' $here; done
		cd $here; find . -name '*.pyc' | wc -l`},

	{"run programs", []string{"gcc", "sha256sum"}, func(t *testing.T, dir string) {
		writeFile(t, filepath.Join(dir, "lib.c"), "int answer(void) { return 42; }\n")
		writeFile(t, filepath.Join(dir, "main.c"), "#include <stdio.h>\nint answer(void);\nint main(void) { return printf(\"%d\\n\", answer()) < 0; }\n")
		shell(t, dir, `gcc -shared -fPIC -o libanswer.so lib.c; gcc -o prog main.c -L. -lanswer -Wl,-rpath,'$ORIGIN'
			cp $(command -v sha256sum) .; printf '#!/bin/sh\nexec ./prog\n' > run.sh; chmod 755 run.sh`)
	}, `./prog; ./run.sh; ./sha256sum main.c; sed -i s/42/43/ lib.c; gcc -shared -fPIC -o libanswer.so lib.c; ./prog
		(exec 9>>prog; ./prog 2>&1 || echo busy) | sed 's/.*: //'; mv prog p2; ./p2`},
}

// TestLazyUses works in a lazy mount as in an extracted tree.
func TestLazyUses(t *testing.T) {
	for _, use := range lazyUses {
		t.Run(use.name, func(t *testing.T) {
			need(t, use.needs...)
			b := newLazyBox(t)
			dir := b.path("src")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			use.make(t, dir)
			archive := b.pack(dir, "a.tgz")
			b.extract(archive)
			path := b.mountLazily(t, archive, "lazy")
			b.sameUse(t, path, use.script)
			b.unmount(t, path)
		})
	}
}

// sameUse runs a script in a mount and in the extracted tree.
func (b *lazyBox) sameUse(t *testing.T, path, script string) {
	t.Helper()
	want, got := shell(t, b.want, script), shell(t, path, script)
	if want == "" || got != want {
		t.Errorf("in the mount:\n%s\nin the extracted tree:\n%s", got, want)
	}
	t.Logf("it says:\n%s", got)
}

// bigSize is that of the file that is mapped.
const bigSize = 500 << 20

// mapFile checks pages of a shared map at random, and then all of it.
const mapFile = `cd /; exec python3 -IS -c '
import hashlib, mmap, random, sys
with open(sys.argv[1], "rb") as f: m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
random.seed(int(sys.argv[2]))
for _ in range(2000):
    p = random.randrange(len(m) >> 12)
    if m[p << 12:(p << 12) + 8] != p.to_bytes(8, "little"): sys.exit(f"page {p} is wrong")
print(hashlib.sha256(m).hexdigest())' `

// TestLazyMap maps a file of 500 MB, shared, from several processes: while the
// first pass runs, from a cache that holds a part of it, and to write.
func TestLazyMap(t *testing.T) {
	need(t, "python3")
	b := newLazyBox(t)
	archive, sum := bigFile(t, b)
	maps := func(t *testing.T, path string) {
		t.Helper()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				if out, err := try(t, 0, "/", mapFile+fmt.Sprint(path, "/big ", i)); err != nil || out != sum {
					t.Errorf("%v, %q, want %q", err, out, sum)
				}
			})
		}
		wg.Wait()
	}
	path := b.mountLazily(t, archive, "lazy", "--cache-size", "64MiB")
	maps(t, path)
	b.unmount(t, path)
	path = b.mountLazily(t, archive, "lazy", "--cache-size", "64MiB")
	maps(t, path)
	shell(t, "/", `python3 -IS -c '
import mmap, sys
with open(sys.argv[1], "r+b") as f: m = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_SHARED)
for at in 5, 300 << 20, len(m) - 3: m[at:at + 3] = b"new"
m.flush()' `+path+`/big`)
	if got := shell(t, path, "for at in 5 314572800 524287997; do tail -c +$((at + 1)) big | head -c 3 || true; done; stat -c ' %s' big"); got != fmt.Sprintln("newnewnew", bigSize) {
		t.Errorf("after writing: %q", got)
	}
	b.unmount(t, path)
}

// bigFile packs a file of which each page holds its number.
func bigFile(t *testing.T, b *lazyBox) (archive, sum string) {
	t.Helper()
	archive = b.path("big.tgz")
	f, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, _ := gzip.NewWriterLevel(f, gzip.BestSpeed)
	h := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(z, h), 1<<20)
	_, err = z.Write(archivetest.Entry{Name: "big", Size: bigSize}.Bytes())
	page := []byte(strings.Repeat("objectmount page", 256))
	for p := range uint64(bigSize >> 12) {
		binary.LittleEndian.PutUint64(page, p)
		w.Write(page)
	}
	err = errors.Join(err, w.Flush())
	_, end := z.Write(archivetest.Zeros(2))
	if err := errors.Join(err, end, z.Close()); err != nil {
		t.Fatal(err)
	}
	return archive, fmt.Sprintf("%x\n", h.Sum(nil))
}
