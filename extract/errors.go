package extract

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// What can go wrong, for errors.Is. Errors of the reader and of the context
// are passed on wrapped, and are none of these.
var (
	// ErrCorrupt: the bytes are not what they claim to be: truncated, a wrong
	// checksum, a malformed header, an "archive" that is none.
	ErrCorrupt = errors.New("archive is corrupt")
	// ErrUnsafe: an entry would leave the tree, write through a link, or make
	// something that an object must not hold, such as a device node.
	ErrUnsafe = errors.New("archive is unsafe")
	// ErrLimit: more entries, bytes, depth or length than Limits allows.
	ErrLimit = errors.New("archive exceeds a limit")
	// ErrConflict: something at the object's path, or on the way to it, does
	// not let the object be put there.
	ErrConflict = errors.New("path is in the way")
	// ErrNoSpace: the file system is full, or would be.
	ErrNoSpace = errors.New("no space left")
	// ErrBusy: a living process is at work on the same stage.
	ErrBusy = errors.New("in use by another process")
)

// EntryError is the refusal of one entry of an archive.
type EntryError struct {
	Entry  string // its name as in the archive, any bytes
	Offset int64  // of its first header, in bytes of the uncompressed stream
	Rule   string // what it breaks, a clause for a sentence
	Err    error  // the sentinel: ErrUnsafe, ErrCorrupt, ErrLimit or ErrNoSpace
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("%v: entry %s at byte %d: %s", e.Err, quote(e.Entry), e.Offset, e.Rule)
}

func (e *EntryError) Unwrap() error { return e.Err }

// refuse makes an EntryError; whoever knows the entry fills in its name and
// offset (see members.locate).
func refuse(sentinel error, format string, args ...any) *EntryError {
	return &EntryError{Err: sentinel, Rule: fmt.Sprintf(format, args...)}
}

// quote makes a name from an archive fit for a terminal and a log line.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		return strconv.Quote(name[:most]) + "..."
	}
	return strconv.Quote(name)
}

// writeError gives an error of a system call its sentinel, when it has one.
func writeError(what, name string, err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: %s %s: %w", ErrNoSpace, what, quote(name), err)
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EFBIG), errors.Is(err, unix.EMLINK):
		return refuse(ErrLimit, "the file system cannot hold it: %s: %v", what, err)
	}
	return fmt.Errorf("%s %s: %w", what, quote(name), err)
}
