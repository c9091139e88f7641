// Command extract compares `objectmount mount` of a local archive, as a whole
// process, with the extractors that are installed on this machine.
//
//	go run ./bench/extract [-corpora DIR] [-runs 5] [-fs tmpfs,ext4] [-cpu] [-json]
//
// DIR holds *.tar.gz and *.tar. Without it they are made: the Go source tree, as
// it is and with gzip -6, and eight files like a model's weights, which hardly
// compress.
//
// Every run has a fresh file system: on one where the same tree was just
// removed, ext4 searches long for inodes that are not recently deleted, and
// every figure is wrong. ext4 is a loop device over memory (needs root); tmpfs
// is mounted anew. Runs are interleaved, so that a machine that gets slower
// does so for all. Ours does more than the others: it verifies all checksums,
// writes receipts, and flushes what it made. As the others' is left to the
// kernel, ours goes on behind its end and is not in its time; with --sync it is.
//
// Two rows are no extractors. "inflate alone" decodes to nowhere with our
// decoder: nothing that decodes on one thread can be faster. "tar of the plain
// tar" makes the files and decodes nothing. With strace installed, the system
// calls of ours are counted too.
//
// On a machine that others use as well, wall time says little; -cpu compares by
// processor time of all processes, which counts against us where we use two
// processors at once.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// result is one way to extract one archive on one file system.
type result struct {
	Archive string  `json:"archive"`
	FS      string  `json:"fs"`
	Tool    string  `json:"tool"`
	Seconds float64 `json:"seconds"`              // median wall time
	CPU     float64 `json:"cpu_seconds"`          // median processor time of all its processes
	Ours    float64 `json:"ours_of_it"`           // our median by this one's, of what is compared
	Bar     float64 `json:"bar,omitempty"`        // what Ours should be at most; 0: nothing is asked
	RSSKiB  int64   `json:"rss_kib"`              // largest resident size of its processes
	Calls   float64 `json:"calls,omitempty"`      // system calls for each file, all of them
	File    float64 `json:"file_calls,omitempty"` // those that make files and directories
}

func main() {
	var (
		dir   = flag.String("corpora", "", "directory with *.tar.gz and *.tar (default: made for the occasion)")
		runs  = flag.Int("runs", 5, "runs of each tool on each archive")
		kinds = flag.String("fs", "tmpfs,ext4", "file systems")
		cpu   = flag.Bool("cpu", false, "compare by processor time")
		asJ   = flag.Bool("json", false, "print JSON")
	)
	flag.Parse()
	all, err := bench(*dir, *runs, strings.Split(*kinds, ","), *cpu)
	if err == nil && *asJ {
		err = json.NewEncoder(os.Stdout).Encode(all)
	} else if err == nil {
		err = print(all)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/extract:", err)
		os.Exit(1)
	}
}

func bench(dir string, runs int, kinds []string, cpu bool) ([]result, error) {
	tmp, err := os.MkdirTemp("", "bench-extract-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	b := bencher{tmp: tmp, runs: runs, cpu: cpu, binary: filepath.Join(tmp, "objectmount"), gunzip: filepath.Join(tmp, "gunzip")}
	if info, err := os.Stderr.Stat(); err == nil {
		b.shows = info.Mode()&os.ModeCharDevice != 0 // a terminal, not a log
	}
	if err := build(b.binary, "./cmd/objectmount"); err != nil {
		return nil, err
	}
	if err := build(b.gunzip, "./bench/inflate/gunzip"); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = filepath.Join(tmp, "corpora")
		fmt.Fprintln(os.Stderr, "packing the Go source tree and weights ...")
		if err := makeCorpora(dir); err != nil {
			return nil, err
		}
	}
	archives, _ := filepath.Glob(filepath.Join(dir, "*.tar*"))
	if len(archives) == 0 {
		return nil, fmt.Errorf("no *.tar.gz and no *.tar in %s", dir)
	}
	var all []result
	for _, kind := range kinds {
		for _, archive := range archives {
			rs, err := b.race(kind, archive)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", filepath.Base(archive), kind, err)
			}
			all = append(all, rs...)
		}
	}
	return all, nil
}

func build(out, pkg string) error {
	c := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run this from the project's root): %v\n%s", err, text)
	}
	return nil
}

type bencher struct {
	tmp, binary, gunzip string
	runs                int
	cpu                 bool
	shows               bool // how far it is, on stderr
}

// race runs all tools in turn, runs times and once before to warm up.
func (b *bencher) race(kind, archive string) ([]result, error) {
	list, err := b.tools(kind, archive)
	if err != nil {
		return nil, err
	}
	wall, cpu, rss := make([][]float64, len(list)), make([][]float64, len(list)), make([]int64, len(list))
	for r := range b.runs + 1 {
		for i, t := range list {
			if b.shows {
				fmt.Fprintf(os.Stderr, "\r%s on %s: run %d of %d ", filepath.Base(archive), kind, r, b.runs)
			}
			u, err := b.once(kind, t.command)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			if r > 0 {
				wall[i], cpu[i], rss[i] = append(wall[i], u.wall), append(cpu[i], u.cpu), max(rss[i], u.rssKiB)
			}
		}
	}
	if b.shows {
		fmt.Fprintln(os.Stderr)
	}
	var out []result
	compared := wall
	if b.cpu {
		compared = cpu
	}
	for i, t := range list {
		out = append(out, result{
			Archive: filepath.Base(archive), FS: kind, Tool: t.name, Bar: t.bar, RSSKiB: rss[i],
			Seconds: median(wall[i]), CPU: median(cpu[i]), Ours: median(compared[0]) / median(compared[i]),
		})
	}
	return out, b.strace(kind, archive, &out[0])
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// usage is what a command took.
type usage struct {
	wall, cpu float64 // seconds
	rssKiB    int64   // of its largest process
}

// once runs a shell command with a fresh file system, where $OUT does not exist
// yet.
func (b *bencher) once(kind, command string) (u usage, err error) {
	fs, err := freshFS(b.tmp, kind)
	if err != nil {
		return u, err
	}
	c := exec.Command("sh", "-c", command)
	c.Env = append(os.Environ(), "OUT="+filepath.Join(fs.dir, "out"))
	c.Stderr = os.Stderr
	start := time.Now()
	err = c.Run()
	u.wall = time.Since(start).Seconds()
	if c.ProcessState != nil {
		u.cpu = (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds()
		u.rssKiB = maxRSS(c)
	}
	if ferr := fs.close(); err == nil {
		err = ferr
	}
	return u, err
}

func print(all []result) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "archive\tfs\ttool\tseconds\tcpu\tRSS MiB\tours of it\tbar\t")
	for _, r := range all {
		ours, bar := "", ""
		if r.Tool != oursName {
			ours = fmt.Sprintf("%.2f", r.Ours)
		}
		if r.Bar > 0 {
			bar = fmt.Sprintf("%.2f", r.Bar)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3f\t%.3f\t%d\t%s\t%s\t\n", r.Archive, r.FS, r.Tool, r.Seconds, r.CPU, r.RSSKiB>>10, ours, bar)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range all {
		if r.Calls > 0 {
			fmt.Printf("%s on %s: %.1f system calls a file make files and directories, %.1f with all others\n", r.Archive, r.FS, r.File, r.Calls)
		}
	}
	return nil
}
