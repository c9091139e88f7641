package extract

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
	"golang.org/x/sys/unix"

	"objectmount/index"
)

// PackOptions says how to pack. The zero value is useful.
type PackOptions struct {
	// IgnoreFile is a file of patterns of what to leave out, in the syntax of
	// .dockerignore. Empty means ".dockerignore" in the directory, if it
	// exists; that file is then left out too.
	IgnoreFile string
	// NoIgnore packs everything, .dockerignore too.
	NoIgnore bool
	// Progress is called after each entry and now and then within large
	// files, with the entries and the bytes of content so far.
	Progress func(entries, bytes int64)
}

// packedID is the owner of all entries of a packed archive: the first user of
// a Devbox, as rl-cli has it. Who happened to upload is nobody's business, and
// other extractors that do apply owners then give the files to that user.
const packedID = 1000

const packBuffer = 256 << 10 // of content at a time

// Pack writes the directory dir to w as a gzip-compressed tar: what is in it
// lies at the archive's root, under names that begin with "./", as the public
// clients pack. The same tree gives the same bytes: entries are sorted, and
// nothing of the machine or the moment is stored but modes, modification
// times (to the nanosecond), symbolic links as they are, hard links as links.
//
// Sockets are left out: they mean nothing elsewhere. Devices and FIFOs are
// refused, and so is what Extract would refuse: names that are too long or
// too deep. A file or directory that changes while it is read gives an error.
// dir itself may be a symbolic link; none below it is followed. An error of w
// is passed on wrapped; what was written until then is no whole archive.
func Pack(ctx context.Context, dir string, w io.Writer, opts PackOptions) error {
	if err := pack(ctx, dir, w, opts); err != nil {
		return fmt.Errorf("pack %s: %w", quote(dir), err)
	}
	return nil
}

func pack(ctx context.Context, dir string, w io.Writer, opts PackOptions) error {
	root, err := openat(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	ignore, err := readIgnore(root, opts)
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(w) // no name and no time in the header: see above
	p := &packer{
		ctx: ctx, tar: tar.NewWriter(zip), ignore: ignore, opts: opts,
		links: map[inode]string{}, buf: make([]byte, packBuffer),
	}
	if err := p.dir(root, ".", ignored{}); err != nil {
		return err
	}
	if err := p.tar.Close(); err != nil {
		return err
	}
	return zip.Close()
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx    context.Context
	tar    *tar.Writer
	ignore *ignore
	opts   PackOptions
	links  map[inode]string // first names of files that have several
	buf    []byte

	// Directories that are ignored themselves, but may hold something that
	// is not: written when the first such thing comes.
	waiting []*tar.Header
	entries int64
	bytes   int64
}

// dir packs the open directory fd and all in it. name is as in the archive
// without the last slash; "." is the root.
func (p *packer) dir(fd int, name string, state ignored) error {
	before, err := fstat(fd)
	if err != nil {
		return err
	}
	hdr := header(name+"/", tar.TypeDir, &before)
	if state.out {
		p.waiting = append(p.waiting, hdr)
	} else if err := p.write(hdr); err != nil {
		return err
	}
	var names []string
	if err := eachName(fd, func(name string) error {
		names = append(names, name)
		return nil
	}); err != nil {
		return fmt.Errorf("read directory %s: %w", quote(name), err)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if err := p.entry(fd, n, name+"/"+n, state); err != nil {
			return err
		}
	}
	if state.out && len(p.waiting) > 0 && p.waiting[len(p.waiting)-1] == hdr {
		p.waiting = p.waiting[:len(p.waiting)-1]
	}
	after, err := fstat(fd)
	if err != nil {
		return err
	}
	if after.Mtim != before.Mtim {
		return fmt.Errorf("directory %s changed while it was packed: try again when nothing writes to it", quote(name))
	}
	return nil
}

// entry packs one name of the directory dir.
func (p *packer) entry(dir int, base, name string, parent ignored) error {
	st, err := lstatat(dir, base)
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s vanished while the directory was packed", quote(name))
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", quote(name), err)
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	state, err := p.ignore.judge(name[len("./"):], parent)
	if err != nil {
		return err
	}
	if state.out && !(isDir && p.ignore.hasExceptions()) {
		return nil
	}
	e := index.Entry{Name: []byte(name), Type: index.TypeFile}
	if _, _, refusal := e.Judge(Limits{}.withDefaults().rules()); refusal != nil {
		return fmt.Errorf("%s: %w: %s", quote(name), sentinelOf(refusal.Err), refusal.Rule)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fd, err := openSame(dir, base, name, &st, openDirFlags)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return p.dir(fd, name, state)
	case unix.S_IFREG:
		return p.file(dir, base, name, &st)
	case unix.S_IFLNK:
		return p.symlink(dir, base, name, &st)
	case unix.S_IFSOCK:
		return nil
	}
	return fmt.Errorf("%s is %s, which an object cannot hold: leave it out with a line in .dockerignore",
		quote(name), typeName(st.Mode))
}

func (p *packer) symlink(dir int, base, name string, st *unix.Stat_t) error {
	target := make([]byte, 4096)
	n, err := unix.Readlinkat(dir, base, target)
	if err != nil {
		return fmt.Errorf("read link %s: %w", quote(name), err)
	}
	hdr := header(name, tar.TypeSymlink, st)
	hdr.Linkname = string(target[:n])
	return p.write(hdr)
}

func (p *packer) file(dir int, base, name string, st *unix.Stat_t) error {
	id := inode{st.Dev, st.Ino}
	if first := p.links[id]; st.Nlink > 1 && first != "" {
		hdr := header(name, tar.TypeLink, st)
		hdr.Linkname = first
		return p.write(hdr)
	}
	fd, err := openSame(dir, base, name, st, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if st.Nlink > 1 {
		p.links[id] = name
	}
	hdr := header(name, tar.TypeReg, st)
	hdr.Size = st.Size
	if err := p.write(hdr); err != nil {
		return err
	}
	for off := int64(0); ; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		var n int
		err := retry(func() (err error) {
			n, err = unix.Read(fd, p.buf)
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", quote(name), err)
		}
		if off += int64(n); off > st.Size || (n == 0 && off < st.Size) {
			return changed(name)
		}
		if n == 0 {
			break
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return err
		}
		p.bytes += int64(n)
		p.tell()
	}
	after, err := fstat(fd)
	if err != nil {
		return err
	}
	if after.Mtim != st.Mtim || after.Size != st.Size {
		return changed(name)
	}
	return nil
}

func changed(name string) error {
	return fmt.Errorf("%s changed while it was packed: try again when nothing writes to it", quote(name))
}

// openSame opens what was just looked at, and nothing else.
func openSame(dir int, base, name string, st *unix.Stat_t, flags int) (int, error) {
	fd, err := openat(dir, base, flags, 0)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", quote(name), err)
	}
	now, err := fstat(fd)
	if err == nil && (now.Ino != st.Ino || now.Dev != st.Dev || now.Mtim != st.Mtim || now.Size != st.Size) {
		err = changed(name)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// write writes a header, after those of waiting directories.
func (p *packer) write(hdr *tar.Header) error {
	for _, dir := range p.waiting {
		if err := p.writeOne(dir); err != nil {
			return err
		}
	}
	p.waiting = p.waiting[:0]
	return p.writeOne(hdr)
}

func (p *packer) writeOne(hdr *tar.Header) error {
	if err := p.tar.WriteHeader(hdr); err != nil {
		return fmt.Errorf("%s: %w", quote(hdr.Name), err)
	}
	p.entries++
	p.tell()
	return nil
}

func (p *packer) tell() {
	if p.opts.Progress != nil {
		p.opts.Progress(p.entries, p.bytes)
	}
}

func header(name string, kind byte, st *unix.Stat_t) *tar.Header {
	return &tar.Header{
		// PAX, or the writer rounds times to seconds. It writes extended
		// headers only for those entries that need one.
		Format:   tar.FormatPAX,
		Typeflag: kind,
		Name:     name,
		Mode:     int64(st.Mode & 0o7777),
		Uid:      packedID,
		Gid:      packedID,
		ModTime:  time.Unix(st.Mtim.Unix()),
	}
}
