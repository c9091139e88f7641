package extract

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"objectmount/index"
	"objectmount/internal/inflate"
)

const blockSize = 512

// gzipMagic begins every gzip member (RFC 1952): two bytes of magic and the
// only method there is.
var gzipMagic = []byte{0x1f, 0x8b, 0x08}

// body is an object whose format is known: a feed of its decoded bytes.
type body struct {
	*feed
	format string // "tar", "tar.gz", "gz", "other"
	tree   bool   // the bytes are a tar
}

// sniff finds out what the bytes are and holds that against what name and
// content type say. Its errors wrap ErrCorrupt, or are those of src. The body
// must be closed, unless there was an error.
func sniff(src *source, name, contentType string) (*body, error) {
	raw, err := src.peek(len(gzipMagic))
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	wantTar, wantGzip := declared(name, contentType)
	b := &body{format: "other"}
	if bytes.HasPrefix(raw, gzipMagic) {
		b.feed = newFeed(gunzip{inflate.NewAhead(src)})
		b.format, wantGzip = "gz", false
	} else {
		b.feed = newFeed(&copier{src: src})
	}
	if err := b.look(wantTar, wantGzip, claim(name, contentType)); err != nil {
		b.close()
		return nil, b.explain(err)
	}
	return b, nil
}

// look settles whether the decoded bytes are a tar.
func (b *body) look(wantTar, wantGzip bool, claim string) error {
	head, err := b.peek()
	if err != nil {
		return err
	}
	head = head[:min(len(head), blockSize)]
	switch {
	case index.IsTarHeader(head):
		b.tree = true
	case len(head) == blockSize && bytes.Equal(head[257:262], []byte("ustar")):
		return fmt.Errorf("%w: the first tar header's checksum does not match", ErrCorrupt)
	case wantTar && len(head) == blockSize && allZero(head):
		b.tree = true // a tar that begins with its end marker
	case wantTar:
		return fmt.Errorf("%w: %s, but its bytes are no tar: they begin with %s", ErrCorrupt, claim, begin(head))
	case wantGzip:
		return fmt.Errorf("%w: %s, but its bytes are no gzip: they begin with %s", ErrCorrupt, claim, begin(head))
	}
	if b.tree {
		b.format = map[string]string{"other": "tar", "gz": "tar.gz"}[b.format]
	}
	return nil
}

// gzipError gives the decoder's refusals their sentinel; errors of the source
// pass.
func gzipError(err error) error {
	var e *inflate.Error
	switch {
	case !errors.As(err, &e):
		return err
	case errors.Is(err, inflate.ErrTruncated):
		return fmt.Errorf("%w: gzip: %w: %w", ErrCorrupt, err, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%w: gzip: %w", ErrCorrupt, err)
}

// declared says which formats the object claims to have. Either its name or
// its type may claim: clients store a .tar.gz as "gzip", and a packed
// directory as "tgz" under a name without ending.
func declared(name, contentType string) (tar, gzip bool) {
	name = strings.ToLower(name)
	for _, ending := range []string{".tar", ".tgz", ".tar.gz"} {
		tar = tar || strings.HasSuffix(name, ending)
	}
	gzip = strings.HasSuffix(name, ".gz") || strings.HasSuffix(name, ".tgz")
	tar = tar || contentType == "tar" || contentType == "tgz"
	gzip = gzip || contentType == "gzip" || contentType == "tgz"
	return tar, gzip
}

func claim(name, contentType string) string {
	return fmt.Sprintf("the object's name %s or type %q says that it is an archive", quote(name), contentType)
}

// begin shows the first bytes, so that a saved error page is known by sight.
func begin(head []byte) string {
	if len(head) == 0 {
		return "nothing, it is empty"
	}
	return fmt.Sprintf("%q", head[:min(len(head), 24)])
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
