package agent

import (
	"fmt"
	"slices"

	"objectmount/extract"
)

// ErrOwned: another part of the system made the mount at this path, and it
// must be asked to give it up.
var ErrOwned = fmt.Errorf("%w: it has another mount", extract.ErrConflict)

// mayReplace says why what is published at the path must stay, if it must. A
// stage of ours in the middle of it is no reason.
func (b *bringing) mayReplace(stage string) error {
	p := b.rc.Published
	if p == nil {
		return nil
	}
	switch on := extract.OnConflict(b.m.OnConflict); {
	case on == extract.ConflictReplace, b.merge:
		return nil
	case on != extract.ConflictMerge && b.rc.Origin != b.origin:
		return fmt.Errorf("%w, of %s, made by the %s", ErrOwned, p.name(), map[Origin]string{
			OriginSpec: "spec " + b.rc.Spec, OriginManual: "mount command"}[b.rc.Origin])
	}
	return b.changed(stage)
}

// changed says why what is published is not only what was published.
func (b *bringing) changed(stage string) error {
	p := b.rc.Published
	if p.Fingerprint.Merged {
		return fmt.Errorf("%w: what is there was merged with files that were there before", extract.ErrConflict)
	}
	inner := b.rc.Inside
	if inside(stage, p.RealPath) {
		inner = append(slices.Clone(inner), stage)
	}
	edited, err := p.edited(inner, func(path string) bool { return path == stage || b.a.unedited(path) })
	if err != nil {
		return err
	}
	if edited {
		return fmt.Errorf("%w: another object is wanted at %s, but files in what is there (%s) were edited", extract.ErrConflict, b.m.Path(), p.name())
	}
	return nil
}

// name says in words what was published.
func (p *published) name() string {
	if p.ObjectID != "" {
		return p.ObjectID
	}
	return p.Source
}

// unedited says whether a path is a mount in which nothing was edited.
func (a *Agent) unedited(path string) bool {
	rc, err := a.receipts.load(path)
	if err != nil || rc == nil || rc.Published == nil {
		return false
	}
	if there, err := rc.Published.isThere(); err != nil || !there {
		return false
	}
	edited, err := rc.Published.edited(rc.Inside, a.unedited)
	return err == nil && !edited
}
