package index

import (
	"context"
	"sync"
	"time"
)

// Fetching in the background: spans that nobody has asked for yet, one run of
// them after the other, when nobody waits for anything else. Whoever reads a
// span that is under way takes part in its flight; whoever reads another one
// begins a flight of his own, and shares the link with at most the run under
// way. What comes in the background is kept only where there is room for it:
// it takes the place of nothing.

// Traffic is what several Readers know of each other, so that what one fetches
// in the background gives way to what another is asked for. The zero value is
// ready. It is safe for concurrent use.
type Traffic struct {
	mu   sync.Mutex // guards the rest
	busy int        // flights that somebody asked for, and reads that wait
	last time.Time  // when the last of them ended
	idle chan struct{}
	fill chan struct{} // the right to fetch; see turn
}

func (t *Traffic) begin() {
	t.mu.Lock()
	t.busy++
	t.mu.Unlock()
}

func (t *Traffic) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
	if t.busy--; t.busy == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// quiet waits until nothing has been asked for since so long.
func (t *Traffic) quiet(ctx context.Context, since time.Duration) error {
	for {
		t.mu.Lock()
		var idle chan struct{}
		var left time.Duration
		if t.busy == 0 {
			left = since - time.Since(t.last)
		} else {
			if t.idle == nil {
				t.idle = make(chan struct{})
			}
			idle = t.idle
		}
		t.mu.Unlock()
		if idle == nil {
			if left <= 0 {
				return ctx.Err()
			}
			if err := sleep(ctx, left); err != nil {
				return err
			}
			continue
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn waits for the right to fetch in the background, which one run of all
// Readers has at a time.
func (t *Traffic) turn(ctx context.Context) (done func(), err error) {
	t.mu.Lock()
	if t.fill == nil {
		t.fill = make(chan struct{}, 1)
	}
	fill := t.fill
	t.mu.Unlock()
	select {
	case fill <- struct{}{}:
		return func() { <-fill }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SpareSpans are [Spans] that can tell what somebody asked for from what was
// fetched in the background. A *cache.Blob is one.
type SpareSpans interface {
	Spans
	// PutSpare is PutSpan for a span that nobody has asked for. It takes the
	// place of no other.
	PutSpare(i int, data []byte)
	// Room is how many bytes PutSpare can still take.
	Room() int64
}

// put offers a span to Spans.
func (r *Reader) put(i int, data []byte, spare bool) {
	if s, ok := r.spans.(SpareSpans); ok && spare {
		s.PutSpare(i, data)
		return
	}
	r.spans.PutSpan(i, data)
}
