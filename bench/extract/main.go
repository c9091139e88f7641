// Command extract compares `objectmount mount` of a local archive, as a whole
// process, with the extractors that are installed on this machine.
//
//	go run ./bench/extract [-corpora DIR] [-runs 5] [-fs tmpfs,ext4] [-json]
//
// DIR holds *.tar.gz and *.tar. Without it the Go source tree is packed, with
// gzip -6 and plain.
//
// Every run has a fresh file system: on one where the same tree was just
// removed, ext4 searches long for inodes that are not recently deleted, and
// every figure is wrong. ext4 is a loop device over memory (needs root); tmpfs
// is mounted anew. Runs are interleaved, so that a machine that gets slower
// does so for all. Ours does more than the others: it verifies, and writes a
// receipt. As with the others the disk is not waited for.
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

// result is one extractor on one archive and file system.
type result struct {
	Archive string  `json:"archive"`
	FS      string  `json:"fs"`
	Tool    string  `json:"tool"`
	Seconds float64 `json:"seconds"` // median wall time
	Ratio   float64 `json:"of_tar"`  // of tar's median
	RSSKiB  int64   `json:"rss_kib"` // largest resident size of its processes
}

func main() {
	var (
		dir   = flag.String("corpora", "", "directory with *.tar.gz and *.tar (default: made for the occasion)")
		runs  = flag.Int("runs", 5, "runs of each tool on each archive")
		kinds = flag.String("fs", "tmpfs,ext4", "file systems")
		asJ   = flag.Bool("json", false, "print JSON")
	)
	flag.Parse()
	if err := bench(*dir, *runs, strings.Split(*kinds, ","), *asJ); err != nil {
		fmt.Fprintln(os.Stderr, "bench/extract:", err)
		os.Exit(1)
	}
}

func bench(dir string, runs int, kinds []string, asJSON bool) error {
	tmp, err := os.MkdirTemp("", "bench-extract-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if dir == "" {
		dir = filepath.Join(tmp, "corpora")
		fmt.Fprintln(os.Stderr, "packing the Go source tree ...")
		if err := makeCorpora(dir); err != nil {
			return err
		}
	}
	archives, _ := filepath.Glob(filepath.Join(dir, "*.tar*"))
	if len(archives) == 0 {
		return fmt.Errorf("no *.tar.gz and no *.tar in %s", dir)
	}
	binary := filepath.Join(tmp, "objectmount")
	build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/objectmount")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run this from the project's root): %v\n%s", err, out)
	}
	var all []result
	for _, kind := range kinds {
		for _, archive := range archives {
			rs, err := measure(tmp, kind, archive, tools(binary, archive), runs)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", filepath.Base(archive), kind, err)
			}
			all = append(all, rs...)
		}
	}
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(all)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "archive\tfs\ttool\tseconds\tof tar\tRSS MiB\t")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.3f\t%.2f\t%d\t\n", r.Archive, r.FS, r.Tool, r.Seconds, r.Ratio, r.RSSKiB>>10)
	}
	return w.Flush()
}

// tool is a way to extract an archive into the directory that $OUT names.
type tool struct {
	name, command string
}

// tools are ours and the installed peers, tar first.
func tools(binary, archive string) []tool {
	a := "'" + archive + "'"
	list := []tool{{"tar", "mkdir $OUT && tar xf " + a + " -C $OUT"}}
	if strings.HasSuffix(archive, ".gz") {
		for _, z := range []string{"pigz", "igzip", "rapidgzip"} {
			if _, err := exec.LookPath(z); err == nil {
				list = append(list, tool{z + " | tar", "mkdir $OUT && " + z + " -dc " + a + " | tar xf - -C $OUT"})
			}
		}
	}
	if _, err := exec.LookPath("bsdtar"); err == nil {
		list = append(list, tool{"bsdtar", "mkdir $OUT && bsdtar xf " + a + " -C $OUT"})
	}
	return append(list, tool{"objectmount", binary + " mount " + a + " $OUT --state-dir $OUT.state --run-dir $OUT.state >/dev/null"})
}

// measure runs all tools in turn, runs times and once before to warm up.
func measure(tmp, kind, archive string, list []tool, runs int) ([]result, error) {
	times := make([][]float64, len(list))
	rss := make([]int64, len(list))
	for r := range runs + 1 {
		for i, t := range list {
			fmt.Fprintf(os.Stderr, "\r%s on %s: run %d of %d ", filepath.Base(archive), kind, r, runs)
			fs, err := freshFS(tmp, kind)
			if err != nil {
				return nil, err
			}
			seconds, kib, err := once(t, filepath.Join(fs.dir, "out"))
			if ferr := fs.close(); err == nil {
				err = ferr
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}
			if r > 0 {
				times[i] = append(times[i], seconds)
				rss[i] = max(rss[i], kib)
			}
		}
	}
	fmt.Fprintln(os.Stderr)
	var out []result
	for i, t := range list {
		slices.Sort(times[i])
		m := times[i][len(times[i])/2]
		out = append(out, result{filepath.Base(archive), kind, t.name, m, m / times[0][len(times[0])/2], rss[i]})
	}
	return out, nil
}

// once runs a tool and gives its wall time and the resident size of its
// largest process.
func once(t tool, out string) (seconds float64, rssKiB int64, err error) {
	c := exec.Command("sh", "-c", t.command)
	c.Env = append(os.Environ(), "OUT="+out)
	c.Stderr = os.Stderr
	start := time.Now()
	err = c.Run()
	return time.Since(start).Seconds(), maxRSS(c), err
}
