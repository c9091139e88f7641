package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/url"
	"os/user"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"objectmount/extract"
	"objectmount/objects"
)

// Mount is one mount that is wanted: an entry of the spec, or what the manual
// command was asked for.
type Mount struct {
	ObjectID      string         // "" only with DownloadURL or LocalFile
	ObjectPath    string         // absolute; a trailing slash means "into this directory"
	Mode          string         // "" or "auto", "extract", "lazy"
	ReadOnly      bool           // only lazy mounts can be
	Prefetch      Prefetch       // of a lazy mount; "": as Config says
	Owner         string         // USER[:GROUP], names or numbers; "": owner of the nearest existing parent
	Required      bool           // readiness waits for it
	OnConflict    string         // "" or "error", "replace", "merge"
	SHA256        string         // of the object as stored, in hex; "": not checked
	DownloadURL   objects.Secret // where to get the bytes, instead of asking the API
	PublishIndex  bool           // of a lazy mount: for the other machines of the account
	PreserveOwner bool           // keep the archive's own users and groups
	Xattrs        bool           // restore the user's extended attributes, "user.*"
	LocalFile     string         // the bytes; manual mounts only, never from a spec
	File          string         // where the mount is written down: "" for a manual one
	Line, Column  int            // in File, from 1; columns count characters
}

// Path is the mount's path as the agent knows it: cleaned lexically. Two
// mounts are the same mount when their Paths are equal.
func (m *Mount) Path() string { return filepath.Clean(m.ObjectPath) }

// Source says where the mount was asked for, or where its bytes are.
func (m *Mount) Source() string {
	switch {
	case m.File != "":
		return fmt.Sprintf("%s:%d:%d", m.File, m.Line, m.Column)
	case m.LocalFile != "":
		return m.LocalFile
	case m.DownloadURL != "":
		return objects.RedactURL(m.DownloadURL.Reveal())
	}
	return m.ObjectID
}

// wanted is what decides the files of the mount. local is the state of
// LocalFile, nil for every other source; store is the server whose objects ids
// are of, "" if it is not known.
func (m *Mount) wanted(local fs.FileInfo, store string) wanted {
	w := wanted{ObjectID: m.ObjectID, ReadOnly: m.ReadOnly}
	if m.Mode != "auto" {
		w.Mode = m.Mode
	}
	if m.ObjectID != "" {
		w.Store = store
	}
	source, url := "object "+m.ObjectID, ""
	switch {
	case m.ObjectID != "": // wherever the bytes come from: an object does not change
	case m.LocalFile != "":
		w.Source = m.LocalFile
		source = "file " + m.LocalFile
		if local != nil {
			source = fmt.Sprintf("file %s %d %d", m.LocalFile, local.Size(), local.ModTime().UnixNano())
		}
	default:
		w.Source = objects.RedactURL(m.DownloadURL.Reveal())
		source, url = "url "+w.Source, m.DownloadURL.Reveal()
	}
	options := fmt.Sprintf("%q %q %v %q %v", source, m.Owner, m.PreserveOwner, strings.ToLower(m.SHA256), m.into())
	if m.Xattrs { // only then, so that older receipts stay right
		options += " xattrs"
	}
	w.Options = digest(options)
	w.Digest = digest(options + url)
	return w
}

// into says whether a file is to be put into the directory ObjectPath.
func (m *Mount) into() bool { return strings.HasSuffix(m.ObjectPath, "/") }

// target is the object path as extraction takes it.
func (m *Mount) target() string {
	if m.into() {
		return m.Path() + "/"
	}
	return m.Path()
}

// findOwner turns the owner of a mount into numbers. A user without a group
// brings his own; a number that is nobody's brings the group of that number.
func findOwner(owner string) (extract.Owner, error) {
	name, group, hasGroup := strings.Cut(owner, ":")
	uid, err := strconv.Atoi(name)
	gid := uid
	if u, uerr := lookUpUser(name, err == nil); uerr == nil {
		if uid, err = strconv.Atoi(u.Uid); err == nil {
			gid, err = strconv.Atoi(u.Gid)
		}
	} else if err != nil {
		return extract.Owner{}, fmt.Errorf("owner %q: %w", owner, uerr)
	}
	if err == nil && hasGroup {
		if gid, err = strconv.Atoi(group); err != nil {
			var g *user.Group
			if g, err = user.LookupGroup(group); err == nil {
				gid, err = strconv.Atoi(g.Gid)
			}
		}
	}
	if err != nil {
		return extract.Owner{}, fmt.Errorf("owner %q: %w", owner, err)
	}
	return extract.Owner{UID: uid, GID: gid}, nil
}

func lookUpUser(name string, number bool) (*user.User, error) {
	if number {
		return user.LookupId(name)
	}
	return user.Lookup(name)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// Bounds of a path: those of the kernel.
const (
	maxPath      = 4095
	maxComponent = 255
)

// fieldError says what is wrong with one key of a mount.
type fieldError struct{ key, msg, hint string }

func (e *fieldError) Error() string { return e.msg }

// check finds what is wrong with a mount before anything is done about it, in
// terms of the spec's keys. It looks at the text alone: whether the user or
// the object exists is found out when the mount is made, and retried.
func (m *Mount) check() *fieldError {
	for _, fe := range []*fieldError{
		checkSource(m), checkPath(m.ObjectPath), checkMode(m), checkOwner(m.Owner), checkSHA256(m.SHA256),
	} {
		if fe != nil {
			return fe
		}
	}
	switch extract.OnConflict(m.OnConflict) {
	case "", extract.ConflictError, extract.ConflictReplace, extract.ConflictMerge:
		return nil
	}
	return &fieldError{"on_conflict", fmt.Sprintf("on_conflict %q is unknown", m.OnConflict), `write "error", "replace" or "merge"`}
}

func checkSource(m *Mount) *fieldError {
	switch {
	case m.ObjectID != "" && !validID(m.ObjectID):
		return &fieldError{"object_id", fmt.Sprintf("object_id %.80q cannot be an object's id", m.ObjectID), "ids look like obj_31CYd5LLFbBxst8mqnUjO"}
	case m.DownloadURL != "":
		// The text of a parse error would quote the URL, so it is left out.
		u, err := url.Parse(m.DownloadURL.Reveal())
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
			return &fieldError{"download_url", "download_url is not an http(s) URL", `write all of it, with "https://" in front, or leave it out`}
		}
	case m.LocalFile != "":
		if !filepath.IsAbs(m.LocalFile) {
			return &fieldError{"", fmt.Sprintf("local file %q is not an absolute path", m.LocalFile), ""}
		}
	case m.ObjectID == "":
		return &fieldError{"object_id", "object_id is missing", "say which object is to be mounted"}
	}
	return nil
}

// validID says whether a text can be an object's id. Ids go into URLs and
// file names, so what would mean something there is not an id.
func validID(id string) bool {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-"
	return id != "" && len(id) <= 128 && strings.Trim(id, letters) == ""
}

func checkPath(p string) *fieldError {
	bad := func(msg, hint string) *fieldError { return &fieldError{"object_path", msg, hint} }
	switch {
	case p == "":
		return bad("object_path is missing", "say where the object is to be, as an absolute path")
	case len(p) > maxPath:
		return bad(fmt.Sprintf("object_path is %d bytes long, more than %d", len(p), maxPath), "use a shorter path")
	case !path.IsAbs(p):
		return bad(fmt.Sprintf("object_path %.200q is not absolute", p), "begin it with a /")
	case path.Clean(p) == "/":
		return bad("object_path is the root directory", "name a directory or file below it")
	case strings.ContainsFunc(p, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }):
		return bad(fmt.Sprintf("object_path %.200q has control characters or is not Unicode", p), "use printable characters")
	}
	for part := range strings.SplitSeq(p, "/") {
		if len(part) > maxComponent {
			return bad(fmt.Sprintf("object_path has a component of %d bytes, more than %d", len(part), maxComponent), "use a shorter name")
		}
	}
	return nil
}

// checkMode refuses what cannot be together, rather than doing something else
// in silence.
func checkMode(m *Mount) *fieldError {
	switch m.Mode {
	case "", "auto", "extract", "lazy":
	default:
		return &fieldError{"mode", fmt.Sprintf("mode %.80q is unknown", m.Mode), `write "auto", "lazy" or "extract", or leave it out`}
	}
	switch {
	case m.ReadOnly && m.Mode == "extract":
		return &fieldError{"read_only", "read_only needs a lazy mount: extracted files can be written to", `leave it out, or write "mode": "lazy"`}
	case m.Prefetch != "" && !m.Prefetch.valid():
		return &fieldError{"prefetch", fmt.Sprintf("prefetch %.80q is unknown", m.Prefetch), `write "none", "auto" or "all", or leave it out`}
	case m.Prefetch != "" && m.Mode == "extract":
		return &fieldError{"prefetch", "prefetch is for lazy mounts: an extraction fetches everything", `leave it out, or write "mode": "lazy"`}
	case m.PublishIndex && m.Mode == "extract":
		return &fieldError{"publish_index", "publish_index needs a lazy mount: an extraction makes no index", `leave it out, or write "mode": "lazy"`}
	case m.Mode == "lazy" && m.OnConflict == string(extract.ConflictMerge):
		return &fieldError{"on_conflict", "a lazy mount cannot be merged with files", `write "error" or "replace", or "mode": "extract"`}
	}
	return nil
}

func checkOwner(owner string) *fieldError {
	if owner == "" {
		return nil
	}
	user, group, colon := strings.Cut(owner, ":")
	if !validName(user) || (colon && !validName(group)) {
		return &fieldError{"owner", fmt.Sprintf("owner %.80q is not USER or USER:GROUP", owner), `write "user", "user:group" or "1000:1000"`}
	}
	return nil
}

// validName says whether a text can be the name or number of a user or group,
// as useradd and its relatives allow them.
func validName(s string) bool {
	if s == "" || len(s) > 255 || s[0] == '-' {
		return false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n >= 0 && n < 1<<32-1 // -1 as uint32 means "leave it" to chown
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(":/\\,", r)
	})
}

func checkSHA256(sum string) *fieldError {
	if sum == "" || (len(sum) == 64 && strings.Trim(sum, "0123456789abcdefABCDEF") == "") {
		return nil
	}
	return &fieldError{"sha256", fmt.Sprintf("sha256 %.80q is not 64 hexadecimal digits", sum), "sha256sum FILE prints it"}
}

// inside says whether path a lies below path b. Both are clean.
func inside(a, b string) bool {
	return len(a) > len(b) && strings.HasPrefix(a, b) && a[len(b)] == '/'
}

// related says whether one of two clean paths is the other or lies inside it.
func related(a, b string) bool { return a == b || inside(a, b) || inside(b, a) }
