package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"objectmount/internal/archivetest"
)

// lazyEntries is how many files millionFiles writes, in directories of 1000.
const lazyEntries = 1_000_000

func millionName(i int) string { return fmt.Sprintf("d%03d/f%06d", i/1000, i) }

// millionFiles are files whose content is their name, and some more.
func millionFiles(w io.Writer) {
	block := archivetest.Entry{Size: 300}.Bytes()
	body := make([]byte, archivetest.BlockSize)
	for i := range lazyEntries {
		clear(block[:100])
		copy(block[:100], millionName(i))
		archivetest.Checksum(block)
		copy(body[:300], millionName(i))
		w.Write(block)
		w.Write(body)
	}
}

// readMillion is a program: read-million DIR SEED TIMES. It reads files at
// random and drops what the kernel keeps of them.
func readMillion() {
	var seed uint64
	var times int
	_, err := fmt.Sscan(os.Args[2]+" "+os.Args[3], &seed, &times)
	rnd := rand.New(rand.NewPCG(seed, 3))
	for i := 0; err == nil && i < times; i++ {
		name := millionName(rnd.IntN(lazyEntries))
		var b []byte
		if b, err = os.ReadFile(filepath.Join(os.Args[1], name)); err == nil && (len(b) != 300 || string(b[:len(name)]) != name) {
			err = fmt.Errorf("%s holds %.40q", name, b)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestLazyMemory: a mount of a million entries takes at most 96 MiB with eight
// readers, of which the index is 60, mapped. While the first pass makes that it
// takes more: it has the rows in memory, and what comes faster than it is read.
func TestLazyMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("a million entries take a while")
	}
	b := newLazyBox(t)
	archive := b.path("a.tgz")
	// Made by another process, see TestExtractMemory.
	if out, err := exec.Command("memory-archive", "a million files", archive).CombinedOutput(); err != nil {
		t.Fatalf("make the archive: %v\n%s", err, out)
	}
	id := b.serve(archive)
	for _, x := range []struct {
		index    string
		limitKiB int64
	}{{"first pass", 176 << 10}, {"cached", 96 << 10}} {
		t.Run(x.index, func(t *testing.T) {
			path := b.mountLazily(t, id, "lazy", "--read-only")
			pids := servers(path)
			if len(pids) != 1 {
				t.Fatalf("%d servers", len(pids))
			}
			var cmds []*exec.Cmd
			for i := range 8 {
				cmd := exec.Command("read-million", path, fmt.Sprint(i), "500")
				cmd.Stderr = os.Stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill() })
				cmds = append(cmds, cmd)
			}
			for _, cmd := range cmds {
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
			}
			readers := peakKiB(t, pids[0])
			if got := shell(t, path, "find . | wc -l"); got != fmt.Sprintln(lazyEntries+1001) {
				t.Errorf("%s names", got)
			}
			peak := peakKiB(t, pids[0])
			t.Logf("%d KiB at most with readers, %d after a find", readers, peak)
			if peak > x.limitKiB {
				t.Errorf("it held %d KiB, over %d", peak, x.limitKiB)
			}
			b.unmount(t, path)
		})
	}
}
