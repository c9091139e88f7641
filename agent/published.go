package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"objectmount/index"
	"objectmount/objects"
)

// An index can be published: as an object of its own beside the one it is of,
// so that whoever mounts that one next need not read all of it first. It is
// found by its name, believed only if its metadata and its bytes fit, and can
// always be made again.

// maxIndexCandidates bounds how many objects of the right name are looked at.
const maxIndexCandidates = 20

// FindIndex finds the published index of the object want, which has an id:
// the newest whose metadata fits. The error is fs.ErrNotExist when there is
// none.
func FindIndex(ctx context.Context, c *objects.Client, want index.ObjectID) (objects.Object, error) {
	name := index.PublishedName(want.ID)
	seen := 0
	for o, err := range c.All(ctx, objects.ListQuery{Name: name, State: objects.StateReadOnly, Limit: maxIndexCandidates, NoTotal: true}) {
		if err != nil {
			return objects.Object{}, fmt.Errorf("look for a published index: %w", err)
		}
		if o.Name == name && index.CheckMetadata(o.Metadata, want) == nil {
			return o, nil
		}
		if seen++; seen == maxIndexCandidates {
			break
		}
	}
	return objects.Object{}, fmt.Errorf("published index of %s: %w", want.ID, fs.ErrNotExist)
}

// FetchIndex gets the published index o of the object want, checks all of it,
// saves it at path and opens it.
func FetchIndex(ctx context.Context, c *objects.Client, o objects.Object, path string, want index.ObjectID, opts objects.ReaderOptions) (*index.Index, error) {
	opts.Size = o.SizeBytes
	opts.Lazy = true // the first request brings all of it, if one can
	r, err := objects.Open(ctx, c.Minter(o.ID, 10*time.Minute), opts)
	if err != nil {
		return nil, fmt.Errorf("fetch index %s: %w", o.ID, err)
	}
	defer r.Close()
	body, err := fetchBody(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("fetch index %s: %w", o.ID, err)
	}
	defer body.Close()
	x, err := index.Install(body, path, want, o.Metadata[index.MetaDigest])
	if err != nil {
		return nil, fmt.Errorf("fetch index %s: %w", o.ID, err)
	}
	return x, nil
}

// oneRequest is the most of an index that is fetched at once, in bytes: in
// parts it would come faster only where a connection takes longer for this
// than the way there and back.
const oneRequest = 4 << 20

// fetchBody reads an object from its first byte to its last.
func fetchBody(ctx context.Context, r *objects.Reader) (io.ReadCloser, error) {
	if n := r.Size(); n > 0 && n <= oneRequest {
		b := make([]byte, n)
		if _, err := r.ReadAtContext(ctx, b, 0); err == nil || err == io.EOF {
			return io.NopCloser(bytes.NewReader(b)), nil
		} else if !errors.Is(err, objects.ErrNoRanges) {
			return nil, err
		}
	}
	return r.Stream(ctx, 0)
}

// PublishIndex publishes x, the index of the object obj, unless it is there
// already (made is false then). What it publishes ends when obj ends, and is
// as public. progress may be nil; it is told the bytes sent.
func PublishIndex(ctx context.Context, c *objects.Client, obj objects.Object, x *index.Index, progress func(sent, total int64)) (o objects.Object, made bool, err error) {
	id := x.Object()
	if id.ID == "" || id.ID != obj.ID {
		return o, false, fmt.Errorf("publish index: it is of object %q, not of %q", id.ID, obj.ID)
	}
	if o, err = FindIndex(ctx, c, id); err == nil && o.Metadata[index.MetaDigest] == x.Digest() {
		return o, false, nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return o, false, err
	}
	dir, err := os.MkdirTemp("", "objectmount-index-")
	if err != nil {
		return o, false, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "published")
	size, err := packIndex(name, x)
	if err != nil {
		return o, false, fmt.Errorf("publish index: %w", err)
	}
	req := objects.CreateRequest{
		Name: index.PublishedName(obj.ID), ContentType: index.PublishedContentType,
		Metadata: x.Metadata(), IsPublic: obj.IsPublic,
	}
	if obj.DeleteAfterTimeMS != nil {
		left := *obj.DeleteAfterTimeMS - time.Now().UnixMilli()
		if left <= 0 {
			return o, false, fmt.Errorf("publish index: %w", objects.ErrDeleted)
		}
		req.TTLMS = &left
	}
	body := objects.Body{Size: size, Open: func() (io.ReadCloser, error) { return os.Open(name) }}
	o, err = c.Upload(ctx, req, body, func(sent int64) {
		if progress != nil {
			progress(sent, size)
		}
	})
	if err != nil {
		return o, false, fmt.Errorf("publish index: %w", err)
	}
	return o, true, nil
}

// packIndex writes x to the file name as it is published.
func packIndex(name string, x *index.Index) (size int64, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	if err = x.Publish(f); err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	return size, errors.Join(err, f.Close())
}
