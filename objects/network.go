package objects

import (
	"context"
	"sync"

	"golang.org/x/time/rate"
)

const (
	// DefaultMemory is what the buffers of one Network hold at most.
	DefaultMemory = 128 << 20
	// MinMemory is the least that Limits.Memory can be set to.
	MinMemory = 4 << 20
	// maxConnections is how many requests one Stream or Download has open at
	// a time. More hardly ever help, and storage services begin to answer
	// SlowDown.
	maxConnections = 16
)

// Limits of a Network. The zero value is right for most.
type Limits struct {
	Bandwidth   int64 // bytes of objects per second, all readings together; 0 = as fast as it goes
	Connections int   // at a time to one host, all readings together; 0 = 16 for each reading
	Memory      int64 // bytes of all buffers together; 0 = DefaultMemory, less than MinMemory is taken for that
}

// Network holds the limits that several Readers share, and what is needed to
// keep them: for all their readings together. A process that reads several objects at once
// makes one and puts it into every ReaderOptions. It is safe for concurrent
// use, and needs no closing.
type Network struct {
	limiter *rate.Limiter // nil: no limit
	burst   int           // bytes that limiter lets through at once
	width   int           // most connections of one reading
	gate    gate
	mem     memory
}

// NewNetwork makes one.
func NewNetwork(l Limits) *Network {
	n := &Network{width: maxConnections}
	if l.Bandwidth > 0 {
		// A tenth of a second's worth at a time, so that the flow is even.
		n.burst = int(min(max(l.Bandwidth/10, 4<<10), 1<<20))
		n.limiter = rate.NewLimiter(rate.Limit(l.Bandwidth), n.burst)
	}
	if l.Connections > 0 {
		n.width = min(l.Connections, maxConnections)
		n.gate.limit = l.Connections
	}
	if l.Memory == 0 {
		l.Memory = DefaultMemory
	}
	n.mem.budget = int(max(l.Memory, MinMemory) / chunkSize)
	return n
}

// cut makes p as short as may be read at once.
func (n *Network) cut(p []byte) []byte {
	if n.limiter != nil && len(p) > n.burst {
		return p[:n.burst]
	}
	return p
}

// spend waits until k bytes that were read are within the limit.
func (n *Network) spend(ctx context.Context, k int) error {
	if n.limiter == nil || k == 0 {
		return nil
	}
	return n.limiter.WaitN(ctx, k)
}

// gate lets only so many connections be used at a time to each host. Single
// reads, for which somebody is waiting, go before the parts of streams, which
// read ahead.
//
// Who has passed may wait for memory but never for another pass, and parts
// pass in their order (crew.work): so the part that a stream's reader waits
// for always gets on, and in the end gives its pass back.
type gate struct {
	limit int // 0: everybody may pass

	mu    sync.Mutex
	hosts map[string]*queue
}

// queue is one host's.
type queue struct {
	inside         int
	urgent, normal []chan struct{} // closed when its owner may pass
}

// pass waits for a place, which leave gives back.
func (g *gate) pass(ctx context.Context, host string, urgent bool) (leave func(), err error) {
	if g.limit == 0 {
		return func() {}, nil
	}
	g.mu.Lock()
	q := g.hosts[host]
	if q == nil {
		if g.hosts == nil {
			g.hosts = map[string]*queue{}
		}
		q = new(queue)
		g.hosts[host] = q
	}
	leave = sync.OnceFunc(func() { g.leave(host, q) })
	if q.inside < g.limit {
		q.inside++
		g.mu.Unlock()
		return leave, nil
	}
	turn := make(chan struct{})
	line := &q.normal
	if urgent {
		line = &q.urgent
	}
	*line = append(*line, turn)
	g.mu.Unlock()

	select {
	case <-turn:
		return leave, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	for i, c := range *line {
		if c == turn {
			*line = append((*line)[:i], (*line)[i+1:]...)
			g.mu.Unlock()
			return nil, context.Cause(ctx)
		}
	}
	g.mu.Unlock()
	leave() // the turn came at the same moment
	return nil, context.Cause(ctx)
}

// leave hands the place to the next in line.
func (g *gate) leave(host string, q *queue) {
	g.mu.Lock()
	defer g.mu.Unlock()
	line := &q.urgent
	if len(*line) == 0 {
		line = &q.normal
	}
	if len(*line) > 0 {
		close((*line)[0])
		*line = (*line)[1:]
		return
	}
	if q.inside--; q.inside == 0 {
		delete(g.hosts, host)
	}
}
