package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	copyBuffer = 256 << 10 // bytes a transfer holds in memory
	flushEvery = 32 << 20  // bytes of an upload after which writing to disk begins and free space is looked at
	minFree    = 64 << 20  // bytes of disk that uploads leave for the database: a full disk must not stop deletes
)

// errNoSpace: the disk is full, or would be too full for the database.
var errNoSpace = errors.New("no space left for content")

// contentDir is where content lives: incoming for uploads on their way, and
// content/XX for whole ones, spread over 256 directories. A whole upload is
// named content/XX/ID.XX…, XX… being random, so that it never replaces
// another and what a reader has open never changes.
type contentDir struct {
	incoming, content string
	free              func(dir string) (int64, error) // bytes
}

// contentFile is the form of a whole upload's path below content/.
var contentFile = regexp.MustCompile(`^([0-9a-f]{2})/obj_[0-9A-Za-z]{21}\.([0-9a-f]{2})[0-9a-f]{14}$`)

// halfSecret is the form of a file that writeSecret was making when it died.
var halfSecret = regexp.MustCompile(`^\.(` + LocalKeyFile + `|` + urlSecretFile + `)\.[0-9]+$`)

// openContent makes the directories and removes what was on its way: nobody
// but a dead process can have left anything there.
func openContent(dataDir string) (contentDir, error) {
	c := contentDir{filepath.Join(dataDir, "incoming"), filepath.Join(dataDir, "content"), freeBytes}
	if err := os.RemoveAll(c.incoming); err != nil {
		return c, err
	}
	names, err := os.ReadDir(dataDir)
	if err != nil {
		return c, err
	}
	for _, n := range names {
		if halfSecret.MatchString(n.Name()) {
			if err := os.Remove(filepath.Join(dataDir, n.Name())); err != nil {
				return c, err
			}
		}
	}
	for _, d := range []string{c.incoming, c.content} {
		if err := os.Mkdir(d, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return c, err
		}
	}
	return c, syncDir(dataDir)
}

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// receive writes src to a new whole upload of the object id and gives its
// path below content/ and its size in bytes. On any error nothing is left.
// Nothing refers to the file yet: who called names it in the database, or
// removes it.
func (c contentDir) receive(id string, src io.Reader) (file string, size int64, err error) {
	f, err := os.CreateTemp(c.incoming, id+".*") // 0600
	if err != nil {
		return "", 0, spaceError(err)
	}
	size, err = c.copyTo(f, src)
	if err == nil {
		err = spaceError(f.Sync())
	}
	if cerr := f.Close(); err == nil {
		err = spaceError(cerr)
	}
	if err == nil {
		file, err = c.publish(f.Name(), id)
	}
	if err != nil {
		if rerr := os.Remove(f.Name()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return "", size, err
	}
	return file, size, nil
}

// publish moves a synced file to its place below content/.
func (c contentDir) publish(from, id string) (file string, err error) {
	var random [8]byte
	rand.Read(random[:])
	gen := hex.EncodeToString(random[:])
	shard := filepath.Join(c.content, gen[:2])
	switch err := os.Mkdir(shard, 0o700); {
	case err == nil:
		if err := syncDir(c.content); err != nil {
			return "", err
		}
	case !errors.Is(err, fs.ErrExist):
		return "", spaceError(err)
	}
	file = gen[:2] + "/" + id + "." + gen
	if err := os.Rename(from, filepath.Join(c.content, file)); err != nil {
		return "", spaceError(err)
	}
	if err := syncDir(shard); err != nil {
		return "", errors.Join(err, os.Remove(filepath.Join(c.content, file)))
	}
	return file, nil
}

// copyTo copies src to f. Every flushEvery bytes it has the kernel begin to
// write what is there, so that the sync at the end of a large upload is short.
func (c contentDir) copyTo(f *os.File, src io.Reader) (size int64, err error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	var flushed int64
	for {
		if size-flushed >= flushEvery || size == 0 {
			if free, err := c.free(c.incoming); err == nil && free < minFree {
				return size, errNoSpace
			}
			if size > 0 {
				// Only a hint: not every file system knows it.
				_ = unix.SyncFileRange(int(f.Fd()), flushed, size-flushed, unix.SYNC_FILE_RANGE_WRITE)
				flushed = size
			}
		}
		n, err := src.Read(buf[:])
		if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				return size, spaceError(werr)
			}
			size += int64(n)
		}
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return size, err
		}
	}
}

// open opens a whole upload.
func (c contentDir) open(file string) (*os.File, error) {
	return os.OpenFile(filepath.Join(c.content, file), os.O_RDONLY|unix.O_NOFOLLOW, 0)
}

// remove removes a whole upload that no row names any more. One that cannot
// be removed now is swept at the next start.
func (s *Store) remove(file string) {
	if file == "" {
		return
	}
	if err := os.Remove(filepath.Join(s.content.content, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("content of a gone object stays until the next start", zap.Error(err))
	}
}

// sweep removes whole uploads that no row names: what a crash between a
// rename and its transaction, or between a transaction and its removal, left.
// It runs before the first request, so nothing is on its way.
func (s *Store) sweep(ctx context.Context) error {
	shards, err := os.ReadDir(s.content.content)
	if err != nil {
		return err
	}
	strays := 0
	for _, d := range shards {
		shard := d.Name()
		if !d.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.content.content, shard))
		if err != nil {
			return err
		}
		named, err := s.namedFiles(ctx, shard)
		if err != nil {
			return err
		}
		for _, f := range files {
			file := shard + "/" + f.Name()
			if named[file] || !contentFile.MatchString(file) {
				continue // in use, or not of our making
			}
			if err := os.Remove(filepath.Join(s.content.content, file)); err != nil {
				return err
			}
			strays++
		}
	}
	if strays > 0 {
		s.log.Info("removed content that a crash left", zap.Int("files", strays))
	}
	return nil
}

// namedFiles gives the files of one directory that rows name.
func (s *Store) namedFiles(ctx context.Context, shard string) (map[string]bool, error) {
	rows, err := s.read.QueryContext(ctx, "SELECT file FROM objects WHERE file >= ? AND file < ?", shard+"/", shard+"0") // '0' follows '/'
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	named := map[string]bool{}
	for rows.Next() {
		var file string
		if err := rows.Scan(&file); err != nil {
			return nil, err
		}
		named[file] = true
	}
	return named, rows.Err()
}

// spaceError makes the ways in which a file system is full one error.
func spaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", errNoSpace, err)
	}
	return err
}

func freeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// syncDir makes the names in a directory as durable as what they name.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
