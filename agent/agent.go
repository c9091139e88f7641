// Package agent makes the machine match the spec of object mounts, and says
// how far it has got. (Skeleton: the chapters follow.)
package agent

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"objectmount/extract"
	"objectmount/objects"
	"objectmount/systemd"
)

// ErrNotRunning: no agent answers at the control socket.
var ErrNotRunning = errors.New("the agent is not running")

// State is where an item is in its life.
type State string

// The states of an item.
const (
	StatePending    State = "pending"
	StateFetching   State = "fetching"
	StateExtracting State = "extracting"
	StateReady      State = "ready"
	StateFailed     State = "failed"
	StateRemoving   State = "removing"
)

// Config of an Agent. Zero fields have defaults.
type Config struct {
	SpecPath           string          // spec file (with its drop-ins in mounts.d beside it), or a directory of *.json; default /etc/objectmount/mounts.json
	StateDir           string          // receipts; default /var/lib/objectmount
	RunDir             string          // control socket; default /run/objectmount
	Client             *objects.Client // nil: no key; only download_url and local files can be mounted
	Log                *zap.Logger     // nil: silent
	Version            string          // of the program, for Status
	Parallel           int             // mounts made at the same time; default 4
	URLValid           time.Duration   // life of the download URLs asked for; default 1 h
	Limits             extract.Limits
	RetryBudget        time.Duration // longest time a fetch may go without progress; default 15 min
	RetryMin, RetryMax time.Duration // pause between tries of a failed mount; default 1 s and 5 min
	Debounce           time.Duration // quiet time before a changed spec is read; default 200 ms
	Notifier           *systemd.Notifier
	Progress           func(ItemStatus) // told of every step of every item, from many goroutines
}

// Agent brings up and takes down mounts.
type Agent struct{}

// New makes an Agent. It touches nothing yet.
func New(cfg Config) (*Agent, error) { return nil, errSkeleton }

var errSkeleton = errors.New("agent: being written")

// Once makes every mount of the spec that is not there yet, and takes nothing down.
func (a *Agent) Once(ctx context.Context) (Status, error) { return Status{}, errSkeleton }

// Run is the daemon: it makes the machine match the spec until ctx ends.
func (a *Agent) Run(ctx context.Context) error { return errSkeleton }

// Reload makes Run read the spec now and try failed mounts again at once.
func (a *Agent) Reload() {}

// Mount makes one mount now.
func (a *Agent) Mount(ctx context.Context, m Mount) (ItemStatus, error) {
	return ItemStatus{}, errSkeleton
}

// UnmountMode says what Unmount does with the files.
type UnmountMode int

// The modes of Unmount.
const (
	UnmountUnmodified UnmountMode = iota // remove them if nothing was edited since publishing, else refuse
	UnmountKeep                          // leave them, forget the receipt
	UnmountDelete                        // remove them with their edits
)

// Unmount takes the mount at path down.
func (a *Agent) Unmount(ctx context.Context, path string, how UnmountMode) error { return errSkeleton }

// Paths lists the object paths of all mounts of the state directory, sorted.
func (a *Agent) Paths() ([]string, error) { return nil, errSkeleton }

// ItemStatus is how one mount is doing.
type ItemStatus struct {
	Path          string     `json:"path"`
	ObjectID      string     `json:"object_id,omitempty"`
	Source        string     `json:"source,omitempty"` // where it was asked for: "file:line:column", or the local file or URL without its query
	Origin        string     `json:"origin"`           // "spec" or "manual"
	State         State      `json:"state"`
	Phase         string     `json:"phase,omitempty"`
	Bytes         int64      `json:"bytes"`
	TotalBytes    int64      `json:"total_bytes"`
	Entries       int64      `json:"entries"`
	Percent       float64    `json:"percent"`
	RatePerSecond float64    `json:"rate_per_second"`
	Error         string     `json:"error,omitempty"`
	Hint          string     `json:"hint,omitempty"`
	NextTry       *time.Time `json:"next_try,omitempty"`
	Since         time.Time  `json:"since"`
	Required      bool       `json:"required"`
}

// Status is how the agent is doing.
type Status struct {
	Version   string       `json:"version,omitempty"`
	SpecError *SpecError   `json:"spec_error,omitempty"`
	Items     []ItemStatus `json:"items"`
	Ready     bool         `json:"ready"`
	PID       int          `json:"pid"`
	Started   time.Time    `json:"started"`
}

// QueryStatus asks the agent of runDir. ErrNotRunning when there is none.
func QueryStatus(ctx context.Context, runDir string) (Status, error) { return Status{}, ErrNotRunning }
