package extract

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dirLog remembers what directories shall be given when all else is done: a
// read-only directory could not be filled, and filling it changes its time.
//
// An archive may have millions of directories, so they are written to a file
// as they come and read once, in the same order: of two entries for one
// directory the last wins by coming last. Only directories that their own
// owner may not enter are kept in memory, because those have to wait for all
// that is below them.
//
//	record: flags 1 · mode 4 · seconds 8 · nanoseconds 4 · length 2 · path
type dirLog struct {
	dir    int               // where the file is made
	fd     int               // of the file, which has no name; -1: nothing was written yet
	buf    []byte            // records that are not in it yet
	size   int64             // bytes in it
	shut   map[string]uint32 // modes of directories that nobody may enter
	shutBy int               // bytes of their paths
}

// dirRecord is what a directory will be given.
type dirRecord struct {
	path  string
	mode  uint32
	mtime unix.Timespec
	chmod bool // the mode is not the one that it was made with
}

const (
	dirLogBuffer = 64 << 10
	dirRecordMin = 1 + 4 + 8 + 4 + 2
	// maxShut bounds the paths of directories that nobody may enter. An
	// honest archive has a handful.
	maxShut = 4 << 20
)

// add notes a directory. wrote is called with what goes to the disk.
func (l *dirLog) add(r *dirRecord, wrote func(int) error) error {
	if r.mode&0o500 != 0o500 {
		if _, ok := l.shut[r.path]; !ok {
			if l.shutBy += len(r.path); l.shutBy > maxShut {
				return refuse(ErrLimit, "too many directories that their owner may not enter")
			}
		}
		if l.shut == nil {
			l.shut = map[string]uint32{}
		}
		l.shut[strings.Clone(r.path)] = r.mode
	} else if len(l.shut) > 0 {
		delete(l.shut, r.path)
	}
	if len(l.buf)+dirRecordMin+len(r.path) > dirLogBuffer {
		if err := l.flush(wrote); err != nil {
			return err
		}
	}
	flags := byte(0)
	if r.chmod || r.mode&0o700 != 0o700 {
		flags = 1
	}
	b := append(l.buf, flags)
	b = binary.LittleEndian.AppendUint32(b, r.mode)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.mtime.Sec))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.mtime.Nsec))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(r.path)))
	l.buf = append(b, r.path...)
	return nil
}

// flush writes the buffered records to the file.
func (l *dirLog) flush(wrote func(int) error) error {
	if l.fd < 0 {
		const name = "directories" // in the stage, beside what is made
		fd, err := openat(l.dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600)
		if err == nil {
			l.fd, err = fd, unlinkat(l.dir, name, 0)
		}
		if err != nil {
			return fmt.Errorf("make a file for the list of directories: %w", err)
		}
	}
	if err := pwrite(l.fd, l.buf, l.size); err != nil {
		return writeError("write", "the list of directories", err)
	}
	n := len(l.buf)
	l.size, l.buf = l.size+int64(n), l.buf[:0]
	return wrote(n)
}

// each gives all records in order. shut directories are left open: their mode
// comes with eachShut.
func (l *dirLog) each(ctx context.Context, do func(r *dirRecord) error) error {
	last := l.buf // the records that never went to the file
	buf := make([]byte, 0, dirLogBuffer)
	for off := int64(0); ; {
		for len(buf) >= dirRecordMin {
			n := dirRecordMin + int(binary.LittleEndian.Uint16(buf[17:]))
			if len(buf) < n {
				break
			}
			r := dirRecord{
				chmod: buf[0] != 0,
				mode:  binary.LittleEndian.Uint32(buf[1:]),
				mtime: unix.Timespec{
					Sec:  int64(binary.LittleEndian.Uint64(buf[5:])),
					Nsec: int64(binary.LittleEndian.Uint32(buf[13:])),
				},
				path: string(buf[dirRecordMin:n]),
			}
			if err := do(&r); err != nil {
				return err
			}
			buf = buf[n:]
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		switch {
		case off < l.size:
			rest := len(buf) // the beginning of a record
			whole := make([]byte, dirLogBuffer)
			copy(whole, buf)
			n, err := l.read(whole[rest:], off)
			if err != nil {
				return err
			}
			buf, off = whole[:rest+n], off+int64(n)
		case len(last) > 0:
			buf, last = last, nil // a record never lies in both
		default:
			return nil
		}
	}
}

func (l *dirLog) read(p []byte, off int64) (n int, err error) {
	p = p[:min(int64(len(p)), l.size-off)]
	err = retry(func() error {
		n, err = unix.Pread(l.fd, p, off)
		return err
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("it ends at %d of %d bytes", off, l.size)
	}
	if err != nil {
		return 0, fmt.Errorf("read the list of directories: %w", err)
	}
	return n, nil
}

// eachShut gives the directories that nobody may enter, deepest first.
func (l *dirLog) eachShut(do func(path string, mode uint32) error) error {
	paths := slices.SortedFunc(maps.Keys(l.shut), func(a, b string) int {
		return strings.Count(b, "/") - strings.Count(a, "/")
	})
	for _, path := range paths {
		if err := do(path, l.shut[path]); err != nil {
			return err
		}
	}
	return nil
}

func (l *dirLog) close() {
	if l.fd >= 0 {
		unix.Close(l.fd)
		l.fd = -1
	}
}
