package index

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

// PAX extended headers (POSIX.1-2001, "pax Header Block"): the body of an 'x'
// entry is a run of records
//
//	"%d %s=%s\n", length, key, value
//
// where length counts the whole record, itself and the newline included. The
// last record of a key wins; an empty value means that the key is not set.

var sprintf = fmt.Sprintf

// paxRecords are the records of one entry that matter here. Slices point into
// the header's body.
type paxRecords struct {
	path, linkpath []byte
	size           int64 // -1: not set
	sparse         paxSparse
}

// paxSparse are the GNU.sparse.* records.
type paxSparse struct {
	major, minor int64  // -1: not set
	name         []byte // the real name: the header's has a made-up one
	realSize     int64  // -1: not set
	count        int64  // -1: not set
	fragments    []byte // 0.1: "off,len,off,len..."
	pairs        []Extent
	oddOffset    bool // 0.0: an offset waits for its length
}

func (p *paxRecords) reset() {
	pairs := p.sparse.pairs[:0]
	*p = paxRecords{size: -1, sparse: paxSparse{major: -1, minor: -1, realSize: -1, count: -1, pairs: pairs}}
}

// used is true when the header speaks of holes.
func (s *paxSparse) used() bool {
	return s.major >= 0 || s.minor >= 0 || s.count >= 0 || s.fragments != nil || len(s.pairs) > 0 || s.oddOffset
}

// nextPAX splits the first record off.
func nextPAX(body []byte) (key, value, rest []byte, ok bool) {
	sp := bytes.IndexByte(body, ' ')
	if sp < 1 || sp > 19 {
		return nil, nil, nil, false
	}
	n, ok := parseDecimal(body[:sp])
	if !ok || n > int64(len(body)) || n < int64(sp)+3 || body[n-1] != '\n' {
		return nil, nil, nil, false
	}
	record := body[sp+1 : n-1]
	eq := bytes.IndexByte(record, '=')
	if eq < 1 || bytes.IndexByte(record[:eq], 0) >= 0 {
		return nil, nil, nil, false
	}
	return record[:eq], record[eq+1:], body[n:], true
}

// readGlobal reads a 'g' header. What it could set for all entries that follow
// is either of no use here (comments, times) or a way to rename files behind a
// checker's back, which is refused.
func (t *TarReader) readGlobal(b []byte) error {
	at := t.off - blockSize
	body, err := t.readBody(b, t.global, "global PAX")
	if err != nil {
		return err
	}
	t.global = body
	for len(body) > 0 {
		key, _, rest, ok := nextPAX(body)
		if !ok {
			return t.corrupt(at, "malformed record in a global PAX header")
		}
		switch k := string(key); {
		case k == "path", k == "linkpath", k == "size", bytes.HasPrefix(key, []byte("GNU.sparse.")):
			return t.ambiguous(at, "a global PAX header sets %q for all entries", k)
		}
		body = rest
	}
	return nil
}

// applyPAX lets the pending PAX header override the block's fields.
func (t *TarReader) applyPAX(at int64, e *Entry) error {
	p := &t.pax
	for body := t.local.body; len(body) > 0; {
		key, value, rest, ok := nextPAX(body)
		if !ok {
			return t.badEntry(at, "malformed PAX record %.40q", body)
		}
		body = rest
		if err := t.applyRecord(at, e, key, value); err != nil {
			return err
		}
	}
	if p.path != nil {
		if t.longName.pending {
			return t.ambiguous(at, "has a long name and a PAX path %.100q", p.path)
		}
		e.Name = p.path
	}
	if p.linkpath != nil {
		if t.longLink.pending {
			return t.ambiguous(at, "has a long link and a PAX linkpath %.100q", p.linkpath)
		}
		e.Link = p.linkpath
	}
	if p.size >= 0 {
		e.Size = p.size
	}
	if p.sparse.name != nil {
		e.Name = p.sparse.name
	}
	return nil
}

// applyRecord takes one record in.
func (t *TarReader) applyRecord(at int64, e *Entry, key, value []byte) error {
	p := &t.pax
	empty := len(value) == 0
	number := func(dst *int64) error {
		n, ok := parseDecimal(value)
		if !ok {
			return t.badEntry(at, "PAX %s %.40q is no number", key, value)
		}
		*dst = n
		return nil
	}
	switch string(key) {
	case "path", "linkpath", "GNU.sparse.name":
		dst := &p.path
		switch string(key) {
		case "linkpath":
			dst = &p.linkpath
		case "GNU.sparse.name":
			dst = &p.sparse.name
		}
		if bytes.IndexByte(value, 0) >= 0 {
			return t.ambiguous(at, "PAX %s has a NUL inside", key)
		}
		if *dst = value; empty {
			*dst = nil
		}
	case "size":
		if empty {
			p.size = -1
			return nil
		}
		return number(&p.size)
	case "uid":
		if !empty {
			return number(&e.UID)
		}
	case "gid":
		if !empty {
			return number(&e.GID)
		}
	case "mtime":
		if empty {
			return nil
		}
		when, ok := parseTime(value)
		if !ok {
			return t.badEntry(at, "PAX mtime %.40q is no time", value)
		}
		e.ModTime = when
	default:
		switch {
		case bytes.HasPrefix(key, []byte("SCHILY.xattr.")):
			e.Xattrs = append(e.Xattrs, Xattr{key[len("SCHILY.xattr."):], value})
		case bytes.HasPrefix(key, []byte("GNU.sparse.")):
			return t.applySparseRecord(at, string(key), value)
		}
	}
	return nil
}

// parseDecimal reads an unsigned decimal number: digits only, within int64.
func parseDecimal(s []byte) (int64, bool) {
	if len(s) == 0 || len(s) > 64 {
		return 0, false
	}
	var n int64
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// parseTime reads a PAX time: seconds since 1970 with sign and fraction. More
// than nine digits of fraction are cut.
func parseTime(s []byte) (time.Time, bool) {
	negative := len(s) > 0 && s[0] == '-'
	if negative {
		s = s[1:]
	}
	whole, fraction, dotted := bytes.Cut(s, []byte{'.'})
	sec, ok := parseDecimal(whole)
	if !ok || (dotted && len(fraction) > 64) {
		return time.Time{}, false
	}
	nsec := int64(0)
	for i := range 9 {
		d := byte('0')
		if i < len(fraction) {
			d = fraction[i]
		}
		nsec = nsec*10 + int64(d-'0')
	}
	for _, c := range fraction {
		if c < '0' || c > '9' {
			return time.Time{}, false
		}
	}
	if negative {
		return time.Unix(-sec, -nsec), true
	}
	return time.Unix(sec, nsec), true
}
