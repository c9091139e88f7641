package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// soakTime is how long TestLazySoak goes on: half a minute, or as long as
// OBJECTMOUNT_SOAK says. `make soak-mount` lets it go on for ten minutes.
func soakTime(t *testing.T) time.Duration {
	text := os.Getenv("OBJECTMOUNT_SOAK")
	if text == "" {
		return 30 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second {
		t.Fatalf("OBJECTMOUNT_SOAK=%s is no time of at least a second", text)
	}
	return d
}

// lowerFiles are fio's files in the archive: each block of them has a checksum
// in it.
const lowerFiles = "--name=lower --size=24m --nrfiles=3 --bs=32k --verify=crc32c --verify_fatal=1 --thread --invalidate=1"

// fioJobs write and read in a mount all the time, and verify each block.
//
//	lower   files of the archive, which are only read
//	copied  others, which the first write copies up
//	new     new files, in small blocks; large: in large ones
//	mapped  likewise through a shared map
const fioJobs = `[global]
size=24m
verify=crc32c
verify_fatal=1
verify_backlog=64
time_based
thread
[new]
directory=new
rw=randrw
bs=4k
[large]
directory=new
rw=randrw
bs=64k
[mapped]
directory=new
rw=randrw
bs=16k
ioengine=mmap
[copied]
directory=copied
rw=randrw
bs=32k
nrfiles=3
`

// stressors are those of stress-ng that are about file systems and keep to the
// directory that they are given. (getdent walks the whole machine, and holds up
// whoever unmounts something; fstat has to be told where.)
const stressors = "access chdir chmod chown dentry dir dirdeep dup fallocate fiemap filename flock fpunch " +
	"fstat handle hdd inotify iomix lease link locka lockf lockofd mknod msync open readahead rename seek " +
	"sendfile symlink sync-file touch utime xattr"

// TestLazySoak lets fio and stress-ng loose on the writable view, while others
// read below it and its cache is evicted. No byte is wrong, and nothing fails.
func TestLazySoak(t *testing.T) {
	if testing.Short() {
		t.Skip("it lasts")
	}
	need(t, "fio", "stress-ng", "go")
	limit := soakTime(t)
	b := newLazyBox(t)
	src := b.path("src")
	shell(t, "/", fmt.Sprintf(`mkdir -p %[1]s/lower %[1]s/copied %[1]s/new %[1]s/stress; cp -a $(go env GOROOT)/src/net %[1]s/tree
		fio --directory=%[1]s/lower --rw=write --do_verify=0 %[2]s; cp %[1]s/lower/* %[1]s/copied`, src, lowerFiles))
	archive := b.pack(src, "a.tgz")
	b.extract(archive)
	id := b.serve(archive)
	path := b.path("box")
	writeFile(t, b.path("spec.json"), fmt.Sprintf(`[{"type": "object_mount", "object_id": %q, "object_path": %q, "mode": "lazy"}]`, id, path))
	agent := b.start("agent", "agent", "--spec", b.path("spec.json"), "--cache-size", "32MiB")
	if !within(30*time.Second, func() bool { return b.command("status", "--wait", "20s").Run() == nil }) {
		t.Fatal("not ready")
	}

	seconds := strconv.Itoa(int(limit.Seconds()))
	jobs := b.path("jobs.fio")
	writeFile(t, jobs, fioJobs)
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() { // what is below, in blocks of fio and in whole
		for n := 0; ; n++ {
			select {
			case <-over:
				t.Logf("the files of the archive were verified %d times", n)
				return
			default:
			}
			if out, err := try(t, 0, path, "fio --directory=lower --rw=randread "+lowerFiles); err != nil {
				t.Errorf("fio on the files of the archive: %v\n%s", err, out)
				return
			}
			sub := &lazyBox{canary: b.canary, want: filepath.Join(b.want, "tree")}
			sub.sample(t, filepath.Join(path, "tree"), 2, 100)
		}
	})
	var both sync.WaitGroup
	both.Go(func() {
		out, err := try(t, limit+5*time.Minute, path, "fio --output-format=json --runtime="+seconds+" "+jobs)
		ios, bytes, ferr := fioResult(out)
		if err != nil || ferr != nil || ios == 0 {
			t.Errorf("fio: %v %v\n%.1500s", err, ferr, out)
			return
		}
		t.Logf("fio: %d reads and writes, %d MiB, no error", ios, bytes>>20)
	})
	both.Go(func() {
		cmd := "stress-ng --temp-path stress --verify --metrics-brief --timeout " + seconds +
			" --fstat-dir . --hdd-bytes 16m --fallocate-bytes 16m --chdir-dirs 256 --dentries 256 --readahead-bytes 16m --iomix-bytes 16m --sync-file-bytes 8m"
		for s := range strings.FieldsSeq(stressors) {
			cmd += " --" + s + " 1"
		}
		out, err := try(t, limit+5*time.Minute, path, cmd+" 2>&1")
		if err != nil {
			t.Errorf("stress-ng: %v\n%s", err, out)
			return
		}
		kinds, ops := stressResult(out)
		if kinds < 30 {
			t.Errorf("only %d stressors did something:\n%s", kinds, out)
		}
		t.Logf("stress-ng: %d operations of %d stressors, no error", ops, kinds)
	})
	both.Wait()
	close(over)
	wg.Wait()

	shell(t, "/", fmt.Sprintf("for d in lower tree; do diff -r --no-dereference %s/$d %s/$d; done", b.want, path))
	if st := b.lazyStatus(path); st.Failed != 0 || st.Late != 0 || st.LastError != "" || st.Reads == 0 {
		t.Errorf("status: %+v", st)
	}
	b.stop(agent)
	if left := mountsBelow(b.dir); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// fioResult sums fio's JSON, before which it may print notes.
func fioResult(out string) (ios, bytes int64, err error) {
	_, text, _ := strings.Cut(out, "{")
	var result struct {
		Jobs []struct {
			Name        string `json:"jobname"`
			Error       int    `json:"error"`
			Read, Write struct {
				IOs   int64 `json:"total_ios"`
				Bytes int64 `json:"io_bytes"`
			}
		}
	}
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&result); err != nil {
		return 0, 0, err
	}
	for _, j := range result.Jobs {
		if j.Error != 0 {
			return 0, 0, fmt.Errorf("%s ended with error %d", j.Name, j.Error)
		}
		ios += j.Read.IOs + j.Write.IOs
		bytes += j.Read.Bytes + j.Write.Bytes
	}
	return ios, bytes, nil
}

// stressResult sums the lines of stress-ng's metrics: "... metrc: [1] hdd 42 ...".
func stressResult(out string) (kinds int, ops int64) {
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && strings.HasPrefix(f[1], "metr") {
			if n, err := strconv.ParseInt(f[4], 10, 64); err == nil && n > 0 {
				kinds++
				ops += n
			}
		}
	}
	return kinds, ops
}
