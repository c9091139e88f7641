// Command objectmount makes Storage Objects be there on this machine: as the
// daemon of a Devbox (agent), by hand (mount, objects), and with a Storage
// Objects API server of its own (serve, demo).
//
// The package turns words into calls and errors into exit codes, and holds
// nothing else: what a command does lives in the room it calls. Each file is
// one command or one chapter all commands share:
//
//	main.go      the process: signals, streams, the error line and its hint
//	root.go      the root command, global flags, help
//	env.go       OBJECTMOUNT_* and the other sources of a setting
//	exit.go      the table of exit codes
//	client.go    an API client from flags, environment and key files
//	progress.go  progress at a terminal, quiet lines elsewhere
//	lazy.go      the process behind a lazy mount
//	doctor.go    what this machine can and cannot do
//	output.go    tables, JSON, sizes and times for people
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"objectmount/agent"
	"objectmount/objects"
)

// stdio is what a command reads and writes. Standard output is data, standard
// error is talk.
type stdio struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

func main() {
	os.Exit(run(os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}

// run executes one command line and returns its exit code. The first SIGINT or
// SIGTERM cancels the command's context, so that it can clean up; a second one
// ends the process at once, as the runtime would.
func run(args []string, std stdio) int {
	// Under a service manager or in a pipe, a reader that went away must be
	// an error of the write, not the silent end of a daemon.
	signal.Ignore(syscall.SIGPIPE)

	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(signalError{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()

	cmd := newRoot(std)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	// A command stopped by a signal says so by its code alone.
	var sig signalError
	if errors.As(context.Cause(ctx), &sig) {
		return 128 + int(sig.Signal)
	}
	report(std.err, err)
	return exitCode(err)
}

// signalError is the cause of the context of a command that a signal ended.
type signalError struct{ syscall.Signal }

func (s signalError) Error() string { return "stopped by " + s.Signal.String() }

// report prints err as one line, and the hint that goes with it as another.
// Every error passes here, so here is the last guard of the URLs in it.
func report(w io.Writer, err error) {
	var quiet quietError
	if errors.As(err, &quiet) {
		return
	}
	err = objects.Redact(err)
	fmt.Fprintf(w, "objectmount: %v\n", err)
	hint := agent.ErrorHint(err)
	var h hinted
	if errors.As(err, &h) {
		hint = h.hint
	}
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
}

// hinted is an error with a hint of this package's own.
type hinted struct {
	err  error
	hint string
}

func (h hinted) Error() string { return h.err.Error() }
func (h hinted) Unwrap() error { return h.err }

// quietError ends a command with a code after it has said all there is to say.
type quietError struct{ code int }

func (q quietError) Error() string { return fmt.Sprintf("exit %d", q.code) }
