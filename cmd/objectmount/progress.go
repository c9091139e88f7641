package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"objectmount/agent"
)

// linesEvery is how often progress is told where no terminal redraws a bar.
const linesEvery = 10 * time.Second

// progress shows one transfer: a bar at a terminal; elsewhere, one line every
// 10 s, so that a log of a long transfer shows life and a short one nothing.
// Its methods may be called from any goroutine.
type progress struct {
	mu    sync.Mutex
	w     io.Writer
	bar   *progressbar.ProgressBar
	what  string
	total int64 // -1 unknown
	start time.Time
	last  time.Time
	off   bool
	also  string // behind the bytes
	made  bool   // it was a mount that had to be made
}

// newProgress starts showing progress on standard error. total is in bytes,
// -1 when unknown.
func (a *app) newProgress(what string, total int64) *progress {
	now := time.Now()
	p := &progress{w: a.err, what: what, total: total, start: now, last: now, off: a.noProgress}
	if p.off || !isTerminal(a.err) {
		return p
	}
	p.bar = progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription(printable(what)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionFullWidth(),
	)
	return p
}

// mount tells how far a mount has got.
func (p *progress) mount(it agent.ItemStatus) {
	p.mu.Lock()
	if it.State == agent.StateExtracting {
		p.made = true
		p.also = fmt.Sprintf(", %d entries", it.Entries)
		if p.bar != nil {
			p.bar.Describe(printable(p.what) + p.also)
		}
	}
	p.mu.Unlock()
	p.update(it.Bytes, it.TotalBytes)
}

// update tells how many bytes are done, and of how many when that is known
// only now (total of 0 or less leaves it as it is).
func (p *progress) update(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if total > 0 && total != p.total {
		p.total = total
		if p.bar != nil {
			p.bar.ChangeMax64(total)
		}
	}
	switch {
	case p.off:
	case p.bar != nil:
		_ = p.bar.Set64(done) // a failed redraw must not fail the transfer
	case time.Since(p.last) >= linesEvery:
		p.last = time.Now()
		rate := int64(float64(done) / time.Since(p.start).Seconds())
		if p.total > 0 {
			fmt.Fprintf(p.w, "%s: %s of %s (%d%%)%s, %s/s\n", printable(p.what), size(done), size(p.total), done*100/p.total, p.also, size(rate))
		} else {
			fmt.Fprintf(p.w, "%s: %s%s, %s/s\n", printable(p.what), size(done), p.also, size(rate))
		}
	}
}

// done takes the bar away.
func (p *progress) done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
	p.off = true
}

// summary is the last word on a mount: what there is, and what there is not.
func summary(it agent.ItemStatus, made bool, dur time.Duration) string {
	if it.Lazy != nil {
		access := "read-only"
		if it.Lazy.Writable {
			access = "writable"
		}
		return fmt.Sprintf("mounted lazily, %s, from %s, in %s", access, size(it.TotalBytes), took(dur))
	}
	s := fmt.Sprintf("%d entries, %s", it.Entries, size(it.Written))
	if made {
		s += fmt.Sprintf(", from %s in %s (%s/s)", size(it.Bytes), took(dur), size(int64(float64(it.Bytes)/dur.Seconds())))
	} else {
		s += ", already there"
	}
	var skipped []string
	for _, x := range []struct {
		n    int64
		what string
	}{{it.Skipped.Xattrs, "extended attributes"}, {it.Skipped.SetIDs, "set-user-ID and set-group-ID bits"}, {it.Skipped.Owners, "owners"}} {
		if x.n > 0 {
			skipped = append(skipped, fmt.Sprintf("%d %s", x.n, x.what))
		}
	}
	if len(skipped) > 0 {
		s += "; skipped " + strings.Join(skipped, ", ")
	}
	return s
}

// isTerminal is true when w is a terminal that a bar may redraw.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
}
