package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"go.uber.org/zap"

	"objectmount/cache"
	"objectmount/extract"
	"objectmount/index"
)

// Extraction by an index. Inflating is what an extraction waits for, and one
// processor is all that it can use, unless an index says where else decoding
// can begin. So one that is in the cache is used, and one that is published is
// looked for if the object is large. It is never needed: whatever is wrong with
// it, the object is extracted without.

const (
	// indexedLeast is the size in bytes from which an object is worth opening
	// an index for, and askedLeast from which it is worth asking the API for
	// one. That takes three round trips if there is one and one if not, while
	// the object's first bytes are on their way already; inflating this much
	// takes about 150 ms of one processor.
	indexedLeast = 4 << 20
	askedLeast   = 32 << 20
	// askedLongest is how long the answer is waited for.
	askedLongest = 3 * time.Second
)

// unpack extracts the object, by its index if one is at hand.
func (b *bringing) unpack(ctx context.Context, src *source, opts extract.Options) (extract.Result, error) {
	stream, err := src.open(ctx)
	if err != nil {
		return extract.Result{}, err
	}
	defer stream.Close()
	x, forget := b.a.decodingIndex(ctx, b.m, src)
	if x == nil {
		return extract.Extract(ctx, stream, b.m.target(), opts)
	}
	defer x.Close()
	opts.Index = x
	res, err := extract.Extract(ctx, stream, b.m.target(), opts)
	if !errors.Is(err, extract.ErrIndex) {
		return res, err
	}
	b.a.log.Warn("extracted once more, without the index", zap.String("path", b.m.Path()), zap.String("error", errorText(err)))
	stream.Close()
	again, err := src.open(ctx)
	if err != nil {
		return extract.Result{}, err
	}
	defer again.Close()
	opts.Index = nil
	res, err = extract.Extract(ctx, again, b.m.target(), opts)
	if err == nil { // so it was the index
		forget()
	}
	return res, err
}

// decodingIndex finds an index to extract a gzip by, nil if there is none or it
// is not worth looking for. forget removes it from the cache.
func (a *Agent) decodingIndex(ctx context.Context, m *Mount, src *source) (x *index.Index, forget func()) {
	ask := a.cfg.Client != nil && m.ObjectID != "" && m.DownloadURL == "" && src.identity.Size >= askedLeast
	if runtime.GOMAXPROCS(0) == 1 || src.identity.Size < indexedLeast || !src.saysGzip() {
		return nil, nil
	}
	if _, err := os.Stat(a.cfg.CacheDir); err != nil && !ask {
		return nil, nil
	}
	c, err := a.lazyCache()
	if err != nil {
		a.log.Debug("no index without a cache", zap.String("error", errorText(err)))
		return nil, nil
	}
	id, want := a.blobID(m, src), m.indexed(src)
	// The stream itself is held against the SHA-256, so the index need not
	// vouch for it.
	want.SHA256 = ""
	x, err = a.cachedIndex(c, id, want)
	if errors.Is(err, fs.ErrNotExist) && ask {
		x, err = a.askIndex(ctx, c, id, want)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			a.log.Warn("index is of no use", zap.String("path", m.Path()), zap.String("error", errorText(err)))
		}
		return nil, nil
	}
	a.log.Debug("extracted by an index", zap.String("path", m.Path()), zap.Int("spans", x.NumSpans()))
	return x, func() { _ = os.Remove(c.Path(id, indexFile)) }
}

func (a *Agent) askIndex(ctx context.Context, c *cache.Cache, id string, want index.ObjectID) (*index.Index, error) {
	ctx, cancel := context.WithTimeout(ctx, askedLongest)
	defer cancel()
	return a.publishedIndex(ctx, c, id, want)
}

// saysGzip says whether the object claims to be a gzip. Its bytes may know
// better; then the index of it is of no gzip either.
func (s *source) saysGzip() bool {
	name := strings.ToLower(s.name)
	return strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".tgz") || s.contentType == "gzip" || s.contentType == "tgz"
}
