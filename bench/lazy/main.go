// Command lazy measures what a lazy mount is good for: how soon a file can be
// read, how much travels for it, and what reading costs afterwards; beside an
// extraction by the same binary, and beside the lazy mounts of others that are
// installed.
//
//	go run ./bench/lazy [-runs 5] [-max 1024] [-only first,scale,tree,many,large,peers] [-out FILE.json]
//	go run ./bench/lazy plots FILE.json DIR
//
// The store is the project's own, in a process of its own, as far away as a
// storage service is (30 ms to an answer, 90 MB/s for each connection). It
// counts the requests and the bytes it sends. Every mount is a command of its
// own with a cache and a state of its own, and its time begins before that
// command is started. README.md says how to read what is printed. Needs root.
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
	"slices"
	"strings"
	"time"

	"objectmount/internal/faulttest"
)

// report is all that is measured; plots are drawn from it.
type report struct {
	Latency time.Duration `json:"latency"` // of the far store, nanoseconds
	Rate    int64         `json:"rate"`    // of each connection to it, bytes per second
	Rows    []row         `json:"rows"`
	Scale   []point       `json:"scale,omitempty"`
}

// row is one figure and what it should be.
type row struct {
	What  string  `json:"what"`
	Is    float64 `json:"is"`
	Unit  string  `json:"unit"`
	Bar   float64 `json:"bar,omitempty"` // 0: nothing is asked
	Least bool    `json:"least,omitempty"`
	Note  string  `json:"note,omitempty"`
}

// met says whether the figure is what it should be.
func (r row) met() bool {
	return r.Bar == 0 || r.Least && r.Is >= r.Bar || !r.Least && r.Is <= r.Bar
}

// bench is one run of the program.
type bench struct {
	ctx    context.Context
	tmp    string
	binary string
	runs   int
	maxMiB int64
	line   faulttest.Line
	store  *server // near, for putting things there, and far away
	tree1  *corpus // the Go source tree, once it is packed
	rep    report
}

// parts of the measurement, in order.
var parts = []struct {
	name string
	run  func(*bench) error
}{
	{"first", (*bench).first},
	{"tree", (*bench).tree},
	{"many", (*bench).many},
	{"large", (*bench).large},
	{"scale", (*bench).scale},
	{"peers", (*bench).peers},
}

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			exit(serve(os.Args[2:]))
		case "plots":
			exit(plots(os.Args[2:]))
		}
	}
	b := &bench{line: faulttest.Line{}}
	rate := flag.Float64("rate", 90, "MB/s of each connection to the store")
	flag.DurationVar(&b.line.Latency, "latency", 30*time.Millisecond, "time until the store answers")
	flag.IntVar(&b.runs, "runs", 5, "runs of each measurement; the median counts")
	flag.Int64Var(&b.maxMiB, "max", 1024, "size of the largest object, in MiB")
	only := flag.String("only", "", "parts, by comma (default: all)")
	out := flag.String("out", "", "write the figures to this file, as JSON")
	flag.Parse()
	b.line.Rate = int64(*rate * 1e6)
	exit(b.all(*only, *out))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/lazy:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (b *bench) all(only, out string) (err error) {
	var stop func()
	b.ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if b.tmp, err = os.MkdirTemp("", "bench-lazy-"); err != nil {
		return err
	}
	defer func() { err = also(err, b.clean()) }()
	b.binary = filepath.Join(b.tmp, "objectmount")
	build := exec.CommandContext(b.ctx, "go", "build", "-trimpath", "-o", b.binary, "./cmd/objectmount")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run this from the project's root): %v\n%s", err, text)
	}
	data := filepath.Join(b.tmp, "store")
	if err := sh(b.ctx, "mkdir "+data+" && mount -t tmpfs -o size=12g tmpfs "+data); err != nil {
		return err
	}
	s, err := startServer(b.ctx, data, b.line)
	if err != nil {
		return err
	}
	defer s.stop()
	b.store = s
	b.rep.Latency, b.rep.Rate = b.line.Latency, b.line.Rate
	for _, p := range parts {
		if only != "" && !slices.Contains(strings.Split(only, ","), p.name) {
			continue
		}
		if err := p.run(b); err != nil {
			return also(b.rep.print(os.Stdout), fmt.Errorf("%s: %w", p.name, err))
		}
	}
	b.say("")
	if out != "" {
		text, err := json.MarshalIndent(b.rep, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return b.rep.print(os.Stdout)
}

// clean takes away what is left: after an error that may be mounts, too.
func (b *bench) clean() error {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	lines := strings.Split(string(table), "\n")
	for _, line := range slices.Backward(lines) { // the inner ones first
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], b.tmp+"/") {
			err = also(err, sh(context.Background(), "umount -l '"+f[1]+"'"))
		}
	}
	return also(also(err, b.alone()), os.RemoveAll(b.tmp))
}

// add notes a figure.
func (b *bench) add(what string, is float64, unit string, bar float64, note string) {
	b.rep.Rows = append(b.rep.Rows, row{What: what, Is: is, Unit: unit, Bar: bar, Note: note})
}

// addLeast notes a figure that should not be smaller than bar.
func (b *bench) addLeast(what string, is float64, unit string, bar float64, note string) {
	b.rep.Rows = append(b.rep.Rows, row{What: what, Is: is, Unit: unit, Bar: bar, Least: true, Note: note})
}

// say tells what is going on: in place at a terminal, not at all elsewhere.
func (b *bench) say(format string, args ...any) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\033[K"+format, args...)
	}
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

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
