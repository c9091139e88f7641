package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"objectmount/agent"
	"objectmount/index"
	"objectmount/objects"
)

// uploadIndex makes the index of what is being uploaded from the bytes on
// their way, so that the archive is read once.
type uploadIndex struct {
	ctx context.Context
	opt index.BuildOptions

	mu   sync.Mutex
	pass *uploadPass // of the latest try; nil before the first
}

// body is b, listened to. Each try of the upload is a first pass of its own.
func (u *uploadIndex) body(b objects.Body) objects.Body {
	return objects.Body{Size: b.Size, Open: func() (io.ReadCloser, error) {
		r, err := b.Open()
		if err != nil {
			return nil, err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.pass != nil {
			u.pass.abandon()
		}
		u.pass = newUploadPass(u.ctx, u.opt)
		return &heard{r, u.pass}, nil
	}}
}

// abandon ends the pass of an upload that failed.
func (u *uploadIndex) abandon() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pass != nil {
		u.pass.abandon()
	}
}

// publish finishes the index of the uploaded object and publishes it.
func (u *uploadIndex) publish(a *app, cl *objects.Client, o objects.Object) error {
	u.mu.Lock()
	p := u.pass
	u.mu.Unlock()
	id, err := a.objectIdentity(u.ctx, cl, o)
	if err != nil {
		p.abandon()
		return err
	}
	p.finish(id)
	<-p.done
	if p.err != nil {
		return p.err
	}
	defer p.x.Close()
	bar := a.newProgress("publish index", -1)
	defer bar.done()
	_, _, err = agent.PublishIndex(u.ctx, cl, o, p.x, bar.update)
	return err
}

// objectIdentity asks where the object is stored what version it is.
func (a *app) objectIdentity(ctx context.Context, cl *objects.Client, o objects.Object) (index.ObjectID, error) {
	r, err := objects.Open(ctx, cl.Minter(o.ID, time.Hour), objects.ReaderOptions{Size: o.SizeBytes, RetryBudget: a.timeout})
	if err != nil {
		return index.ObjectID{}, err
	}
	defer r.Close()
	return index.ObjectID{ID: o.ID, Size: r.Size(), ETag: r.Identity().ETag}, nil
}

// uploadPass is a first pass over the bytes of one try. It is their Source:
// they come once, in order, and which object they are is known last.
type uploadPass struct {
	cancel context.CancelFunc
	r      *io.PipeReader
	w      *io.PipeWriter
	done   chan struct{} // x and err are set
	x      *index.Index
	err    error

	began chan struct{} // the first bytes are in head, or there are none
	once  sync.Once
	mu    sync.Mutex // guards the rest
	head  []byte
	size  int64
	id    index.ObjectID
	ended bool
}

// uploadHead is how many bytes tell what an object is.
const uploadHead = 3

func newUploadPass(ctx context.Context, opt index.BuildOptions) *uploadPass {
	ctx, cancel := context.WithCancel(ctx)
	p := &uploadPass{cancel: cancel, done: make(chan struct{}), began: make(chan struct{})}
	p.r, p.w = io.Pipe()
	go func() {
		defer close(p.done)
		p.x, p.err = index.Build(ctx, p, opt)
		p.r.CloseWithError(errors.Join(p.err, io.ErrClosedPipe)) // the upload goes on without us
	}()
	return p
}

// hear takes the next bytes, as soon as the pass is ready for them.
func (p *uploadPass) hear(b []byte) {
	p.mu.Lock()
	p.size += int64(len(b))
	p.head = append(p.head, b[:min(len(b), uploadHead-len(p.head))]...)
	enough := len(p.head) == uploadHead
	p.mu.Unlock()
	if enough {
		p.once.Do(func() { close(p.began) })
	}
	p.w.Write(b) // an error means that the pass has ended
}

// finish says that there are no more bytes, and of which object they were.
func (p *uploadPass) finish(id index.ObjectID) {
	p.mu.Lock()
	p.id, p.ended = id, true
	p.mu.Unlock()
	p.once.Do(func() { close(p.began) })
	p.w.Close()
}

// abandon ends the pass and waits for it.
func (p *uploadPass) abandon() {
	p.cancel()
	p.once.Do(func() { close(p.began) })
	p.w.CloseWithError(context.Canceled)
	<-p.done
	if p.x != nil {
		p.x.Close()
	}
}

// Size implements index.Source: more than anything while it is not known.
func (p *uploadPass) Size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		return math.MaxInt64
	}
	return p.size
}

// Object implements index.Identifier.
func (p *uploadPass) Object() index.ObjectID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// ReadAtContext implements index.Source for the first bytes, which say what
// the object is.
func (p *uploadPass) ReadAtContext(ctx context.Context, b []byte, off int64) (int, error) {
	select {
	case <-p.began:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if off < 0 || off+int64(len(b)) > uploadHead {
		return 0, fmt.Errorf("bytes %d to %d of an upload cannot be read again", off, off+int64(len(b)))
	}
	n := copy(b, p.head[min(off, int64(len(p.head))):])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Stream implements index.Streamer, once and from the first byte.
func (p *uploadPass) Stream(context.Context, int64) (io.ReadCloser, error) { return p.r, nil }

// heard is the body of an upload that a pass listens to.
type heard struct {
	io.ReadCloser
	p *uploadPass
}

func (h *heard) Read(b []byte) (int, error) {
	n, err := h.ReadCloser.Read(b)
	if n > 0 {
		h.p.hear(b[:n])
	}
	return n, err
}
