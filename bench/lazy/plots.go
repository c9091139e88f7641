package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// plots draws the growth of time and traffic with gnuplot: plots FILE.json DIR
// writes DIR/lazy-time.svg and DIR/lazy-bytes.svg.
func plots(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: plots FILE.json DIR")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if len(r.Scale) == 0 {
		return fmt.Errorf("%s: no sizes were measured: make bench-lazy", args[0])
	}
	if _, err := exec.LookPath("gnuplot"); err != nil {
		return errors.New("gnuplot is not installed (Debian: gnuplot-nox)")
	}
	seconds := func(p point) float64 { return p.Seconds }
	sent := func(p point) float64 { return float64(p.Bytes) / 1e6 }
	return errors.Join(
		r.plot(filepath.Join(args[1], "lazy-time.svg"), "Seconds until the file in the middle is read", seconds),
		r.plot(filepath.Join(args[1], "lazy-bytes.svg"), "MB fetched by then", sent))
}

// plot draws y of the files in the middle against the size of the object.
func (r *report) plot(name, title string, y func(point) float64) error {
	var script bytes.Buffer
	// The ground is white, so that it can be read on a dark page, too.
	fmt.Fprintf(&script, `set terminal svg size 560,380 dynamic font 'sans-serif,13' background rgb 'white'
set output '%s'
set title '%s'
set xlabel 'size of the archive, MB'
set logscale xy
set grid xtics ytics lc rgb '#dddddd'
set border 3 lc rgb '#444444'
set tics nomirror
set format y '%%g'
set key top left reverse Left
`, name, title)
	ways := []struct{ how, color string }{{howExtract, "#999999"}, {howNoIndex, "#e08214"}, {howIndex, "#1b6fb3"}}
	for i, way := range ways {
		fmt.Fprintf(&script, "$way%d <<END\n", i)
		for _, p := range r.Scale {
			if p.How == way.how && p.File == "middle" {
				fmt.Fprintf(&script, "%g %g\n", float64(p.Size)/1e6, y(p))
			}
		}
		fmt.Fprintln(&script, "END")
	}
	fmt.Fprint(&script, "plot ")
	for i, way := range ways {
		if i > 0 {
			fmt.Fprint(&script, ", ")
		}
		fmt.Fprintf(&script, "$way%d with linespoints lw 2.5 pt 7 ps 0.6 lc rgb '%s' title '%s'", i, way.color, way.how)
	}
	fmt.Fprintln(&script)
	c := exec.Command("gnuplot")
	c.Stdin = &script
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("gnuplot: %w: %s", err, out)
	}
	return nil
}
