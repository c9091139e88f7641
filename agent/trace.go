package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"objectmount/index"
	"objectmount/objects"
)

// What a lazy mount was used for in its first half minute is written down
// beside its index, and fetched when the same object is mounted again: a
// program that starts again reads the same files. With publish_index that
// trace is published, too, once, as an object of its own beside the index's:
// traces come later than indexes, and objects do not change. A machine that
// takes an index from there takes the trace as well, in the background.

const traceFile = "trace" // in the cache

// knownTrace is what was read the last time; nil if that is not known.
func (s *server) knownTrace(ctx context.Context, x *index.Index) []int {
	c, err := s.a.lazyCache()
	if err != nil {
		return nil
	}
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	if s.traceKnown {
		return s.trace
	}
	path := c.Path(s.blobID, traceFile)
	b, err := readAtMost(path, index.MaxTraceBytes)
	if err == nil {
		s.trace, err = x.ParseTrace(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.a.log.Debug("trace in the cache is of no use", zap.String("path", s.path), zap.String("error", errorText(err)))
	}
	if s.trace == nil && s.from == indexPublished {
		if s.trace, err = s.a.publishedTrace(ctx, x); err != nil && !errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil {
			s.a.log.Debug("published trace is of no use", zap.String("path", s.path), zap.String("error", errorText(err)))
		}
	}
	s.traceKnown = ctx.Err() == nil
	return s.trace
}

// readAtMost reads a file that must not be longer than most bytes.
func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is longer than %d bytes", name, most)
	}
	return b, err
}

// keepTrace writes down what was read, when it is known, and publishes it.
func (s *server) keepTrace(m *Mount) {
	select {
	case <-s.reader.Recorded():
	case <-s.ctx.Done():
		return // close writes it down
	}
	if s.passed != nil {
		select {
		case <-s.passed:
		case <-s.ctx.Done():
			return
		}
	}
	if trace := s.saveTrace(); trace != nil {
		s.a.publishTrace(s.ctx, m, s.complete(), trace)
	}
}

// saveTrace writes down what was read, once. Nil: nothing, or it is written
// down already.
func (s *server) saveTrace() []int {
	x, now := s.complete(), s.reader.Trace()
	if x == nil || s.blob == nil || len(now) == 0 {
		return nil
	}
	older := s.knownTrace(s.ctx, x)
	s.traceMu.Lock()
	defer s.traceMu.Unlock()
	if s.traceSaved {
		return nil
	}
	s.traceSaved = true
	trace := index.MergeTrace(now, older)
	if slices.Equal(trace, older) {
		return trace
	}
	c, err := s.a.lazyCache()
	if err == nil {
		err = c.WriteFile(s.blobID, traceFile, func(w io.Writer) error {
			_, err := w.Write(x.EncodeTrace(trace))
			return err
		})
	}
	if err != nil {
		s.a.log.Debug("trace not written down", zap.String("path", s.path), zap.String("error", errorText(err)))
	}
	return trace
}

// findTrace finds the published trace of an index. The error is
// fs.ErrNotExist when there is none.
func findTrace(ctx context.Context, c *objects.Client, x *index.Index) (objects.Object, error) {
	name := index.PublishedTraceName(x.Object().ID)
	seen := 0
	for o, err := range c.All(ctx, objects.ListQuery{Name: name, State: objects.StateReadOnly, Limit: maxIndexCandidates, NoTotal: true}) {
		if err != nil {
			return objects.Object{}, fmt.Errorf("look for a published trace: %w", err)
		}
		if o.Name == name && x.IsTrace(o.Metadata) {
			return o, nil
		}
		if seen++; seen == maxIndexCandidates {
			break
		}
	}
	return objects.Object{}, fmt.Errorf("published trace of %s: %w", x.Object().ID, fs.ErrNotExist)
}

// publishedTrace fetches the published trace of an index, and checks all of it.
func (a *Agent) publishedTrace(ctx context.Context, x *index.Index) ([]int, error) {
	if a.cfg.Client == nil || x.Object().ID == "" {
		return nil, fs.ErrNotExist
	}
	o, err := findTrace(ctx, a.cfg.Client, x)
	if err != nil {
		return nil, err
	}
	if o.SizeBytes == nil || *o.SizeBytes > index.MaxTraceBytes {
		return nil, fmt.Errorf("published trace %s has more than %d bytes, or does not say how many", o.ID, index.MaxTraceBytes)
	}
	r, err := objects.Open(ctx, a.cfg.Client.Minter(o.ID, 10*time.Minute), objects.ReaderOptions{
		Size: o.SizeBytes, RetryBudget: a.cfg.RetryBudget, Network: a.cfg.Network})
	if err != nil {
		return nil, fmt.Errorf("fetch trace %s: %w", o.ID, err)
	}
	defer r.Close()
	b := make([]byte, *o.SizeBytes)
	if n, err := r.ReadAtContext(ctx, b, 0); n < len(b) {
		return nil, fmt.Errorf("fetch trace %s: %w", o.ID, err)
	}
	trace, err := x.ParseTrace(b)
	if err != nil {
		return nil, fmt.Errorf("fetch trace %s: %w", o.ID, err)
	}
	return trace, nil
}

// publishTrace publishes a trace where the mount asks for it and none is
// published yet. It ends when the object ends, and is as public.
func (a *Agent) publishTrace(ctx context.Context, m *Mount, x *index.Index, trace []int) {
	if !m.PublishIndex || m.ObjectID == "" || a.cfg.Client == nil {
		return
	}
	id, err := a.putTrace(ctx, m.ObjectID, x, x.EncodeTrace(trace))
	log := []zap.Field{zap.String("path", m.Path()), zap.String("object_id", m.ObjectID)}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.log.Warn("trace not published", append(log, zap.String("error", errorText(err)))...)
	case id != "":
		a.log.Info("trace published", append(log, zap.String("trace_id", id), zap.Int("spans", len(trace)))...)
	}
}

// putTrace gives the id of the new object, "" if there is one already.
func (a *Agent) putTrace(ctx context.Context, objectID string, x *index.Index, file []byte) (id string, err error) {
	c := a.cfg.Client
	if _, err := findTrace(ctx, c, x); !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	obj, err := c.Get(ctx, objectID)
	if err != nil {
		return "", err
	}
	req := objects.CreateRequest{Name: index.PublishedTraceName(objectID), ContentType: index.PublishedContentType,
		Metadata: x.TraceMetadata(), IsPublic: obj.IsPublic}
	if obj.DeleteAfterTimeMS != nil {
		left := *obj.DeleteAfterTimeMS - time.Now().UnixMilli()
		if left <= 0 {
			return "", objects.ErrDeleted
		}
		req.TTLMS = &left
	}
	body := objects.Body{Size: int64(len(file)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(file)), nil }}
	o, err := c.Upload(ctx, req, body, nil)
	return o.ID, err
}
