// Package extract unpacks a stream into a directory without ever leaving it,
// and packs a directory for upload.
package extract

import (
	"context"
	"errors"
	"io"
)

// Kind says what an object became on disk.
type Kind string

// The kinds of a published object.
const (
	KindTree Kind = "tree" // an archive, unpacked into a directory
	KindFile Kind = "file" // one file, decompressed if it was a gzip
)

// OnConflict says what to do when something is already at the object's path.
// An empty directory is no conflict: it is filled.
type OnConflict string

// The answers to a conflict. The zero value means ConflictError.
const (
	ConflictError   OnConflict = "error"   // refuse with ErrConflict
	ConflictReplace OnConflict = "replace" // exchange atomically, then delete the old
	ConflictMerge   OnConflict = "merge"   // move entry by entry over the existing tree; not atomic
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Limits bounds what an archive may ask for. A zero field means its default.
type Limits struct {
	Entries   int64 // tar members; default 10,000,000
	Bytes     int64 // uncompressed bytes in all; default: free space less Reserve, checked as it goes
	FileBytes int64 // bytes of a single file; default: no bound but Bytes
	Reserve   int64 // free bytes to leave on the file system; default the lesser of 64 MiB and 1 % of it
	Depth     int   // components of a name; default 512
	Path      int   // bytes of a name; default 4095
	Component int   // bytes of a component; default 255
	Link      int   // bytes of a link target; default 4095
}

// Options says how to extract. The zero value is useful.
type Options struct {
	Name          string
	ContentType   string
	Owner         *Owner
	PreserveOwner bool
	OnConflict    OnConflict
	StageID       string
	Size          int64
	Limits        Limits
	Progress      func(Progress)
}

// Progress is how far an extraction has got.
type Progress struct {
	BytesIn int64 // bytes read of the object as stored
	Bytes   int64 // bytes written to files
	Entries int64 // entries made
}

// Fingerprint identifies a published tree or file, so that later edits and
// replacements can be told.
type Fingerprint struct {
	Dev          uint64 `json:"dev"`
	Ino          uint64 `json:"ino"`
	ChangeTimeNS int64  `json:"change_time_ns"`
}

// Result says what was published.
type Result struct {
	Kind        Kind
	Format      string // "tar", "tar.gz", "gz" or "other"
	Path        string // where it really is
	Entries     int64
	Bytes       int64
	Skipped     int64
	Fingerprint Fingerprint
}

// What can go wrong, for errors.Is.
var (
	ErrCorrupt  = errors.New("archive is corrupt")
	ErrUnsafe   = errors.New("archive is unsafe")
	ErrLimit    = errors.New("archive exceeds a limit")
	ErrConflict = errors.New("path is in the way")
	ErrNoSpace  = errors.New("no space left")
	ErrBusy     = errors.New("in use by another process")
)

// EntryError is the refusal of an entry of an archive.
type EntryError struct {
	Entry  string // its name as in the archive
	Offset int64  // of its header in the uncompressed stream
	Rule   string // what it breaks
	Err    error  // one of the sentinels
}

func (e *EntryError) Error() string { return e.Entry + ": " + e.Rule }
func (e *EntryError) Unwrap() error { return e.Err }

var errSkeleton = errors.New("extract: not built yet")

// Extract reads one object from r and leaves it at objectPath.
func Extract(ctx context.Context, r io.Reader, objectPath string, opts Options) (Result, error) {
	return Result{}, errSkeleton
}

// CheckPath makes the cheap checks of Extract before any download.
func CheckPath(objectPath string, opts Options) error { return errSkeleton }

// Sweep removes the staging directory that a dead run left behind.
func Sweep(objectPath, stageID string) error { return errSkeleton }

// Edited says whether anything at or below path changed since it was published.
func Edited(path string, fp Fingerprint) (bool, error) { return false, errSkeleton }

// Remove takes a published tree or file away.
func Remove(path string, fp Fingerprint) error { return errSkeleton }

// PackOptions says how to pack.
type PackOptions struct {
	IgnoreFile string
	NoIgnore   bool
	Progress   func(entries, bytes int64)
}

// Pack writes dir to w as a deterministic gzip-compressed tar.
func Pack(ctx context.Context, dir string, w io.Writer, opts PackOptions) error { return errSkeleton }
