package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// sender is the body of one PUT request. The HTTP transport reads it in a
// goroutine of its own, waits for that read when the request is to end, and
// may hold on to the body when it is over. So the source is read by a pump on
// the other side of a pipe, where a read that never returns (a terminal)
// holds up nobody, and after detach nothing is given and nobody is called.
//
//	source ──pump──→ pipe ──Read──→ transport
type sender struct {
	w        *watch
	progress func(int64)
	size     int64 // -1: until the end
	rc       io.ReadCloser

	mu       sync.Mutex // guards what follows, and calls of w and progress
	pipe     *io.PipeReader
	touched  bool // something was taken from rc, or tried to be
	ended    bool // all was taken
	sent     int64
	err      error // of the source
	detached bool
}

var errDetached = errors.New("the request is over")

// begin says whether a Read may go on, and starts the pump for the first.
func (s *sender) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return false
	}
	s.w.disarm() // the source may take its time
	if s.touched {
		return true
	}
	s.touched = true
	pr, pw := io.Pipe()
	s.pipe = pr
	var src io.Reader = s.rc
	if s.size >= 0 {
		src = io.LimitReader(src, s.size)
	}
	go func() {
		n, err := io.CopyBuffer(pw, struct{ io.Reader }{src}, make([]byte, putBuffer))
		if err == nil && n < s.size {
			err = fmt.Errorf("it has %d bytes and not %d: was it changed meanwhile?", n, s.size)
		}
		pw.CloseWithError(err) // nil gives io.EOF
	}()
	return true
}

func (s *sender) Read(p []byte) (int, error) {
	if !s.begin() {
		return 0, errDetached
	}
	n, err := s.pipe.Read(p)

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return 0, errDetached
	}
	s.sent += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	s.ended = err == io.EOF || s.sent == s.size
	if s.ended {
		s.w.arm(&stallError{"no answer to the upload", putAnswer})
	} else {
		s.w.arm(&stallError{"the upload stood still", putIdle})
	}
	if n > 0 && s.progress != nil {
		s.progress(s.sent)
	}
	return n, err
}

// Close does nothing: detach closes.
func (s *sender) Close() error { return nil }

// detach ends the sending, and closes the source unless nothing was taken
// from it. It may be called twice.
func (s *sender) detach() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return
	}
	s.detached = true
	if s.touched {
		s.pipe.CloseWithError(errDetached)
		s.rc.Close()
	}
}

// source opens the body for each try, and keeps it where it was not touched.
type source struct {
	body    Body
	last    *sender  // of the last try; its reader serves again if untouched
	spooled *os.File // the whole body, unlinked; nil: not spooled
	length  int64    // of spooled
}

// size is what the next try sends: -1 when unknown.
func (s *source) size() int64 {
	if s.spooled != nil {
		return s.length
	}
	return max(s.body.Size, -1)
}

// reader gives the body from its beginning.
func (s *source) reader() (io.ReadCloser, error) {
	if s.spooled != nil {
		return io.NopCloser(io.NewSectionReader(s.spooled, 0, s.length)), nil
	}
	if l := s.last; l != nil {
		s.last = nil
		if !l.touched {
			return l.rc, nil
		}
	}
	rc, err := s.body.Open()
	if err != nil {
		return nil, fmt.Errorf("open what is to be sent: %w", err)
	}
	return rc, nil
}

func (s *source) open(w *watch, progress func(int64)) (*sender, error) {
	rc, err := s.reader()
	if err != nil {
		return nil, err
	}
	s.last = &sender{w: w, progress: progress, size: s.size(), rc: rc}
	return s.last, nil
}

// spool writes the body to a temporary file, to learn its length.
func (s *source) spool(ctx context.Context) error {
	rc, err := s.reader()
	if err != nil {
		return permanent(fmt.Errorf("%w, and it cannot be read again: save it to a file and upload that: %w", errWantsLength, err))
	}
	defer rc.Close()
	stop := context.AfterFunc(ctx, func() { rc.Close() })
	defer stop()
	f, err := os.CreateTemp("", "objectmount-upload-*")
	if err == nil {
		os.Remove(f.Name()) // it lives as long as we do
		s.spooled = f
		s.length, err = io.Copy(f, rc)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return permanent(fmt.Errorf("%w, and saving it to a temporary file failed: %w", errWantsLength, err))
	}
	return nil
}

// done releases what is left.
func (s *source) done() {
	if s.last != nil && !s.last.touched {
		s.last.rc.Close()
	}
	if s.spooled != nil {
		s.spooled.Close()
	}
}
