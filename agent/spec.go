package agent

import (
	"fmt"

	"objectmount/objects"
)

// Mount is one mount that is wanted.
type Mount struct {
	ObjectID      string
	ObjectPath    string // absolute; a trailing slash means "into this directory"
	Mode          string // "", "auto" or "extract"
	ReadOnly      bool
	Owner         string // USER[:GROUP], names or numbers; "": owner of the nearest existing parent
	Required      bool   // readiness waits for it
	OnConflict    string // "", "error", "replace" or "merge"
	SHA256        string // of the object in hex; "": not checked
	DownloadURL   objects.Secret
	PublishIndex  bool
	PreserveOwner bool
	LocalFile     string // manual mounts only, never from a spec
	File          string // where it stands
	Line, Column  int
}

// Spec is what is wanted in all.
type Spec struct {
	Mounts  []Mount
	Skipped []string // one line for each mount of a type that is not ours
	Sources []string // the files read
}

// SpecError says what is wrong with a spec, and where.
type SpecError struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Msg    string `json:"message"`
	Hint   string `json:"hint,omitempty"`
}

func (e *SpecError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// LoadSpec reads a spec.
func LoadSpec(path string) (*Spec, error) { return nil, errSkeleton }
