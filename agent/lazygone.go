package agent

import (
	"context"
	"fmt"
)

// An object can be deleted, and a URL can expire, while it is mounted. What is
// cached is served on; the rest is EIO, and status says both.

// lostObject is why an object cannot be fetched any more.
type lostObject struct {
	err     error
	decoded int64 // spans decoded by then: if there come more, it can after all
}

// noteGone remembers an error that says so.
func (s *server) noteGone(err error) {
	if isGone(err) {
		s.lost.Store(&lostObject{err, s.reader.Stats().Decoded})
	}
}

// whyGone is why what is not cached cannot be read; nil if it can.
func (s *server) whyGone() error {
	l := s.lost.Load()
	if l == nil || s.reader.Stats().Decoded > l.decoded {
		return nil
	}
	return l.err
}

// content is what a mount reads: the server's Reader, whose errors are looked
// at.
type content struct{ s *server }

func (c content) ReadFileAt(ctx context.Context, row uint32, p []byte, off int64) (int, error) {
	n, err := c.s.reader.ReadFileAt(ctx, row, p, off)
	if err != nil {
		c.s.noteGone(err)
	}
	return n, err
}

// tellGone says in a status what can be read and what cannot.
func (it *ItemStatus) tellGone(err error) {
	l := it.Lazy
	l.Gone = errorText(err)
	note := fmt.Sprintf("it cannot be fetched any more: %d of %d pieces are in the cache and can be read, the rest cannot: %s", l.Present, l.Spans, l.Gone)
	if l.Present >= l.Spans && l.Complete {
		note = "it cannot be fetched any more, but all of it is in the cache: " + l.Gone
	}
	if it.Note != "" {
		note = it.Note + "; " + note
	}
	it.Note = note
	if it.Hint == "" {
		it.Hint = ErrorHint(err)
	}
}
