package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// A decoder is a command that takes a file's name last and decodes it to its
// standard output, or to nowhere.
type decoder struct {
	name string
	argv []string
}

// result is what the runs of one decoder took.
type result struct {
	Name   string    `json:"name"`
	Median float64   `json:"median_seconds"`
	Best   float64   `json:"best_seconds"`
	CPU    float64   `json:"cpu_seconds"` // median of user and system time
	Runs   []float64 `json:"runs_seconds"`
}

func (r result) time(cpu bool) float64 {
	if cpu {
		return r.CPU
	}
	return r.Median
}

// decoders builds ours into dir and finds the peers that are installed.
func decoders(dir string, cpu int) ([]decoder, error) {
	variants := []struct{ name, tags, env string }{{"ours", "", "GOAMD64=v1"}, {"ours-purego", "purego", "GOAMD64=v1"}}
	if runtime.GOARCH == "amd64" {
		variants = append(variants, struct{ name, tags, env string }{"ours-v3", "", "GOAMD64=v3"})
	}
	var all []decoder
	for _, v := range variants {
		bin := filepath.Join(dir, v.name)
		if err := build(bin, v.tags, v.env); err != nil {
			return nil, err
		}
		all = append(all, decoder{v.name, []string{bin}})
		if v.name == "ours" {
			all = append(all,
				decoder{"ours, points", []string{bin, "-with", "points"}},
				decoder{"klauspost", []string{bin, "-with", "klauspost"}},
				decoder{"compress/gzip", []string{bin, "-with", "std"}})
		}
	}
	for _, p := range []decoder{
		{"igzip", []string{"igzip", "-dc"}},
		{"libdeflate", []string{"libdeflate-gzip", "-dc"}},
		{"pigz", []string{"pigz", "-dc"}},
		{"gzip", []string{"gzip", "-dc"}},
		{"rapidgzip -P1", []string{"rapidgzip", "-P1", "-dc"}},
	} {
		if path, err := exec.LookPath(p.argv[0]); err == nil {
			p.argv[0] = path
			all = append(all, p)
		} else {
			fmt.Fprintf(os.Stderr, "%s is not installed\n", p.argv[0])
		}
	}
	if cpu >= 0 {
		for i := range all {
			all[i].argv = append([]string{"taskset", "-c", strconv.Itoa(cpu)}, all[i].argv...)
		}
	}
	return all, nil
}

// race runs the decoders in turn.
func race(ctx context.Context, name string, decoders []decoder, runs int) ([]result, error) {
	all := make([]result, len(decoders))
	cpus := make([][]float64, len(decoders))
	for range runs {
		for i, d := range decoders {
			// Where the wall clock is well ahead of the processor's, someone
			// else had the processor; the least disturbed of three counts.
			wall, lost := 0.0, math.Inf(1)
			for try := 0; try < 3 && lost > 0.03; try++ {
				w, cpu, err := run(ctx, d, name)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", d.name, err)
				}
				if l := (w - cpu - 0.002) / w; l < lost {
					wall, lost = w, l
				}
				cpus[i] = append(cpus[i], cpu)
			}
			all[i].Runs = append(all[i].Runs, wall)
		}
	}
	for i, d := range decoders {
		all[i].Name = d.name
		all[i].Best = slices.Min(all[i].Runs)
		all[i].Median = median(all[i].Runs)
		all[i].CPU = median(cpus[i])
	}
	return all, nil
}

// run gives a run's wall-clock and processor seconds.
func run(ctx context.Context, d decoder, name string) (wall, cpu float64, err error) {
	cmd := exec.CommandContext(ctx, d.argv[0], append(slices.Clone(d.argv[1:]), name)...)
	cmd.Stderr = os.Stderr // no Stdout: the null device
	start := time.Now()
	err = cmd.Run()
	wall = time.Since(start).Seconds()
	if err != nil {
		return 0, 0, err
	}
	cpu = cmd.ProcessState.UserTime().Seconds() + cmd.ProcessState.SystemTime().Seconds()
	return wall, cpu, nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	if len(s)%2 == 1 {
		return s[len(s)/2]
	}
	return (s[len(s)/2-1] + s[len(s)/2]) / 2
}
