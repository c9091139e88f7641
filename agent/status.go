package agent

import (
	"math"
	"time"

	"objectmount/extract"
	"objectmount/objects"
)

// State is where an item is in its life.
type State string

// The states of an item. See the package comment for the ways between them.
const (
	StatePending    State = "pending"    // its turn has not come; Phase says what it waits for
	StateFetching   State = "fetching"   // asking for the object
	StateExtracting State = "extracting" // bytes are arriving and being unpacked
	StateIndexing   State = "indexing"   // looking for, or making, the index of a lazy mount
	StateReady      State = "ready"      // it is there
	StateFailed     State = "failed"     // it is not, and Error says why
	StateRemoving   State = "removing"   // it is being taken down
)

// ItemStatus is how one mount is doing. Its JSON is part of the interface:
// keys are added, never renamed.
type ItemStatus struct {
	Path          string          `json:"path"`
	RealPath      string          `json:"real_path,omitempty"` // where the files are: a file may have been put into the directory Path; set when ready
	ObjectID      string          `json:"object_id,omitempty"`
	Source        string          `json:"source,omitempty"` // where it was asked for: "file:line:column", or the local file, or the URL without its query
	Origin        Origin          `json:"origin"`
	State         State           `json:"state"`
	Phase         string          `json:"phase,omitempty"`    // what is going on within the state, in words
	Bytes         int64           `json:"bytes"`              // read so far, of the object as it is stored
	TotalBytes    int64           `json:"total_bytes"`        // size of the object as it is stored; 0: not known yet
	Written       int64           `json:"written_bytes"`      // content written to files
	Entries       int64           `json:"entries"`            // files, directories and links made
	Skipped       extract.Skipped `json:"skipped,omitzero"`   // what the archive has and the files have not; set when ready
	Percent       float64         `json:"percent"`            // 0 to 100
	RatePerSecond float64         `json:"rate_per_second"`    // bytes of the object, over the last seconds
	Error         string          `json:"error,omitempty"`    // of the last try
	Hint          string          `json:"hint,omitempty"`     // what to do about it
	NextTry       *time.Time      `json:"next_try,omitempty"` // of a failed one
	Since         time.Time       `json:"since"`              // when it came into this state
	Required      bool            `json:"required"`           // readiness waits for it
	// Unflushed: it is ready, and a power cut could still take it: then it is
	// made again at the next start.
	Unflushed bool `json:"unflushed,omitempty"`
	// Bound: no rename could put it there, so it is a bind mount, which every
	// start makes again.
	Bound bool `json:"bind_mount,omitempty"`
	// Note says why a mount is less than was asked for: extracted, not lazy;
	// read-only, not writable.
	Note string      `json:"note,omitempty"`
	Lazy *LazyStatus `json:"lazy,omitempty"` // of a lazy mount
}

// Status is how the agent is doing.
type Status struct {
	Version   string       `json:"version,omitempty"`
	SpecError *SpecError   `json:"spec_error,omitempty"`   // why the spec as it is now is not the one in force
	Items     []ItemStatus `json:"items"`                  // in the order of their paths
	Kept      []KeptLayer  `json:"kept_changes,omitempty"` // changes to lazy mounts that are no longer there
	Ready     bool         `json:"ready"`                  // every required mount is there
	PID       int          `json:"pid"`
	Started   time.Time    `json:"started"`
}

// maxError bounds an error's text in a status, in bytes: names in archives
// are made by strangers and may be long.
const maxError = 2048

// errorText is what may be said of an error outside the program.
func errorText(err error) string {
	text := objects.Redact(err).Error()
	if len(text) > maxError {
		text = text[:maxError] + "..."
	}
	return text
}

// rateWindow is over how long the rate is averaged.
const rateWindow = 3 * time.Second

// meter measures a rate from a count that grows.
type meter struct {
	last  int64
	at    time.Time
	speed float64 // per second
}

// add takes the count at a time and gives the rate, averaged so that older
// seconds count less and less.
func (m *meter) add(count int64, now time.Time) float64 {
	if m.at.IsZero() || count < m.last {
		m.last, m.at, m.speed = count, now, 0
		return 0
	}
	dt := now.Sub(m.at).Seconds()
	if dt <= 0 {
		return m.speed
	}
	weight := 1 - math.Exp(-dt/rateWindow.Seconds())
	if m.speed == 0 {
		weight = 1 // nothing to average with yet
	}
	m.speed += weight * (float64(count-m.last)/dt - m.speed)
	m.last, m.at = count, now
	return m.speed
}

// item is a mount in the agent's care. What the scheduler keeps about it is
// in task; this is what it tells the world.
type item struct {
	a      *Agent
	status ItemStatus // guarded by a.mu
	meter  meter      // used by the goroutine that works on the item
}

func (a *Agent) newItem(path string, m *Mount, origin Origin) *item {
	it := &item{a: a}
	it.status = ItemStatus{Path: path, State: StatePending, Since: time.Now(), Origin: origin}
	if m != nil {
		it.describe(m)
	}
	return it
}

// describe fills in what the mount says. a.mu is held, or nobody else knows
// the item yet.
func (it *item) describe(m *Mount) {
	it.status.ObjectID, it.status.Source, it.status.Required = m.ObjectID, m.Source(), m.Required
}

// tell changes the status and passes it on.
func (it *item) tell(change func(*ItemStatus)) {
	it.a.mu.Lock()
	change(&it.status)
	now := it.status
	it.a.mu.Unlock()
	if it.a.cfg.Progress != nil {
		it.a.cfg.Progress(now)
	}
}

// enter brings the item into a state, or only into another phase of it.
func (it *item) enter(state State, phase string) {
	it.tell(func(s *ItemStatus) {
		if s.State != state {
			s.State, s.Since = state, time.Now()
		}
		s.Phase = phase
		if state != StateExtracting {
			s.RatePerSecond = 0
		}
		if state == StateFetching {
			s.Bytes, s.TotalBytes, s.Written, s.Entries, s.Percent = 0, 0, 0, 0, 0
			it.meter = meter{}
		}
	})
}

// progress is told by the extraction.
func (it *item) progress(p extract.Progress) {
	rate := it.meter.add(p.BytesIn, time.Now())
	it.a.moved.Add(1)
	it.tell(func(s *ItemStatus) {
		s.Bytes, s.Written, s.Entries, s.RatePerSecond = p.BytesIn, p.Bytes, p.Entries, rate
		if s.TotalBytes > 0 {
			s.Percent = 100 * float64(p.BytesIn) / float64(s.TotalBytes)
		}
	})
}

// ready is told when everything is there, as the receipt describes it.
func (it *item) ready(rc *receipt) {
	p := rc.Published
	it.tell(func(s *ItemStatus) {
		if s.State != StateReady {
			s.State, s.Since = StateReady, time.Now()
		}
		s.Phase, s.Error, s.Hint, s.NextTry = "", "", "", nil
		s.Bytes, s.TotalBytes, s.Written, s.Entries = p.Identity.Size, p.Identity.Size, p.Bytes, p.Entries
		s.Percent, s.RatePerSecond, s.RealPath, s.Skipped = 100, 0, p.RealPath, p.Skipped
		s.Unflushed, s.Bound = rc.unflushed != nil, p.Tree != ""
		s.Lazy, s.Note = p.lazyStatus(), ""
		if p.Lesser != "" {
			s.Note = "extracted: " + p.Lesser
		}
	})
}

// failed is told when a try ended without success. next is the zero time when
// there will be no other.
func (it *item) failed(err error, next time.Time) {
	it.tell(func(s *ItemStatus) {
		if s.State != StateFailed {
			s.State, s.Since = StateFailed, time.Now()
		}
		s.Phase, s.RatePerSecond, s.NextTry = "", 0, nil
		s.Error, s.Hint = errorText(err), ErrorHint(err)
		if !next.IsZero() {
			s.NextTry = &next
		}
	})
}
