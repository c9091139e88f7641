package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"go.uber.org/zap"

	"objectmount/cache"
	"objectmount/extract"
	"objectmount/index"
	"objectmount/objects"
)

// Where an index comes from, the best first: the cache, beside the spans; a
// published one; a first pass over the object, during which the mount is live
// already, and which leaves one in the cache.
const (
	indexCached    = "cache"
	indexPublished = "published"
	indexFirstPass = "first pass"
)

// Names in the cache.
const (
	indexFile     = "index"
	publishedFile = "published" // the id of the published index that it is
)

// lazyCache opens the cache when it is first needed.
func (a *Agent) lazyCache() (*cache.Cache, error) {
	a.cacheMu.Lock()
	defer a.cacheMu.Unlock()
	if a.cache != nil {
		return a.cache, nil
	}
	c, err := cache.Open(a.cfg.CacheDir, cache.Options{Budget: a.cfg.CacheSize})
	if err != nil {
		return nil, err
	}
	a.cache = c
	return c, nil
}

// closeCache is called when nothing is served any more.
func (a *Agent) closeCache() {
	a.cacheMu.Lock()
	defer a.cacheMu.Unlock()
	if a.cache != nil {
		_ = a.cache.Close()
		a.cache = nil
	}
}

// objectID is what an index must be of.
func (m *Mount) indexed(src *source) index.ObjectID {
	return index.ObjectID{ID: m.ObjectID, Size: src.identity.Size, ETag: src.identity.ETag, SHA256: strings.ToLower(m.SHA256)}
}

// cachedIndex opens the index in the cache. One that is damaged, or of another
// object, is deleted. The error is fs.ErrNotExist if there is none.
func (a *Agent) cachedIndex(c *cache.Cache, id string, want index.ObjectID) (*index.Index, error) {
	path := c.Path(id, indexFile)
	x, err := index.Open(path, want)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err == nil && !vouches(x, want) {
		x.Close()
		err = fmt.Errorf("%w: it does not know the SHA-256", index.ErrMismatch)
	}
	if err != nil {
		a.log.Warn("index in the cache is of no use: it is made again", zap.String("error", errorText(err)))
		if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			return nil, rerr
		}
		return nil, fs.ErrNotExist
	}
	return x, nil
}

// vouches says whether an index holds for the SHA-256 that is wanted: whoever
// made it must have read all bytes and compared.
func vouches(x *index.Index, want index.ObjectID) bool {
	return want.SHA256 == "" || (x.Object().SHA256 == want.SHA256 && x.HasSums())
}

// publishedIndex finds the published index of the object and puts it into the
// cache. That there is none is fs.ErrNotExist.
func (a *Agent) publishedIndex(ctx context.Context, c *cache.Cache, id string, want index.ObjectID) (*index.Index, error) {
	if a.cfg.Client == nil || want.ID == "" {
		return nil, fs.ErrNotExist
	}
	o, err := FindIndex(ctx, a.cfg.Client, want)
	if err != nil {
		return nil, err
	}
	// The directory has to be there before the index is put into it.
	err = c.WriteFile(id, publishedFile, func(w io.Writer) error {
		_, err := io.WriteString(w, o.ID+"\n")
		return err
	})
	if err != nil {
		return nil, err
	}
	x, err := FetchIndex(ctx, a.cfg.Client, o, c.Path(id, indexFile), want,
		objects.ReaderOptions{RetryBudget: a.cfg.RetryBudget, Network: a.cfg.Network})
	if err != nil {
		return nil, err
	}
	if !vouches(x, want) {
		x.Close()
		return nil, fmt.Errorf("published index %s: %w: it does not know the SHA-256", o.ID, index.ErrMismatch)
	}
	return x, nil
}

// limits are those of extraction, as an index takes them.
func indexLimits(l extract.Limits) index.Limits {
	return index.Limits{Entries: l.Entries, Bytes: l.Bytes, FileBytes: l.FileBytes, Depth: l.Depth, Path: l.Path,
		Component: l.Component, Link: l.Link, Header: l.Header, Fragments: l.Fragments}
}

// publish publishes the index of a mount that asks for it.
func (a *Agent) publish(ctx context.Context, m *Mount, x *index.Index) {
	if !m.PublishIndex || m.ObjectID == "" || a.cfg.Client == nil || x == nil {
		return
	}
	log := []zap.Field{zap.String("path", m.Path()), zap.String("object_id", m.ObjectID)}
	obj, err := a.cfg.Client.Get(ctx, m.ObjectID)
	made := false
	if err == nil {
		obj, made, err = PublishIndex(ctx, a.cfg.Client, obj, x, nil)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.log.Warn("index not published", append(log, zap.String("error", errorText(err)))...)
	case made:
		a.log.Info("index published", append(log, zap.String("index_id", obj.ID))...)
	}
}
