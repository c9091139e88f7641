package index

import (
	"bytes"
	"slices"
)

// Sparse files come in four layouts, all GNU tar's:
//
//	old GNU  type 'S': four (offset, length) pairs of 12-byte numbers in the
//	         header block, more in blocks that follow it; real size at 483
//	PAX 0.0  records GNU.sparse.offset and GNU.sparse.numbytes, in turn
//	PAX 0.1  record GNU.sparse.map: "offset,length,offset,length..."
//	PAX 1.0  the map at the start of the content, as decimal lines (the count,
//	         then offset and length in turn), padded to a whole block
//
// In each, the content is the extents' bytes, one after the other.

// readSparse finds the entry's holes, whichever way they are told, and sets
// Size, Stored and Sparse. The stream stands behind the header block.
func (t *TarReader) readSparse(b []byte, at int64, e *Entry, flag byte, f format) error {
	s := &t.pax.sparse
	switch {
	case flag == 'S':
		if s.used() {
			return t.badEntry(at, "is sparse in two ways")
		}
		if f != formatGNU {
			return t.badEntry(at, "GNU sparse file in a header that is not GNU's")
		}
		if err := t.readOldGNU(b, at, e); err != nil {
			return err
		}
	case s.used():
		if e.Type != TypeFile {
			return t.badEntry(at, "%s with a sparse map", e.Type)
		}
		if err := t.readPAXSparse(at, e); err != nil {
			return err
		}
	default:
		return nil
	}
	return t.checkSparse(at, e)
}

// readOldGNU reads the map of a type 'S' entry: in its block b, and in the
// extension blocks behind it.
func (t *TarReader) readOldGNU(b []byte, at int64, e *Entry) error {
	s := &t.pax.sparse
	real, ok := parseNumber(b[483:495])
	if !ok || real < 0 {
		return t.badEntry(at, "real size of a sparse file is no size")
	}
	s.realSize = real
	fields, more := b[386:482], b[482] != 0
	for {
		for ; len(fields) >= 24; fields = fields[24:] {
			if fields[0] == 0 { // an unused pair ends the list
				break
			}
			off, ok1 := parseNumber(fields[:12])
			n, ok2 := parseNumber(fields[12:24])
			if !ok1 || !ok2 {
				return t.badEntry(at, "sparse map has a field that is no number")
			}
			if err := t.addExtent(at, off, n); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		next, err := t.block()
		if err != nil {
			return t.ended(err)
		}
		fields, more = next[:504], next[504] != 0
	}
}

// applySparseRecord takes a GNU.sparse.* record in.
func (t *TarReader) applySparseRecord(at int64, key string, value []byte) error {
	s := &t.pax.sparse
	if key == "GNU.sparse.map" {
		s.fragments = value
		return nil
	}
	n, ok := parseDecimal(value)
	if !ok {
		return t.badEntry(at, "PAX %s %.40q is no number", key, value)
	}
	switch key {
	case "GNU.sparse.major":
		s.major = n
	case "GNU.sparse.minor":
		s.minor = n
	case "GNU.sparse.realsize", "GNU.sparse.size":
		if s.realSize >= 0 && s.realSize != n {
			return t.badEntry(at, "two real sizes, %d and %d", s.realSize, n)
		}
		s.realSize = n
	case "GNU.sparse.numblocks":
		s.count = n
	case "GNU.sparse.offset":
		if s.oddOffset {
			return t.badEntry(at, "two sparse offsets without a length between them")
		}
		if err := t.addExtent(at, n, 0); err != nil {
			return err
		}
		s.oddOffset = true
	case "GNU.sparse.numbytes":
		if !s.oddOffset {
			return t.badEntry(at, "a sparse length without an offset")
		}
		s.pairs[len(s.pairs)-1].Len = n
		s.oddOffset = false
	}
	return nil
}

// addExtent appends to the map under construction, within the limit.
func (t *TarReader) addExtent(at, off, n int64) error {
	s := &t.pax.sparse
	if len(s.pairs) >= t.limits.Fragments {
		return &TarError{Offset: at, Name: string(t.entry.Name), Rule: sprintf("sparse map of more than %d ranges (max-fragments)", t.limits.Fragments), Err: ErrTarLimit}
	}
	if n := len(s.pairs); n == cap(s.pairs) && n >= 1<<16 {
		// Growing step by step would leave twice the memory behind.
		s.pairs = slices.Grow(s.pairs, t.limits.Fragments-n)
	}
	s.pairs = append(s.pairs, Extent{off, n})
	return nil
}

// readPAXSparse collects the map of the three PAX layouts.
func (t *TarReader) readPAXSparse(at int64, e *Entry) error {
	s := &t.pax.sparse
	if s.realSize < 0 {
		return t.badEntry(at, "sparse file without its real size")
	}
	switch {
	case s.major == 1 && s.minor == 0:
		if s.fragments != nil || len(s.pairs) > 0 {
			return t.badEntry(at, "is sparse in two ways")
		}
		return t.readMapInContent(at, e)
	case s.major > 0 || s.minor > 1:
		return t.badEntry(at, "sparse format %d.%d is unknown", s.major, s.minor)
	case s.fragments != nil:
		if len(s.pairs) > 0 {
			return t.badEntry(at, "is sparse in two ways")
		}
		if err := t.parseMap(at, s.fragments); err != nil {
			return err
		}
	}
	if s.oddOffset {
		return t.badEntry(at, "a sparse offset without a length")
	}
	if s.count >= 0 && s.count != int64(len(s.pairs)) {
		return t.badEntry(at, "sparse map of %d ranges, %d were announced", len(s.pairs), s.count)
	}
	return nil
}

// parseMap reads "offset,length,offset,length...".
func (t *TarReader) parseMap(at int64, m []byte) error {
	for len(m) > 0 {
		var off, n int64
		for i, dst := range []*int64{&off, &n} {
			num, rest, comma := bytes.Cut(m, []byte{','})
			v, ok := parseDecimal(num)
			if !ok || (i == 0 && !comma) || (comma && len(rest) == 0) {
				return t.badEntry(at, "malformed sparse map")
			}
			*dst, m = v, rest
		}
		if err := t.addExtent(at, off, n); err != nil {
			return err
		}
	}
	return nil
}

// readMapInContent reads the map of PAX 1.0 from the content's first blocks
// and takes them off the content.
func (t *TarReader) readMapInContent(at int64, e *Entry) error {
	var (
		block []byte
		used  int64
	)
	number := func() (int64, error) {
		n, digits := int64(0), 0
		for {
			if len(block) == 0 {
				if used+blockSize > e.Size {
					return 0, t.badEntry(at, "sparse map does not end within the content")
				}
				b, err := t.block()
				if err != nil {
					return 0, t.ended(err)
				}
				block, used = b, used+blockSize
			}
			c := block[0]
			block = block[1:]
			if c == '\n' && digits > 0 {
				return n, nil
			}
			if c < '0' || c > '9' || digits == 18 {
				return 0, t.badEntry(at, "malformed sparse map in the content")
			}
			n, digits = n*10+int64(c-'0'), digits+1
		}
	}
	count, err := number()
	if err != nil {
		return err
	}
	for range count { // bounded by addExtent, and by the content
		off, err := number()
		if err != nil {
			return err
		}
		n, err := number()
		if err != nil {
			return err
		}
		if err := t.addExtent(at, off, n); err != nil {
			return err
		}
	}
	e.Size -= used
	return nil
}

// checkSparse holds the map against the sizes: ranges ascend, do not overlap,
// stay within the file, and hold just the bytes that are stored.
func (t *TarReader) checkSparse(at int64, e *Entry) error {
	s := &t.pax.sparse
	stored := e.Size
	e.Size, e.Stored = s.realSize, stored
	var end, sum int64
	keep := s.pairs[:0]
	for _, x := range s.pairs {
		if x.Off < end || x.Len < 0 || x.Off > e.Size || x.Len > e.Size-x.Off {
			return t.badEntry(at, "sparse range at %d of %d bytes overlaps another or leaves the file of %d bytes", x.Off, x.Len, e.Size)
		}
		end = x.Off + x.Len
		sum += x.Len
		if x.Len > 0 { // empty ranges only mark the end of the file
			keep = append(keep, x)
		}
	}
	if sum != stored {
		return t.badEntry(at, "sparse map holds %d bytes, the archive %d", sum, stored)
	}
	s.pairs = keep
	e.Sparse = keep
	if len(keep) == 0 {
		e.Sparse = []Extent{} // all hole: not nil
	}
	return nil
}
