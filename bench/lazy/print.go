package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// print prints the tables.
func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "far: %s to an answer, %d MB/s for each connection\n\n", r.Latency.Round(time.Millisecond), r.Rate/1e6)
	fmt.Fprintln(w, "figure\tis\t\tshould be\t\tnote")
	for _, x := range r.Rows {
		bar, met := "", ""
		if x.Bar != 0 {
			bar = fmt.Sprintf("at most %g", x.Bar)
			if x.Least {
				bar = fmt.Sprintf("at least %g", x.Bar)
			}
			if !x.met() {
				met = "MISSED"
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", x.What, figure(x.Is), x.Unit, bar, met, x.Note)
	}
	if len(r.Scale) > 0 {
		fmt.Fprintln(w, "\nobject\tfile\tmounted\tseconds until it is read\tMB by then\tAPI calls\tranges")
	}
	for _, p := range r.Scale {
		fmt.Fprintf(w, "%.0f MB\t%s\t%s\t%.3f\t%.2f\t%d\t%d\n", float64(p.Size)/1e6, p.File, p.How, p.Seconds, float64(p.Bytes)/1e6, p.Calls, p.Ranges)
	}
	return w.Flush()
}

// figure writes a number with about three digits.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
