package index

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/klauspost/compress/zstd"
)

// An index is published as an object of its own, beside the one it is of: the
// index file compressed by zstd, under a name that is made of the object's id,
// with metadata that says of what it is, so that it is refused unread when it
// does not fit.

// PublishedContentType is the content type of a published index, in the
// Storage Objects API's words.
const PublishedContentType = "binary"

const publishedSuffix = ".objectmount-index"

// Keys of a published index's metadata.
const (
	MetaVersion = "objectmount-index-version" // of the format
	MetaObject  = "objectmount-index-object"  // id of the object
	MetaSize    = "objectmount-index-size"    // bytes of the object
	MetaETag    = "objectmount-index-etag"
	MetaSHA256  = "objectmount-index-sha256" // of the object, in hex; may be missing
	MetaDigest  = "objectmount-index-digest" // of the index file, in hex
)

// PublishedName is the name of the index of the object with that id.
func PublishedName(objectID string) string { return objectID + publishedSuffix }

// Metadata is what a published index says of itself.
func (x *Index) Metadata() map[string]string {
	m := map[string]string{
		MetaVersion: strconv.Itoa(formatVersion),
		MetaObject:  x.object.ID,
		MetaSize:    strconv.FormatInt(x.object.Size, 10),
		MetaDigest:  x.Digest(),
	}
	if x.object.ETag != "" {
		m[MetaETag] = x.object.ETag
	}
	if x.object.SHA256 != "" {
		m[MetaSHA256] = x.object.SHA256
	}
	return m
}

// CheckMetadata says whether a published index with this metadata can be of
// the object want, which has an id. Errors wrap ErrMismatch.
func CheckMetadata(m map[string]string, want ObjectID) error {
	if v := m[MetaVersion]; v != strconv.Itoa(formatVersion) {
		return fmt.Errorf("%w: its format is version %q, this program knows %d", ErrMismatch, v, formatVersion)
	}
	size, err := strconv.ParseInt(m[MetaSize], 10, 64)
	if err != nil || m[MetaDigest] == "" || m[MetaObject] == "" {
		return fmt.Errorf("%w: its metadata is not complete", ErrMismatch)
	}
	return want.Match(ObjectID{ID: m[MetaObject], Size: size, ETag: m[MetaETag], SHA256: m[MetaSHA256]})
}

// Publish writes the index to w as it is published.
func (x *Index) Publish(w io.Writer) (err error) {
	defer x.guard(&err)()
	if err := x.Verify(); err != nil {
		return err
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return err
	}
	if _, err := z.Write(x.b); err != nil {
		z.Close()
		return err
	}
	return z.Close()
}

// maxPublished bounds an index file that comes from elsewhere: far more than
// the largest archive's, and less than would fill a disk.
const maxPublished = 4 << 30

// Install reads a published index from r, checks that it is whole and of the
// object want, saves it at path by rename and opens it. digest is what its
// metadata said; "" is not compared. Errors wrap ErrDamaged or ErrMismatch, or
// are those of r or the file.
func Install(r io.Reader, path string, want ObjectID, digest string) (*Index, error) {
	in := &rememberError{r: r}
	z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var x *Index
	err = replaceFile(path, func(f *os.File) error {
		n, err := io.Copy(f, io.LimitReader(z, maxPublished+1))
		switch {
		case in.err != nil:
			return in.err
		case err != nil && !errors.As(err, new(*os.PathError)):
			return damaged("decompress: %v", err)
		case err != nil:
			return err
		case n == 0:
			return damaged("it is empty")
		}
		if n > maxPublished {
			return damaged("it has more than %d bytes", int64(maxPublished))
		}
		if x, err = Open(f.Name(), want); err != nil {
			return err
		}
		if digest != "" && digest != x.Digest() {
			return fmt.Errorf("%w: its digest is %s, its metadata said %s", ErrMismatch, x.Digest(), digest)
		}
		return x.Verify()
	})
	if err != nil {
		if x != nil {
			x.Close()
		}
		return nil, err
	}
	return x, nil
}

// rememberError is a reader whose errors can be told from those of what reads
// it.
type rememberError struct {
	r   io.Reader
	err error
}

func (r *rememberError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
