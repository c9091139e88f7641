package index

import (
	"bytes"
	"fmt"
	"strings"
)

// What an object is, is told by its first bytes; its name and its declared
// type may only claim, and a claim that the bytes do not keep is refused:
// nobody wants an error page mounted as data set. The rules are extraction's.

// gzipMagic begins every gzip member (RFC 1952): two bytes of magic and the
// only method there is.
var gzipMagic = []byte{0x1f, 0x8b, 0x08}

// declared says which formats an object claims to have.
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

// isGzip says whether the object's first bytes are a gzip's.
func isGzip(first []byte) bool { return bytes.HasPrefix(first, gzipMagic) }

// isTar says whether a stream that begins with head is a tar. Fewer than 512
// bytes mean that it has no more.
func (o *BuildOptions) isTar(head []byte, gzip bool) (bool, error) {
	wantTar, wantGzip := declared(o.Name, o.ContentType)
	head = head[:min(len(head), blockSize)]
	claim := fmt.Sprintf("the object's name %s or type %q says that it is an archive", quote(o.Name), o.ContentType)
	begin := "nothing, it is empty"
	if len(head) > 0 {
		begin = fmt.Sprintf("%q", head[:min(len(head), 24)])
	}
	switch {
	case IsTarHeader(head):
		return true, nil
	case len(head) == blockSize && bytes.Equal(head[257:262], []byte("ustar")):
		return false, fmt.Errorf("%w: the first tar header's checksum does not match", ErrCorrupt)
	case wantTar && len(head) == blockSize && isZero(head):
		return true, nil // a tar that begins with its end marker
	case wantTar:
		return false, fmt.Errorf("%w: %s, but its bytes are no tar: they begin with %s", ErrCorrupt, claim, begin)
	case wantGzip && !gzip:
		return false, fmt.Errorf("%w: %s, but its bytes are no gzip: they begin with %s", ErrCorrupt, claim, begin)
	}
	return false, nil
}
