// Command fetch compares how objects are fetched: ours beside curl and aria2c,
// as whole processes, from a server that is as far away as a storage service
// (30 ms to an answer, 90 MB/s for each connection) and from one on the
// loopback. At the end it goes the whole way, from the URL of a .tar.gz to the
// extracted tree.
//
//	go run ./bench/fetch [-size 1024] [-runs 3] [-archive FILE.tar.gz] [-json]
//
// Without -archive a node_modules tree is installed by npm and packed, or
// where that cannot be, the Go source tree. README.md says how to read what it
// prints. Needs root, for file systems in memory.
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
	"time"

	"objectmount/internal/faulttest"
)

// settings of one comparison.
type settings struct {
	size    int64  // bytes of the object
	runs    int    // of each client
	archive string // .tar.gz; "" = made for the occasion
	line    faulttest.Line
	only    string // part of a client's name; "" = all
}

func main() {
	// The server and our client are processes of their own: this program
	// again, under another name.
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "serve":
			exit(serve(os.Args[2:]))
		case "cat":
			exit(cat(os.Args[2:]))
		}
	}
	var s settings
	mib := flag.Int64("size", 1024, "size of the object, in MiB")
	rate := flag.Float64("rate", 90, "MB/s of each connection to the server that is far away")
	flag.DurationVar(&s.line.Latency, "latency", 30*time.Millisecond, "time until that server answers")
	flag.IntVar(&s.runs, "runs", 3, "runs of each client")
	flag.StringVar(&s.archive, "archive", "", "a .tar.gz to fetch and extract (default: made for the occasion)")
	flag.StringVar(&s.only, "only", "", "only clients whose name contains this")
	asJSON := flag.Bool("json", false, "print JSON")
	flag.Parse()
	s.size, s.line.Rate = *mib<<20, int64(*rate*1e6)
	exit(bench(s, *asJSON))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/fetch:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// report is all that is measured.
type report struct {
	Far   []result `json:"far"`   // the object from the far server
	Near  []result `json:"near"`  // the object from the loopback
	Trees []result `json:"trees"` // from a URL of the far server to a tree
	Goals []goal   `json:"goals"`
}

func bench(s settings, asJSON bool) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	warnOfOthers()
	tmp, err := os.MkdirTemp("", "bench-fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	served := filepath.Join(tmp, "served") // what the servers have
	if err := sh(ctx, "mkdir "+served+" && mount -t tmpfs -o size=16g tmpfs "+served); err != nil {
		return err
	}
	defer func() { err = also(err, sh(context.Background(), "umount "+served)) }()

	binary := filepath.Join(tmp, "objectmount")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/objectmount")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build (run this from the project's root): %v\n%s", err, out)
	}
	if err := makeObject(filepath.Join(served, "object"), s.size); err != nil {
		return err
	}
	what, err := makeArchive(ctx, tmp, filepath.Join(served, "tree.tar.gz"), s.archive)
	if err != nil {
		return err
	}
	far, err := startServer(ctx, served, s.line)
	if err != nil {
		return err
	}
	defer far.stop()
	near, err := startServer(ctx, served, faulttest.Line{})
	if err != nil {
		return err
	}
	defer near.stop()

	clients, missing, err := clients()
	if err != nil {
		return err
	}
	for _, m := range missing {
		fmt.Fprintln(os.Stderr, m)
	}
	if err := verify(ctx, clients, near.url, filepath.Join(served, "object")); err != nil {
		return err
	}
	var rep report
	m := &measurement{ctx: ctx, tmp: tmp, runs: s.runs, only: s.only}
	if rep.Far, err = m.measure("far object", clients, far.url+"/object", s.size); err != nil {
		return err
	}
	if rep.Near, err = m.measure("near object", clients, near.url+"/object", s.size); err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(served, "tree.tar.gz"))
	if err != nil {
		return err
	}
	if rep.Trees, err = m.measure("far tree", extractors(binary), far.url+"/tree.tar.gz", info.Size()); err != nil {
		return err
	}
	rep.Goals = goals(rep)
	if asJSON {
		return json.NewEncoder(os.Stdout).Encode(rep)
	}
	return rep.print(s, what)
}

// warnOfOthers says so when the machine has other things to do.
func warnOfOthers() {
	var load float64
	b, _ := os.ReadFile("/proc/loadavg")
	if fmt.Sscan(string(b), &load); load > 1 {
		fmt.Fprintf(os.Stderr, "the machine is busy (load %.1f): figures will be of little worth\n", load)
	}
}
