package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"objectmount/index"
	"objectmount/objects"
)

// source is where the bytes of one mount come from: an object that the API
// gives URLs for, a URL that was given by hand, or a local file.
type source struct {
	name        string // names a file that is put into a directory
	contentType string // declared; "" for none
	identity    objects.Identity
	open        func(context.Context) (io.ReadCloser, error) // from the first byte to the last
	close       func() error

	ranges  index.Source // any part of the bytes
	ranged  func() bool  // whether ranges works
	fetched func() int64 // bytes that came over the network, all together
	kept    bool         // a server has it: whoever opened it must not close it
}

// errNotReady: the object is not readable now, and may be later.
var errNotReady = errors.New("the object is not uploaded completely")

// ErrNoKey: the mount needs the API, and the agent was given no key for it.
var ErrNoKey = fmt.Errorf("no API key: %w", objects.ErrCredentials)

// openSource finds the bytes of a mount. It makes the first requests, so that
// what cannot be had is known before anything is written.
func (a *Agent) openSource(ctx context.Context, m *Mount) (*source, error) {
	switch {
	case m.LocalFile != "":
		return openLocal(m)
	case m.DownloadURL != "":
		name := m.ObjectID
		if u, err := url.Parse(m.DownloadURL.Reveal()); err == nil && name == "" {
			if base := path.Base(u.Path); base != "/" && base != "." {
				name = base
			}
		}
		return a.openRemote(ctx, m, objects.FixedURL(m.DownloadURL), objects.Object{Name: name})
	case a.cfg.Client == nil:
		return nil, ErrNoKey
	}
	obj, err := a.cfg.Client.Get(ctx, m.ObjectID)
	if err != nil {
		return nil, err
	}
	switch obj.State {
	case objects.StateReadOnly:
	case objects.StateUploading:
		return nil, fmt.Errorf("object %s: %w", m.ObjectID, errNotReady)
	case objects.StateDeleted:
		return nil, fmt.Errorf("object %s: %w", m.ObjectID, objects.ErrDeleted)
	default:
		return nil, fmt.Errorf("object %s is in state %.40q: its upload failed: %w", m.ObjectID, obj.State, objects.ErrNotFound)
	}
	return a.openRemote(ctx, m, a.cfg.Client.Minter(m.ObjectID, a.cfg.URLValid), obj)
}

func (a *Agent) openRemote(ctx context.Context, m *Mount, minter objects.Minter, obj objects.Object) (*source, error) {
	return a.openReader(ctx, m, minter, obj, nil)
}

// openReader opens an object. With an identity nothing is asked of the network
// before the first reading, which must find that one.
func (a *Agent) openReader(ctx context.Context, m *Mount, minter objects.Minter, obj objects.Object, id *objects.Identity) (*source, error) {
	r, err := objects.Open(ctx, minter, objects.ReaderOptions{
		Size: obj.SizeBytes, Identity: id, Lazy: id != nil,
		SHA256: m.SHA256, RetryBudget: a.cfg.RetryBudget, Network: a.cfg.Network,
	})
	if err != nil {
		return nil, err
	}
	return &source{
		ranges: r, ranged: r.Ranged, fetched: func() int64 { return r.Stats().Bytes },
		name: obj.Name, contentType: string(obj.ContentType), identity: r.Identity(), close: r.Close,
		open: func(ctx context.Context) (io.ReadCloser, error) { return r.Stream(ctx, 0) },
	}, nil
}

// pinned is the source of a lazy mount that was there before: of the bytes that
// its receipt knows, and no others.
func (a *Agent) pinned(ctx context.Context, m *Mount, p *published) (*source, error) {
	obj := objects.Object{Name: p.Lazy.Name, ContentType: objects.ContentType(p.Lazy.ContentType)}
	switch {
	case m.LocalFile != "":
		return openLocal(m)
	case m.DownloadURL != "":
		return a.openReader(ctx, m, objects.FixedURL(m.DownloadURL), obj, &p.Identity)
	case a.cfg.Client == nil:
		// What is in the cache can be read without a key.
		return a.openReader(ctx, m, noKey{}, obj, &p.Identity)
	}
	return a.openReader(ctx, m, a.cfg.Client.Minter(m.ObjectID, a.cfg.URLValid), obj, &p.Identity)
}

type noKey struct{}

func (noKey) Mint(context.Context) (objects.SignedURL, error) { return objects.SignedURL{}, ErrNoKey }

func openLocal(m *Mount) (*source, error) {
	f, err := os.OpenFile(m.LocalFile, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", m.LocalFile)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	ranges, err := index.FileSource(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &source{
		ranges: ranges, ranged: func() bool { return true }, fetched: func() int64 { return 0 },
		name:     filepath.Base(m.LocalFile),
		identity: objects.Identity{Size: st.Size(), LastModified: st.ModTime().UTC().Format(time.RFC3339Nano)},
		close:    f.Close,
		open: func(context.Context) (io.ReadCloser, error) {
			r := io.Reader(io.NewSectionReader(f, 0, st.Size()))
			if m.SHA256 != "" {
				r = &checked{r, sha256.New(), m.SHA256}
			}
			return io.NopCloser(r), nil
		},
	}, nil
}

// checked holds the SHA-256 of what was read against the wanted one, and
// gives io.EOF only if they are equal.
type checked struct {
	r    io.Reader
	sum  hash.Hash
	want string
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.sum.Write(p[:n])
	if err == io.EOF {
		if got := hex.EncodeToString(c.sum.Sum(nil)); got != strings.ToLower(c.want) {
			return n, fmt.Errorf("SHA-256 is %s: %w", got, objects.ErrChecksum)
		}
	}
	return n, err
}
