package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"objectmount/index"
	"objectmount/objects"
)

// indexed is what an index is built of.
type indexed struct {
	name   string // as the user gave it, without a URL's query
	file   string // of a local file: its path
	id     index.ObjectID
	object objects.Object  // of an object id
	client *objects.Client // of an object id
	src    index.Source
	opt    index.BuildOptions // what the object claims to be
	close  func() error
}

// openIndexed opens SOURCE: an object id, "-" for a download URL from standard
// input, or a local file.
func (a *app) openIndexed(ctx context.Context, source string, limits objects.Limits) (*indexed, error) {
	opts := objects.ReaderOptions{RetryBudget: a.timeout, Network: objects.NewNetwork(limits)}
	switch {
	case source == "-", strings.HasPrefix(source, "http://"), strings.HasPrefix(source, "https://"):
		if source == "-" {
			line, err := readLine(a.in)
			if err != nil {
				return nil, fmt.Errorf("read download URL from standard input: %w", err)
			}
			source = line
		} else if strings.Contains(source, "?") {
			fmt.Fprintln(a.err, "warning: other users can see this URL in the list of processes; pipe it in with - instead")
		}
		s := &indexed{name: objects.RedactURL(source)}
		return s, s.remote(ctx, objects.FixedURL(objects.Secret(source)), opts)
	case isObjectID(source):
		cl, err := a.client()
		if err != nil {
			return nil, err
		}
		o, err := cl.Get(ctx, source)
		if err != nil {
			return nil, err
		}
		opts.Size = o.SizeBytes
		s := &indexed{name: source, object: o, client: cl}
		s.id.ID, s.opt.Name, s.opt.ContentType = o.ID, o.Name, string(o.ContentType)
		return s, s.remote(ctx, cl.Minter(o.ID, time.Hour), opts)
	}
	f, err := os.Open(source)
	if err != nil {
		return nil, hinted{err, "SOURCE is an object id (obj_...), an http(s) download URL, or a local file"}
	}
	src, err := index.FileSource(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &indexed{name: source, file: source, src: src, close: f.Close}
	s.id.Size, s.opt.Name = src.Size(), filepath.Base(source)
	return s, nil
}

func (s *indexed) remote(ctx context.Context, m objects.Minter, opts objects.ReaderOptions) error {
	r, err := objects.Open(ctx, m, opts)
	if err != nil {
		return err
	}
	s.src, s.close = r, r.Close
	s.id.Size, s.id.ETag = r.Size(), r.Identity().ETag
	return nil
}

// buildIndex builds the index of s into the file output, or in memory if that
// is "", and shows how far it is.
func (a *app) buildIndex(ctx context.Context, s *indexed, output string, skim bool) (*index.Index, error) {
	opt := s.opt
	opt.Object, opt.Path, opt.Skim = s.id, output, skim
	p := a.newProgress("index "+s.name, s.src.Size())
	defer p.done()
	src := &watched{Source: s.src}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for t := time.NewTicker(100 * time.Millisecond); ; {
			select {
			case <-t.C:
				p.update(src.read.Load(), 0)
			case <-stop:
				t.Stop()
				return
			}
		}
	}()
	return index.Build(ctx, src, opt)
}

// watched counts what is read of a Source.
type watched struct {
	index.Source
	read atomic.Int64
}

func (w *watched) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := w.Source.ReadAtContext(ctx, p, off)
	w.read.Add(int64(n))
	return n, err
}

// Stream implements index.Streamer, by the Source's own if it has one.
func (w *watched) Stream(ctx context.Context, off int64) (io.ReadCloser, error) {
	s, ok := w.Source.(index.Streamer)
	if !ok {
		at := readerAt{ctx, w.Source}
		return &watchedStream{io.NopCloser(io.NewSectionReader(at, off, w.Size()-off)), w}, nil
	}
	body, err := s.Stream(ctx, off)
	if err != nil {
		return nil, err
	}
	return &watchedStream{body, w}, nil
}

type watchedStream struct {
	io.ReadCloser
	w *watched
}

func (s *watchedStream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.w.read.Add(int64(n))
	return n, err
}

// readerAt is a Source as io.ReaderAt.
type readerAt struct {
	ctx context.Context
	src index.Source
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.src.ReadAtContext(r.ctx, p, off) }
