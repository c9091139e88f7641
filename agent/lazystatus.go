package agent

import (
	"context"
	"fmt"
	"time"
)

// LazyStatus is how a lazy mount is doing. Where nobody answers for the mount
// only the first three are known.
type LazyStatus struct {
	Writable bool   `json:"writable"`
	Layer    string `json:"layer,omitempty"` // where changes are kept
	ReadOnly bool   `json:"read_only"`       // as was asked for

	Served    bool       `json:"served"`                     // whoever serves it has answered: what follows is known
	ServerPID int        `json:"server_pid,omitempty"`       // of a process of its own; 0: the agent serves it
	Index     string     `json:"index,omitempty"`            // where it came from: "cache", "published", "first pass"
	Complete  bool       `json:"complete"`                   // the whole tree is known
	PassBytes int64      `json:"first_pass_bytes,omitempty"` // of the object, read by the first pass so far
	Stream    int64      `json:"stream_bytes"`               // of the uncompressed stream, as far as it is known
	Spans     int        `json:"spans"`                      // pieces that the stream is cut into, as far as it is known
	Present   int        `json:"spans_present"`              // of them in the cache
	Cached    int64      `json:"cached_bytes"`               // disk space that they take
	Fetched   int64      `json:"fetched_bytes"`              // over the network since it was mounted
	Hits      int64      `json:"hits"`                       // reads of spans that were there
	Misses    int64      `json:"misses"`                     // reads of spans that had to be fetched or waited for
	HitRate   float64    `json:"hit_rate"`                   // 0 to 1
	Reads     int64      `json:"reads"`                      // requests of the kernel for content
	Pending   int64      `json:"pending"`                    // requests that wait right now
	Failed    int64      `json:"failed"`                     // requests that were answered with an error, deadlines too
	Late      int64      `json:"deadlines_missed"`           // of them, because it took too long
	LastError string     `json:"last_error,omitempty"`       // of the last request that failed
	LastAt    *time.Time `json:"last_error_time,omitempty"`
	Gone      string     `json:"object_gone,omitempty"` // why what is not in the cache cannot be read

	Prefetch *PrefetchStatus `json:"prefetch,omitempty"`
}

// maxCountSpans is up to how many spans are looked at one by one.
const maxCountSpans = 1 << 18

// lazyStatus is what the receipt knows; nil if it is not of a lazy mount.
func (p *published) lazyStatus() *LazyStatus {
	if p.Lazy == nil {
		return nil
	}
	return &LazyStatus{Writable: p.Lazy.Layer != "", Layer: p.Lazy.Layer, ReadOnly: p.Lazy.ReadOnly}
}

// tellLazy adds what the server of a mount knows, in this process or another.
func (a *Agent) tellLazy(ctx context.Context, it *ItemStatus) {
	if it.Lazy == nil {
		return
	}
	a.mu.Lock()
	s := a.servers[it.Path]
	if s == nil {
		a.mu.Unlock()
		a.askServer(ctx, it)
		return
	}
	defer a.mu.Unlock() // so that the server is not closed meanwhile
	l := *it.Lazy
	s.fill(&l)
	it.Lazy = &l
	info := s.fs.Info()
	l.Writable = info.Writable
	if info.WhyReadOnly != nil && !l.ReadOnly {
		it.Note = errorText(info.WhyReadOnly)
	}
	if n := s.table.NumRows(); n > 0 {
		it.Entries = int64(n - 1)
	}
	if it.State == StateReady && !l.Complete && it.TotalBytes > 0 {
		it.Phase = fmt.Sprintf("first pass, %.0f %%", 100*float64(l.PassBytes)/float64(it.TotalBytes))
	}
	if err := s.whyGone(); err != nil {
		it.tellGone(err)
	}
	if err := s.failed(); err != nil {
		it.State, it.Error, it.Hint = StateFailed, errorText(err), ErrorHint(err)
	}
}

// fill reads all counters.
func (s *server) fill(l *LazyStatus) {
	l.Served, l.Index, l.Complete, l.Stream, l.Spans = true, s.from, s.table.Complete(), s.table.StreamSize(), s.table.NumSpans()
	if s.growing != nil {
		l.PassBytes, _ = s.growing.Progress()
	}
	if s.blob != nil {
		l.Cached = s.blob.Stats().Bytes
		l.Present = s.present(l.Spans)
	}
	r, m := s.reader.Stats(), s.fs.Stats()
	l.Fetched, l.Hits, l.Misses = s.src.fetched(), r.Hits, r.Misses
	l.Prefetch = s.prefetchStatus(r)
	if n := r.Hits + r.Misses; n > 0 {
		l.HitRate = float64(r.Hits) / float64(n)
	}
	l.Reads, l.Pending, l.Failed, l.Late = m.Reads, m.Pending, m.Failed, m.Missed
	if m.LastError != "" {
		at := m.LastErrorTime
		l.LastError, l.LastAt = errorText(fmt.Errorf("%s", m.LastError)), &at
	}
}

// present counts the spans in the cache; of very many it looks at some.
func (s *server) present(spans int) int {
	step := spans/maxCountSpans + 1
	n := 0
	for i := 0; i < spans; i += step {
		if s.blob.HasSpan(i) {
			n++
		}
	}
	return min(n*step, spans)
}
