package agent

import (
	"context"
	"errors"
	"io/fs"
	"os/user"

	"objectmount/extract"
	"objectmount/index"
	"objectmount/objects"
)

// hints is what a person can do about an error. The first that fits is given,
// so what says more comes first.
var hints = []struct {
	err  error
	hint string
}{
	{ErrNoKey, "set RUNLOOP_API_KEY, or put the key into a file with mode 0600 and name it with --api-key-file"},
	{errOuter, "see why that one failed"},
	{errPanic, "this is a fault in objectmount: please report it with the log"},
	{errNotReady, "it is mounted when its upload is complete"},
	{errNobodyServes, "run the agent without --once, or mount it with mode extract"},
	{ErrOwned, "take that mount down first, or set on_conflict to replace"},
	{ErrNotMounted, "objectmount status lists the mounts"},
	{ErrNotRunning, "start it: systemctl start objectmount, or objectmount agent"},
	{ErrRunning, "stop that one, or give this one directories of its own: --state-dir and --run-dir"},
	{objects.ErrBadID, "object ids look like obj_31CYd5LLFbBxst8mqnUjO"},
	{objects.ErrDeleted, "upload it again, and use the new id"},
	{objects.ErrNotFound, "check the id, and that the API key is of the account that owns the object"},
	{objects.ErrExpired, "make a new URL: objectmount objects url ID"},
	{objects.ErrCredentials, "check the API key: it is wrong, has expired, or may not read this object"},
	{objects.ErrChecksum, "the object is not the one the sha256 is of: correct one of the two"},
	{objects.ErrChanged, "it is being replaced: try again when that is over"},
	{objects.ErrUnreachable, "check the network, the proxy settings and RUNLOOP_BASE_URL"},
	{extract.ErrNoSpace, "free some space, or mount it on a larger file system"},
	{extract.ErrConflict, "move what is there away, use another path, or set on_conflict to replace or merge"},
	{index.ErrCorrupt, "the object is damaged or not what its name says: upload it again"},
	{index.ErrTarUnsafe, "the archive tries to write where it must not: make it anew with plain relative names"},
	{index.ErrTarLimit, "if the object is yours and really that large, raise the limit"},
	{extract.ErrCorrupt, "the object is damaged or not what its name says: upload it again"},
	{extract.ErrUnsafe, "the archive tries to write where it must not: make it anew with plain relative names"},
	{extract.ErrLimit, "if the object is yours and really that large, raise the limit"},
	{extract.ErrBusy, "another process is at work there: wait for it"},
	{fs.ErrPermission, "run it as root, or as the user who owns the directories"},
	{context.DeadlineExceeded, "it took too long: try again, or allow more time"},
}

// ErrorHint is one line of advice for an error, "" if there is none.
func ErrorHint(err error) string {
	var (
		spec    *SpecError
		field   *fieldError
		kept    *KeptError
		receipt *receiptError
		noUser  user.UnknownUserError
		noID    user.UnknownUserIdError
		noGroup user.UnknownGroupError
	)
	var hinter interface{ Hint() string } // of package mount
	switch {
	case err == nil:
		return ""
	case errors.As(err, &hinter):
		return hinter.Hint()
	case errors.As(err, &spec):
		return spec.Hint
	case errors.As(err, &field):
		return field.hint
	case errors.As(err, &kept):
		return "--keep leaves the files and forgets the mount, --delete removes them with all edits"
	case errors.As(err, &receipt):
		return "move that file away: the path is then treated as if nothing were known of it"
	case errors.As(err, &noUser), errors.As(err, &noID), errors.As(err, &noGroup):
		return "make the user or group, or name another owner"
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}
