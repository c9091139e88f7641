package extract

import (
	"strings"
)

// cleanName turns a name from an archive into a path below the tree's root:
// components joined by single slashes, without "." and without a slash at
// either end. The root itself ("", ".", "./") becomes "". slash says that the
// name ended in one.
//
// Dropping "." and doubled slashes does not change what a name means; all
// that would (a leading slash, "..") is refused.
func cleanName(raw string, lim Limits) (name string, slash bool, err error) {
	switch {
	case int64(len(raw)) > lim.Path:
		return "", false, refuse(ErrLimit, "its name has %d bytes, more than %d (max-path)", len(raw), lim.Path)
	case strings.HasPrefix(raw, "/"):
		return "", false, refuse(ErrUnsafe, "its name is absolute")
	case strings.IndexByte(raw, 0) >= 0:
		return "", false, refuse(ErrUnsafe, "its name holds a NUL byte")
	}
	slash = strings.HasSuffix(raw, "/")
	depth, tidy := int64(0), true
	for rest := raw; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		switch {
		case c == "..":
			return "", false, refuse(ErrUnsafe, `its name holds ".."`)
		case int64(len(c)) > lim.Component:
			return "", false, refuse(ErrLimit, "a component of its name has %d bytes, more than %d (max-component)", len(c), lim.Component)
		case c == "" || c == ".":
			tidy = false
		default:
			depth++
		}
	}
	if depth > lim.Depth {
		return "", false, refuse(ErrLimit, "its name has %d components, more than %d (max-depth)", depth, lim.Depth)
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
