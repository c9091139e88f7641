// Command inflate compares gzip decoders as whole processes: ours, built in
// its variants, beside the peers that are installed on this machine. It prints
// a table for each corpus, and what resume points cost and give.
//
//	go run ./bench/inflate [-corpora DIR] [-runs 7] [-json] [-cpu 1]
//
// DIR holds gzip files (*.gz). Without it, corpora of source code, JSON lines
// and floating-point numbers are made in a temporary directory.
//
// Runs are interleaved, so that a machine that gets slower does so for all,
// and a run during which something else had the processor is done again.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// A report is all that is measured on one corpus.
type report struct {
	Corpus     string        `json:"corpus"`
	Bytes      int64         `json:"bytes"`      // decompressed
	Compressed int64         `json:"compressed"` // as given
	Decoders   []result      `json:"decoders"`
	Points     []pointReport `json:"points,omitempty"`
}

func main() {
	var (
		dir   = flag.String("corpora", "", "directory with *.gz (default: made for the occasion)")
		runs  = flag.Int("runs", 7, "runs of each decoder on each corpus")
		asJ   = flag.Bool("json", false, "print JSON")
		cpu   = flag.Int("cpu", -1, "pin one-thread runs to this processor with taskset")
		size  = flag.Int("mib", 96, "size of each corpus that is made, in MiB")
		match = flag.String("only", "", "only decoders whose name contains this")
		by    = flag.String("by", "wall", "compare by wall clock, or by cpu (user and system) time where the machine is shared")
	)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	tmp, err := os.MkdirTemp("", "bench-inflate-")
	if err != nil {
		fail(err)
	}
	defer os.RemoveAll(tmp)

	if *dir == "" {
		*dir = filepath.Join(tmp, "corpora")
		fmt.Fprintln(os.Stderr, "making corpora ...")
		if err := makeCorpora(*dir, *size); err != nil {
			os.RemoveAll(tmp)
			fail(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(*dir, "*.gz"))
	if len(files) == 0 {
		os.RemoveAll(tmp)
		fail(fmt.Errorf("no *.gz in %s", *dir))
	}
	decoders, err := decoders(tmp, *cpu)
	if err != nil {
		os.RemoveAll(tmp)
		fail(err)
	}
	decoders = slices.DeleteFunc(decoders, func(d decoder) bool { return !strings.Contains(d.name, *match) })

	var all []report
	for _, name := range files {
		fmt.Fprintf(os.Stderr, "%s ...\n", filepath.Base(name))
		rep, err := measure(ctx, name, decoders, *runs)
		if err != nil {
			os.RemoveAll(tmp)
			fail(fmt.Errorf("%s: %w", name, err))
		}
		all = append(all, rep)
		if !*asJ {
			print(rep, *by == "cpu")
		}
	}
	if *asJ {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		enc.Encode(all)
	} else {
		fmt.Printf("%s %s/%s, %d processors\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bench/inflate:", err)
	os.Exit(1)
}

func print(rep report, cpu bool) {
	fmt.Printf("\n%s: %d bytes, compressed %d (%.2f:1)\n", rep.Corpus, rep.Bytes, rep.Compressed, float64(rep.Bytes)/float64(rep.Compressed))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "decoder\tmedian s\tbest s\tcpu s\tMB/s\tto klauspost\tto igzip\t")
	for _, d := range rep.Decoders {
		fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.3f\t%.0f\t%s\t%s\t\n", d.Name, d.Median, d.Best, d.CPU, float64(rep.Bytes)/1e6/d.time(cpu),
			ratio(rep, d, "klauspost", cpu), ratio(rep, d, "igzip", cpu))
	}
	w.Flush()
	if len(rep.Points) == 0 {
		return
	}
	fmt.Println()
	fmt.Fprintln(w, "points each\tpoints\traw windows\tindex\tof the output\t1 worker MB/s\t2 workers\tgain\tcold 4 KiB p50 ms\tp90\tp99\t")
	for _, p := range rep.Points {
		fmt.Fprintf(w, "%d KiB\t%d\t%d\t%d\t%.3f %%\t%.0f\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", p.Spacing>>10, p.Points, p.RawWindows, p.IndexBytes,
			100*float64(p.IndexBytes)/float64(rep.Bytes), p.OneWorker, p.TwoWorkers, p.TwoWorkers/p.OneWorker, p.ColdP50, p.ColdP90, p.ColdP99)
	}
	w.Flush()
}

// ratio is d's time in those of the named decoder.
func ratio(rep report, d result, name string, cpu bool) string {
	for _, o := range rep.Decoders {
		if o.Name == name {
			return fmt.Sprintf("%.3f", d.time(cpu)/o.time(cpu))
		}
	}
	return "-"
}

func measure(ctx context.Context, name string, decoders []decoder, runs int) (report, error) {
	info, err := os.Stat(name)
	if err != nil {
		return report{}, err
	}
	rep := report{Corpus: strings.TrimSuffix(filepath.Base(name), ".gz"), Compressed: info.Size()}
	if rep.Bytes, err = length(name); err != nil {
		return report{}, err
	}
	if rep.Decoders, err = race(ctx, name, decoders, runs); err != nil {
		return report{}, err
	}
	for _, spacing := range []int64{1 << 20, 4 << 20} {
		p, err := measurePoints(ctx, name, spacing, runs)
		if err != nil {
			return report{}, err
		}
		rep.Points = append(rep.Points, p)
	}
	return rep, nil
}

// build builds the small decoder ./bench/inflate/gunzip as out.
func build(out, tags string, env ...string) error {
	cmd := exec.Command("go", "build", "-tags", tags, "-o", out, "objectmount/bench/inflate/gunzip")
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
