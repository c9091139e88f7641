package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// result is one client on one server.
type result struct {
	Client  string  `json:"client"`
	Seconds float64 `json:"seconds"`     // median wall time
	Rate    float64 `json:"mb_s"`        // of the stored object
	CPU     float64 `json:"cpu_seconds"` // user and system, median; without the server's
	RSSKiB  int64   `json:"rss_kib"`     // largest resident size of its processes
}

// measurement runs clients by turns.
type measurement struct {
	ctx  context.Context
	tmp  string
	runs int
	only string
}

// measure runs all clients in turn, runs times, each with a file system in
// memory of its own. The bytes have all been touched before, by verify.
func (m *measurement) measure(name string, list []client, url string, size int64) ([]result, error) {
	list = slices.DeleteFunc(slices.Clone(list), func(c client) bool { return !strings.Contains(c.name, m.only) })
	wall, cpu := make([][]float64, len(list)), make([][]float64, len(list))
	rss := make([]int64, len(list))
	for run := range m.runs {
		for i, c := range list {
			fmt.Fprintf(os.Stderr, "\r\033[K%s: run %d of %d: %s", name, run+1, m.runs, c.name)
			w, p, kib, err := m.once(c, url)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			wall[i], cpu[i], rss[i] = append(wall[i], w), append(cpu[i], p), max(rss[i], kib)
		}
	}
	fmt.Fprint(os.Stderr, "\r\033[K")
	var out []result
	for i, c := range list {
		w := median(wall[i])
		out = append(out, result{Client: c.name, Seconds: w, Rate: float64(size) / 1e6 / w, CPU: median(cpu[i]), RSSKiB: rss[i]})
	}
	return out, nil
}

// once runs a client and gives its wall time, its processor time, and the
// resident size of its largest process.
func (m *measurement) once(c client, url string) (wall, cpu float64, rssKiB int64, err error) {
	out := filepath.Join(m.tmp, "out")
	if err := sh(m.ctx, "mkdir -p "+out+" && mount -t tmpfs -o size=16g tmpfs "+out); err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = also(err, sh(context.Background(), "umount "+out)) }()
	cmd := exec.CommandContext(m.ctx, "sh", "-c", c.command)
	cmd.Env = append(os.Environ(), "OUT="+out, "URL="+url)
	var said bytes.Buffer
	cmd.Stderr = &said
	start := time.Now()
	err = cmd.Run()
	wall = time.Since(start).Seconds()
	if cmd.ProcessState != nil {
		u := cmd.ProcessState.SysUsage().(*syscall.Rusage) // of sh and all below it
		cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
		rssKiB = u.Maxrss
	}
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return wall, cpu, rssKiB, err
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// goal is one of the figures that this is measured for.
type goal struct {
	What  string  `json:"what"`
	Is    float64 `json:"is"`
	Bound string  `json:"bound"`
	Met   bool    `json:"met"`
}

// goals compares the medians with what they should be. A goal whose peer is
// not installed is left out.
func goals(r report) []goal {
	var list []goal
	find := func(rs []result, name string) *result {
		for i := range rs {
			if rs[i].Client == name {
				return &rs[i]
			}
		}
		return nil
	}
	atLeast := func(what string, rs []result, a, b string, bound float64) {
		if x, y := find(rs, a), find(rs, b); x != nil && y != nil {
			is := x.Rate / y.Rate
			list = append(list, goal{what, is, fmt.Sprintf("at least %.2f", bound), is >= bound})
		}
	}
	atMost := func(what string, rs []result, a, b string, bound float64) {
		if x, y := find(rs, a), find(rs, b); x != nil && y != nil {
			is := x.Seconds / y.Seconds
			list = append(list, goal{what, is, fmt.Sprintf("at most %.2f", bound), is <= bound})
		}
	}
	atLeast("far: speed in order, of aria2c's to a file", r.Far, ours, aria, 0.9)
	atLeast("far: speed in order, of one curl's", r.Far, ours, curlNull, 8)
	atLeast("far: speed in order with 32 MiB, of one curl's", r.Far, oursSmall, curlNull, 3)
	if x := find(r.Far, ours); x != nil {
		is := float64(x.RSSKiB) / 1024
		list = append(list, goal{"far: resident MiB of the process", is, "about 128 of buffers, and the program", is <= 128+32})
	}
	if x := find(r.Far, oursSmall); x != nil {
		is := float64(x.RSSKiB) / 1024
		list = append(list, goal{"far: resident MiB with 32 MiB of buffers", is, "about 32 of buffers, and the program", is <= 32+32})
	}
	atMost("near: time in order, of one curl's to /dev/null", r.Near, ours, curlNull, 1)
	atMost("tree: time, of aria2c, then igzip | tar", r.Trees, oursTree, ariaTar, 0.6)
	return list
}

// print prints the tables.
func (r report) print(s settings, archive string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	far := fmt.Sprintf("%s to an answer, %d MB/s for each connection", s.line.Latency, s.line.Rate/1e6)
	table := func(title string, rs []result) {
		fmt.Fprintf(w, "%s\n\nclient\tseconds\tMB/s\tto the first\tCPU s\tRSS MiB\n", title)
		for _, x := range rs {
			fmt.Fprintf(w, "%s\t%.3f\t%.0f\t%.2f\t%.2f\t%d\n", x.Client, x.Seconds, x.Rate, rs[0].Seconds/x.Seconds, x.CPU, x.RSSKiB>>10)
		}
		fmt.Fprintln(w)
	}
	table(fmt.Sprintf("%d MiB, %s", s.size>>20, far), r.Far)
	table(fmt.Sprintf("%d MiB, loopback", s.size>>20), r.Near)
	table(fmt.Sprintf("from a URL to a tree: %s, %s", archive, far), r.Trees)
	fmt.Fprintln(w, "goal\tis\tshould be\t")
	for _, g := range r.Goals {
		met := ""
		if !g.Met {
			met = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s\t%s\n", g.What, g.Is, g.Bound, met)
	}
	return w.Flush()
}
