package extract

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"objectmount/index"
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
	// ConflictError refuses with an error that wraps ErrConflict.
	ConflictError OnConflict = "error"
	// ConflictReplace exchanges the old for the new in one step, then deletes
	// the old.
	ConflictReplace OnConflict = "replace"
	// ConflictMerge moves the new into the existing directory, entry by
	// entry, files over files. Where one side has a directory and the other
	// has none it refuses before it moves anything; but the moving itself is
	// not atomic, and a crash leaves a mixture.
	ConflictMerge OnConflict = "merge"
)

// Owner is a numeric user and group.
type Owner struct{ UID, GID int }

// Options says how to extract. The zero value is useful.
type Options struct {
	// Name is the object's name. It names a file that is put into a
	// directory, and the endings .tar, .tgz, .tar.gz and .gz declare a format.
	Name string
	// ContentType is the declared one: "tar", "tgz" and "gzip" declare a
	// format, all other words declare nothing.
	ContentType string
	// Owner is whom everything will belong to; nil means the owner of the
	// existing directory at the path or else of its nearest existing parent.
	Owner *Owner
	// PreserveOwner takes user and group ids from the archive instead.
	PreserveOwner bool
	// Xattrs restores extended attributes of files and directories. Only
	// those of the user namespace ("user.*") are ever set, and of these not
	// "user.overlay.*": all others speak to the kernel, of privileges,
	// labels and layers.
	Xattrs bool
	// OnConflict is what to do with what is already there.
	OnConflict OnConflict
	// StageID ends the staging directory's name, so that the caller can
	// Sweep it after a crash: 1 to 64 of [a-z0-9-]. Empty means a random one.
	StageID string
	// Within is a directory that another object was extracted to, if this
	// one goes below it: no symbolic link below Within is followed, because
	// the other object may have brought it. Empty: nothing.
	Within string
	// Size is how many bytes the reader must give; zero or less: unknown.
	Size int64
	// Index, if not nil, is one of the object. If the object is a gzip, it is
	// then decoded on all processors. Nothing but that depends on it: where
	// it is of no use it is not used, and if decoding with it fails, be it
	// because index or object is damaged, the error wraps ErrIndex, and
	// extraction without it tells which. It must stay open meanwhile.
	Index *index.Index
	// Staged is called once, when the root of what will be published has been
	// made and before any content is written: what a caller writes down then
	// lets it know after a crash whether the thing came out. An error ends
	// the extraction.
	Staged func(Staged) error
	// MayPublish is asked when everything is made and verified, right before
	// it takes its place. An error ends the extraction.
	MayPublish func() error
	// FlushLater lets Extract return before the result is on disk, if it
	// replaces nothing. Then Result.Unflushed is set, and the caller must
	// call Flush and until then must not trust the result after a power cut.
	FlushLater bool
	// Over is the fingerprint of what was bound at the path before (see
	// Result.Tree), if what comes may take its place.
	Over *Fingerprint
	// Limits bounds the object.
	Limits Limits
	// Progress is called by the extracting goroutine, at most ten times a
	// second and once at the end.
	Progress func(Progress)
}

// Progress is how far an extraction has got.
type Progress struct {
	BytesIn int64 // bytes read of the object as stored
	Bytes   int64 // bytes of content written
	Entries int64 // files, directories and links made
}

// Staged is what an extraction has begun to make.
type Staged struct {
	Path  string // where it will be
	Root  string // where it is now, alone in its staging directory
	Fills bool   // an empty directory is there, which it will take the place of
	Later bool   // it will be published before it is flushed
}

// Result says what was published.
type Result struct {
	Kind   Kind
	Format string // "tar", "tar.gz", "gz" or "other"
	Path   string // where it really is: a file may have been put into a directory
	// Tree is where the files lie, if they could only be bound to Path
	// because no rename can replace what is there: a mount point, say. Such
	// a mount does not outlive the system: Bind makes it again.
	Tree string
	// Unflushed says that a power cut could still destroy it: see Flush.
	Unflushed bool
	Entries   int64 // files, directories and links made, implied directories too, the root not
	Bytes     int64 // of content, holes included
	BytesIn   int64 // of the object as stored
	Took      time.Duration
	Skipped   Skipped
	// Leftover names the staging directory when what was replaced could not
	// be deleted (an immutable file, say). Sweep will try again.
	Leftover    string
	Fingerprint Fingerprint
}

// Skipped counts what the archive has and the result has not.
type Skipped struct {
	// Owners are entries whose owner could not be set, because the process is
	// not root or its user namespace does not know the id.
	Owners int64 `json:"owners,omitempty"`
	// Xattrs are extended attributes: those that were not asked for, that
	// are never set, or that the file system or a link cannot have.
	Xattrs int64 `json:"xattrs,omitempty"`
	// SetIDs are files and directories whose set-user-ID or set-group-ID bit
	// was cleared.
	SetIDs int64 `json:"set_ids,omitempty"`
}

// Fingerprint identifies a published tree or file and the moment of its
// publishing, so that replacements and later edits can be told.
type Fingerprint struct {
	Dev          uint64 `json:"dev"`
	Ino          uint64 `json:"ino"`
	ChangeTimeNS int64  `json:"change_time_ns"` // ctime of the root, ns since 1970
	// Merged is set when the directory had other entries before: then ours
	// cannot be told from them, and Remove refuses.
	Merged bool `json:"merged,omitempty"`
}

func (o Options) withDefaults() (Options, error) {
	switch o.OnConflict {
	case "":
		o.OnConflict = ConflictError
	case ConflictError, ConflictReplace, ConflictMerge:
	default:
		return o, fmt.Errorf("extract: on_conflict %q is none of error, replace, merge", o.OnConflict)
	}
	if o.StageID == "" {
		o.StageID = strings.ToLower(rand.Text())
	}
	if err := checkStageID(o.StageID); err != nil {
		return o, err
	}
	if o.Owner != nil && (!validID(o.Owner.UID) || !validID(o.Owner.GID)) {
		return o, fmt.Errorf("extract: owner %d:%d is out of range", o.Owner.UID, o.Owner.GID)
	}
	o.Limits = o.Limits.withDefaults()
	return o, nil
}

// validID says whether id can be given to chown, where -1 means "unchanged".
func validID(id int) bool { return id >= 0 && id < 1<<32-1 }

func checkStageID(id string) error {
	if len(id) < 1 || len(id) > 64 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("extract: stage id %q is not 1 to 64 of [a-z0-9-]", id)
	}
	return nil
}
