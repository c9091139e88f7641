package index

import (
	"errors"
	"fmt"
	"strings"
)

// ErrTarUnsafe: an entry would leave the tree, lead through a link, or be
// something that an object must not hold, such as a device node.
var ErrTarUnsafe = errors.New("unsafe tar archive")

// Limits bound what an archive may ask for. A zero field means its default.
// They are those of extraction, under the same names.
type Limits struct {
	Entries   int64 // files, directories and links; default 10,000,000
	Bytes     int64 // bytes of all files, holes included; default: no limit
	FileBytes int64 // bytes of one file, holes included; default 16 TiB, the most that ext4 can hold
	Depth     int64 // components of a name; default 512
	Path      int64 // bytes of a name; default and most 4095
	Component int64 // bytes of a component; default and most 255
	Link      int64 // bytes of a link's target; default and most 4095
	Header    int64 // bytes of a PAX or GNU extension header; default 1 MiB
	Fragments int64 // ranges with content of a sparse file; default and most 1,000,000
}

func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		v         *int64
		def, most int64 // most 0: any
	}{
		{&l.Entries, 10_000_000, 1 << 31}, // rows are numbered in 32 bits
		{&l.FileBytes, 16 << 40, 0},
		{&l.Depth, 512, 2048},
		{&l.Path, 4095, 4095}, // what Linux can hold: no use in more
		{&l.Component, 255, 255},
		{&l.Link, 4095, 4095},
		{&l.Header, defaultHeaderLimit, 4 << 20},
		{&l.Fragments, defaultFragmentsLimit, defaultFragmentsLimit},
	} {
		if *x.v <= 0 {
			*x.v = x.def
		}
		if x.most > 0 {
			*x.v = min(*x.v, x.most)
		}
	}
	return l
}

func (l Limits) tar() TarLimits { return TarLimits{Header: l.Header, Fragments: int(l.Fragments)} }

// refuse makes the refusal of an entry; whoever knows the entry fills in its
// name and offset.
func refuse(reason error, format string, args ...any) *TarError {
	return &TarError{Rule: fmt.Sprintf(format, args...), Err: reason}
}

// quote makes a name from an archive fit for a log line.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		return fmt.Sprintf("%q...", name[:most])
	}
	return fmt.Sprintf("%q", name)
}

// cleanName turns a name from an archive into a path below the tree's root:
// components joined by single slashes, without "." and without a slash at
// either end. The root itself ("", ".", "./") becomes "". slash says that the
// name ended in one.
//
// Dropping "." and doubled slashes does not change what a name means; all
// that would (a leading slash, "..") is refused.
func cleanName(raw string, lim Limits) (name string, slash bool, refusal *TarError) {
	switch {
	case int64(len(raw)) > lim.Path:
		return "", false, refuse(ErrTarLimit, "its name has %d bytes, more than %d (max-path)", len(raw), lim.Path)
	case strings.HasPrefix(raw, "/"):
		return "", false, refuse(ErrTarUnsafe, "its name is absolute")
	case strings.IndexByte(raw, 0) >= 0:
		return "", false, refuse(ErrTarUnsafe, "its name holds a NUL byte")
	}
	slash = strings.HasSuffix(raw, "/")
	depth, tidy := int64(0), true
	for rest := raw; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		switch {
		case c == "..":
			return "", false, refuse(ErrTarUnsafe, `its name holds ".."`)
		case int64(len(c)) > lim.Component:
			return "", false, refuse(ErrTarLimit, "a component of its name has %d bytes, more than %d (max-component)", len(c), lim.Component)
		case c == "" || c == ".":
			tidy = false
		default:
			depth++
		}
	}
	if depth > lim.Depth {
		return "", false, refuse(ErrTarLimit, "its name has %d components, more than %d (max-depth)", depth, lim.Depth)
	}
	name = strings.TrimSuffix(raw, "/")
	if tidy && name != "" {
		return name, slash, nil
	}
	kept := make([]string, 0, depth)
	for c := range strings.SplitSeq(name, "/") {
		if c != "" && c != "." {
			kept = append(kept, c)
		}
	}
	return strings.Join(kept, "/"), slash, nil
}

// splitPath cuts a clean name into its directory ("" is the root) and base.
func splitPath(name string) (dir, base string) {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// Judge applies the rules that concern an entry's header alone, which are those
// of extraction and of lazy mounts. name is the path below the tree's root, ""
// for the root itself, and link a link's target: of a hard link such a path, of
// a symbolic one as it is. A refusal has neither Name nor Offset. Zero fields
// of lim allow nothing.
func (e *Entry) Judge(lim Limits) (name, link string, refusal *TarError) {
	name, slash, refusal := cleanName(string(e.Name), lim)
	if refusal != nil {
		return "", "", refusal
	}
	switch e.Type {
	case TypeFile, TypeDir:
	case TypeSymlink, TypeHardLink:
		link = string(e.Link)
		switch {
		case slash:
			return "", "", refuse(ErrTarUnsafe, "it is a link, but its name ends in a slash")
		case int64(len(link)) > lim.Link:
			return "", "", refuse(ErrTarLimit, "its link target has %d bytes, more than %d (max-link)", len(link), lim.Link)
		}
		if e.Type == TypeHardLink {
			target, _, refusal := cleanName(link, lim)
			if refusal != nil {
				return "", "", refuse(refusal.Err, "hard link to %s: %s", quote(link), refusal.Rule)
			}
			if target == "" {
				return "", "", refuse(ErrTarUnsafe, "hard link to the root of the tree")
			}
			link = target
		}
	default:
		return "", "", refuse(ErrTarUnsafe, "it is a %s", e.Type)
	}
	if name == "" && e.Type != TypeDir {
		return "", "", refuse(ErrTarUnsafe, "its name means the root of the tree, but it is no directory")
	}
	return name, link, nil
}
