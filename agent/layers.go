package agent

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"objectmount/mount"
)

// Changes to a lazy mount are kept in a layer, a directory of the state
// directory, for when the same object is mounted at the same path again. Of
// layers that no receipt speaks of any more, those without a change are
// removed; those with changes stay for ever, and status tells of them: they are
// somebody's work, and only who did it knows what it is worth.

// KeptLayer is changes to a lazy mount that is no longer there.
type KeptLayer struct {
	Path    string    `json:"path"`             // of the mount
	Object  string    `json:"object,omitempty"` // id, URL without its query, or file
	Changes string    `json:"changes"`          // the directory: removing it removes them
	Used    time.Time `json:"used"`             // when it was mounted last
}

// maxLayerObject bounds the file in a layer that says what it is of.
const maxLayerObject = 64 << 10

// strayLayer is a layer that no receipt speaks of.
type strayLayer struct {
	dir, path, identity string
	used                time.Time
}

// strayLayers finds them. What cannot be understood is left out: it is not
// known to be a layer.
func (a *Agent) strayLayers() []strayLayer {
	entries, err := os.ReadDir(a.layers())
	if err != nil || len(entries) == 0 {
		return nil
	}
	wanted, err := a.wantedLayers()
	if err != nil {
		return nil
	}
	var stray []strayLayer
	for _, e := range entries {
		if b, err := hex.DecodeString(e.Name()); err != nil || len(b) != 16 || !e.IsDir() {
			continue
		}
		l := strayLayer{dir: filepath.Join(a.layers(), e.Name())}
		if l.read() && !wanted[e.Name()] && mount.LayerPath(a.layers(), l.path, l.identity) == l.dir {
			stray = append(stray, l)
		}
	}
	return stray
}

// wantedLayers are those that receipts speak of. A receipt that cannot be
// understood may speak of any.
func (a *Agent) wantedLayers() (map[string]bool, error) {
	list, bad := a.receipts.all()
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	wanted := map[string]bool{}
	for _, rc := range list {
		for _, p := range []*published{rc.Published, rc.next()} {
			if p != nil && p.Lazy != nil {
				wanted[filepath.Base(a.layerPath(p))] = true // the state directory may have several names
			}
		}
	}
	return wanted, nil
}

// next is what is being made at the path.
func (rc *receipt) next() *published {
	if rc.Staging == nil {
		return nil
	}
	return rc.Staging.Next
}

// read reads what the layer says it is of.
func (l *strayLayer) read() bool {
	name := filepath.Join(l.dir, "object")
	b, err := readAtMost(name, maxLayerObject)
	if err != nil {
		return false
	}
	var o struct{ Identity, Path string }
	if json.Unmarshal(b, &o) != nil || !filepath.IsAbs(o.Path) {
		return false
	}
	if st, err := os.Lstat(name); err == nil {
		l.used = st.ModTime()
	}
	l.identity, l.path = o.Identity, o.Path
	return true
}

// object says in a word what the layer is of; see Agent.blobID.
func (l *strayLayer) object() string {
	first, _, _ := strings.Cut(l.identity, "\n")
	words := strings.Fields(first)
	if len(words) < 2 {
		return ""
	}
	return words[len(words)-1]
}

// edited says whether anybody's work is in a layer. What cannot be looked at
// may be.
func (l *strayLayer) edited() bool {
	edited, err := layerEdited(l.dir)
	if edited || err != nil {
		return true
	}
	// An attribute of the root directory is a change, too.
	upper := filepath.Join(l.dir, "upper")
	n, err := unix.Llistxattr(upper, nil)
	if errors.Is(err, unix.ENOENT) {
		return false
	}
	names := make([]byte, max(n, 0))
	if n > 0 && err == nil {
		n, err = unix.Llistxattr(upper, names)
		names = names[:max(n, 0)]
	}
	return err != nil || slices.ContainsFunc(bytes.Split(names, []byte{0}), func(name []byte) bool {
		return bytes.HasPrefix(name, []byte("user.")) || bytes.HasPrefix(name, []byte("system.posix_acl"))
	})
}

// KeptLayers tells of the changes to lazy mounts that are no longer there, and
// that nobody can see before the same object is mounted at the same path again.
func (a *Agent) KeptLayers() []KeptLayer {
	var kept []KeptLayer
	for _, l := range a.strayLayers() {
		if l.edited() {
			kept = append(kept, KeptLayer{Path: l.path, Object: l.object(), Changes: l.dir, Used: l.used})
		}
	}
	slices.SortFunc(kept, func(x, y KeptLayer) int { return strings.Compare(x.Path+x.Changes, y.Path+y.Changes) })
	return kept
}

// deadLayer begins the names of layers that are being removed.
const deadLayer = "dead-"

// sweepLayers removes the layers that no receipt speaks of, nobody serves, no
// mount uses, and nobody has changed anything in.
func (a *Agent) sweepLayers() {
	a.buryLayers()
	for _, l := range a.strayLayers() {
		if l.edited() {
			continue
		}
		// With this lock nobody mounts anything at the path; who comes to it by
		// another name writes its receipt first.
		held, ok := a.receipts.lockNow(l.path)
		if !ok {
			continue
		}
		if err := a.sweepLayer(l); err != nil {
			a.log.Debug("layer not removed", zap.String("layer", l.dir), zap.String("error", errorText(err)))
		}
		held.unlock()
	}
	a.buryLayers()
}

// sweepLayer looks again at everything, with the layer's own lock, and gives
// it a name that nobody mounts.
func (a *Agent) sweepLayer(l strayLayer) error {
	f, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("somebody serves it: %w", err)
	}
	wanted, err := a.wantedLayers()
	if err != nil || wanted[filepath.Base(l.dir)] || l.edited() {
		return err
	}
	// Whatever is mounted on it or over it, dead or alive, has its name in the
	// table, as a path or as an option.
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if bytes.Contains(table, []byte(filepath.Base(l.dir))) {
		return errors.New("it is mounted")
	}
	return os.Rename(l.dir, filepath.Join(a.layers(), deadLayer+filepath.Base(l.dir)+"-"+rand.Text()))
}

// buryLayers removes what sweepLayer has renamed, also when that process died.
func (a *Agent) buryLayers() {
	dead, _ := filepath.Glob(filepath.Join(a.layers(), deadLayer+"*"))
	for _, dir := range dead {
		if err := os.RemoveAll(dir); err != nil {
			a.log.Debug("layer not removed", zap.String("layer", dir), zap.String("error", errorText(err)))
		}
	}
}
