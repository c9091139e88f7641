package extract

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

const (
	blockSize  = 512
	readBuffer = 128 << 10
)

// body is an object whose format is known: a reader of its decoded bytes.
type body struct {
	io.Reader
	format string // "tar", "tar.gz", "gz", "other"
	tree   bool   // the bytes are a tar
	empty  bool   // a tar that begins with its end marker
}

// sniff finds out what the bytes are and holds that against what name and
// content type say. Its errors wrap ErrCorrupt, or are those of src.
func sniff(src io.Reader, name, contentType string) (*body, error) {
	in := bufio.NewReaderSize(src, readBuffer)
	head, err := in.Peek(blockSize)
	if err != nil && err != io.EOF {
		return nil, err
	}
	wantTar, wantGzip := declared(name, contentType)

	b := &body{Reader: in, format: "other"}
	if bytes.HasPrefix(head, gzipMagic) {
		inner := bufio.NewReaderSize(newGunzip(in), readBuffer)
		if head, err = inner.Peek(blockSize); err != nil && err != io.EOF {
			return nil, err
		}
		b.Reader, b.format = inner, "gz"
		wantGzip = false
	}

	switch {
	case isTarHeader(head):
		b.tree = true
	case len(head) == blockSize && bytes.Equal(head[257:262], []byte("ustar")):
		return nil, fmt.Errorf("%w: the first tar header's checksum does not match", ErrCorrupt)
	case wantTar && len(head) == blockSize && allZero(head):
		b.tree, b.empty = true, true
	case wantTar:
		return nil, fmt.Errorf("%w: %s, but its bytes are no tar: they begin with %s",
			ErrCorrupt, claim(name, contentType), begin(head))
	case wantGzip:
		return nil, fmt.Errorf("%w: %s, but its bytes are no gzip: they begin with %s",
			ErrCorrupt, claim(name, contentType), begin(head))
	}
	if b.tree {
		b.format = map[string]string{"other": "tar", "gz": "tar.gz"}[b.format]
	}
	return b, nil
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

// isTarHeader says whether b begins with a tar header, of any flavour back to
// V7: one whose checksum field holds the sum of its bytes, that field counted
// as spaces. Old writers summed signed bytes.
func isTarHeader(b []byte) bool {
	if len(b) < blockSize || allZero(b[:blockSize]) {
		return false
	}
	want, digits := int64(0), 0
	for _, c := range bytes.Trim(b[148:156], " \x00") {
		if c < '0' || c > '7' {
			return false
		}
		want, digits = want<<3|int64(c-'0'), digits+1
	}
	if digits == 0 {
		return false
	}
	var unsigned, signed int64
	for i, c := range b[:blockSize] {
		if i >= 148 && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
