package index

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// contents is all that an index file says, as the builders have it.
type contents struct {
	object ObjectID
	gzip   bool
	tar    bool
	stream int64
	tree   *treeBuilder
	spans  *spanBuilder
}

// encode writes everything behind the header to w, section by section, and
// returns the header.
func (c *contents) encode(w io.Writer) ([]byte, error) {
	t := c.tree
	var ids [3]uint32
	for i, s := range []string{c.object.ID, c.object.ETag, c.object.SHA256} {
		at, refusal := t.string([]byte(s))
		if refusal != nil {
			return nil, refusal
		}
		ids[i] = at
	}
	children := t.sortChildren()
	t.settleLinks()

	e := &encoder{w: w, digest: sha256.New(), off: headerSize}
	h := make([]byte, headerSize)
	for s := range numSections {
		e.pad()
		begin := e.off
		c.section(e, s, children)
		le.PutUint64(h[atSections+16*int(s):], uint64(begin))
		le.PutUint64(h[atSections+16*int(s)+8:], uint64(e.off-begin))
	}
	copy(h, magic)
	var flags uint32
	for flag, is := range map[uint32]bool{flagGzip: c.gzip, flagTree: c.tar, flagSums: c.spans.sums} {
		if is {
			flags |= flag
		}
	}
	le.PutUint32(h[atVersion:], formatVersion)
	le.PutUint32(h[atFlags:], flags)
	le.PutUint64(h[atFileSize:], uint64(e.off))
	le.PutUint64(h[atObjectSize:], uint64(c.object.Size))
	le.PutUint64(h[atStreamSize:], uint64(c.stream))
	le.PutUint32(h[atSumsCRC:], crc32.Checksum(e.sums, castagnoli))
	for i, at := range ids {
		le.PutUint32(h[atStrings+4*i:], at)
	}
	e.digest.Write(h)
	e.digest.Sum(h[atDigest:atDigest])
	le.PutUint32(h[atHeaderCRC:], crc32.Checksum(h[:atHeaderCRC], castagnoli))
	return h, e.err
}

// section writes one section.
func (c *contents) section(e *encoder, s section, children []uint32) {
	t := c.tree
	switch s {
	case secRows:
		for i := range t.rows.n {
			e.record(t.rows.at(uint32(i)))
		}
	case secChildren:
		for _, r := range children {
			e.buf = le.AppendUint32(e.buf[:0], r)
			e.write(e.buf)
		}
	case secStrings:
		e.write(t.strings)
	case secClasses:
		for _, x := range t.classes {
			e.record(x)
		}
	case secExtras:
		for _, x := range t.extras {
			e.record(x)
		}
	case secXattrs:
		for _, x := range t.xattrs {
			e.buf = le.AppendUint32(le.AppendUint32(e.buf[:0], x[0]), x[1])
			e.write(e.buf)
		}
	case secPieces:
		for _, x := range t.pieces {
			e.record(x)
		}
	case secSpans:
		if !c.gzip && !c.spans.sums {
			return // all of their sizes are known
		}
		for i := range c.spans.spans {
			if c.gzip {
				e.record(&c.spans.spans[i])
				continue
			}
			e.buf = le.AppendUint32(e.buf[:0], c.spans.spans[i].sum)
			e.write(e.buf)
		}
	case secWindows:
		e.write(c.spans.windows)
	case secSums:
		e.endSums()
		e.write(e.sums)
	}
}

// encoder writes the bytes behind the header, and sums them.
type encoder struct {
	w      io.Writer
	digest hash.Hash
	off    int64
	buf    []byte
	crc    uint32
	inSum  int // bytes of the current block
	sums   []byte
	done   bool // with block sums
	err    error
}

func (e *encoder) record(x interface{ append([]byte) []byte }) {
	e.buf = x.append(e.buf[:0])
	e.write(e.buf)
}

func (e *encoder) write(p []byte) {
	if e.err == nil {
		_, e.err = e.w.Write(p)
	}
	e.digest.Write(p)
	e.off += int64(len(p))
	for len(p) > 0 && !e.done {
		n := min(len(p), sumBlock-e.inSum)
		e.crc = crc32.Update(e.crc, castagnoli, p[:n])
		if e.inSum += n; e.inSum == sumBlock {
			e.nextSum()
		}
		p = p[n:]
	}
}

func (e *encoder) nextSum() {
	e.sums = le.AppendUint32(e.sums, e.crc)
	e.crc, e.inSum = 0, 0
}

// endSums sums the last block: what follows is the sums themselves.
func (e *encoder) endSums() {
	if e.inSum > 0 {
		e.nextSum()
	}
	e.done = true
}

func (e *encoder) pad() {
	var zero [8]byte
	e.write(zero[:-e.off&7])
}

// sortChildren puts the live names of each directory in order, and tells the
// directories where they are.
func (t *treeBuilder) sortChildren() []uint32 {
	// Of the children of each row: their number, then where they end, and as
	// they are put in from the last on, where they begin.
	begin := make([]uint32, t.rows.n+1)
	for r := 1; r < t.rows.n; r++ {
		if !t.dead[uint32(r)] {
			begin[t.rows.at(uint32(r)).parent]++
		}
	}
	for i := range t.rows.n {
		begin[i+1] += begin[i]
	}
	children := make([]uint32, begin[t.rows.n])
	for r := t.rows.n - 1; r > 0; r-- {
		if x := t.rows.at(uint32(r)); !t.dead[uint32(r)] {
			begin[x.parent]--
			children[begin[x.parent]] = uint32(r)
		}
	}
	for d := range t.rows.n {
		x := t.rows.at(uint32(d))
		if t.classes[x.class].typ != TypeDir {
			continue
		}
		list := children[begin[d]:begin[d+1]]
		slices.SortFunc(list, func(a, b uint32) int {
			return bytes.Compare(t.stringAt(t.rows.at(a).name), t.stringAt(t.rows.at(b).name))
		})
		x.data, x.size = begin[d], int64(len(list))
	}
	return children
}

// settleLinks notes the link counts that are not 1.
func (t *treeBuilder) settleLinks() {
	nodes := make([]uint32, 0, len(t.links))
	for r := range t.links {
		nodes = append(nodes, r)
	}
	slices.Sort(nodes) // for the order of extras, which is of the file
	for _, r := range nodes {
		x := t.rows.at(r)
		if x.extra == 0 {
			if t.links[r] == 1 {
				continue
			}
			t.extras = append(t.extras, extra{nlink: 1})
			x.extra = uint32(len(t.extras))
		}
		t.extras[x.extra-1].nlink = t.links[r]
	}
}

// toMemory encodes into one slice.
func (c *contents) toMemory() ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, headerSize))
	h, err := c.encode(&b)
	if err != nil {
		return nil, err
	}
	copy(b.Bytes(), h)
	return b.Bytes(), nil
}

// toFile encodes into the file at path, which is there as a whole or not at
// all. It is not synced: what a crash leaves of it fails its sums, and is
// built again.
func (c *contents) toFile(path string) error {
	return replaceFile(path, func(f *os.File) error {
		if _, err := f.Seek(headerSize, io.SeekStart); err != nil {
			return err
		}
		w := bufio.NewWriterSize(f, 256<<10)
		h, err := c.encode(w)
		if err == nil {
			err = w.Flush()
		}
		if err == nil {
			_, err = f.WriteAt(h, 0)
		}
		return err
	})
}

// replaceFile writes a file beside path and renames it there.
func replaceFile(path string, write func(f *os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-index-*")
	if err != nil {
		return fmt.Errorf("save index: %w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("save index: %w", err)
		}
	}()
	if err = write(f); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
