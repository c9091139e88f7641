package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"objectmount/agent"
	"objectmount/extract"
	"objectmount/index"
	"objectmount/mount"
	"objectmount/objects"
)

// Exit codes. Scripts branch on them, so a number never changes its meaning.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitSomeFailed  = 3
	exitNotFound    = 4
	exitCredentials = 5
	exitUnreachable = 6
	exitRefused     = 7
	exitInTheWay    = 8
	exitNoSpace     = 9
	exitNoAgent     = 10
	exitNoFUSE      = 11
)

// exitTable is the one list of exit codes: help, the README and the tests
// print or read it.
var exitTable = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitOther, "any other failure"},
	{exitUsage, "wrong usage: an unknown flag, a bad argument, a wrong spec"},
	{exitSomeFailed, "some mounts of the spec failed"},
	{exitNotFound, "the object or path is not there"},
	{exitCredentials, "credentials missing or refused"},
	{exitUnreachable, "API or network out of reach within the time allowed"},
	{exitRefused, "archive refused: corrupt, unsafe or over a limit"},
	{exitInTheWay, "something is in the way at the path"},
	{exitNoSpace, "no space left"},
	{exitNoAgent, "the agent is not running"},
	{exitNoFUSE, "FUSE is not available: no lazy mounts here"},
	{130, "stopped by SIGINT (143: by SIGTERM)"},
}

// exitHelp renders the table for the foot of every help page.
func exitHelp() string {
	var b strings.Builder
	for _, e := range exitTable {
		fmt.Fprintf(&b, "  %3d  %s\n", e.code, e.meaning)
	}
	return b.String()
}

// usageError marks what the caller typed wrong.
type usageError struct{ err error }

func (u usageError) Error() string { return u.err.Error() }
func (u usageError) Unwrap() error { return u.err }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// exitCode finds the code for an error that ended a command.
func exitCode(err error) int {
	var (
		quiet quietError
		usage usageError
		spec  *agent.SpecError
		kept  *agent.KeptError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &quiet):
		return quiet.code
	case errors.As(err, &usage), errors.As(err, &spec):
		return exitUsage
	case errors.Is(err, errSomeFailed):
		return exitSomeFailed
	case errors.Is(err, agent.ErrNotRunning):
		return exitNoAgent
	case errors.As(err, new(*mount.UnavailableError)):
		return exitNoFUSE
	case errors.Is(err, extract.ErrNoSpace):
		return exitNoSpace
	case errors.Is(err, extract.ErrConflict), errors.As(err, new(*mount.BusyError)), errors.Is(err, agent.ErrOwned), errors.As(err, &kept):
		return exitInTheWay
	case errors.Is(err, extract.ErrCorrupt), errors.Is(err, extract.ErrUnsafe), errors.Is(err, extract.ErrLimit),
		errors.Is(err, index.ErrCorrupt), errors.Is(err, index.ErrDamaged), errors.Is(err, index.ErrMismatch), errors.As(err, new(*index.TarError)):
		return exitRefused
	case errors.Is(err, objects.ErrNotFound), errors.Is(err, objects.ErrDeleted), errors.Is(err, agent.ErrNotMounted), errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, objects.ErrCredentials), errors.Is(err, objects.ErrExpired):
		return exitCredentials
	case errors.Is(err, objects.ErrUnreachable), errors.Is(err, context.DeadlineExceeded):
		return exitUnreachable
	}
	return exitOther
}

// errSomeFailed ends a command that made some mounts but not all.
var errSomeFailed = errors.New("see above")
