package agent

import (
	"slices"
	"strings"
)

// action is what is to be done about a path.
type action string

const (
	actionAdd    action = "add"    // nothing of ours is there
	actionKeep   action = "keep"   // what is there is what is wanted
	actionChange action = "change" // something else of ours is there
	actionRemove action = "remove" // it is there, and no longer wanted
)

// step is what is to be done about one path.
type step struct {
	path   string
	action action
	mount  *Mount // what is wanted; nil for remove
}

// plan compares what a spec wants with what the receipts say is there. It
// looks at nothing else: whether the files are really there is found out when
// a step is done, so that a keep whose tree is gone becomes an add.
//
// Mounts come first, in the order of the spec; removals last, inner paths
// before outer ones. Only what this spec has brought up is removed: mounts
// made by hand, or by the spec of another agent, are none of its business.
func plan(mounts []Mount, have []*receipt, spec, store string) []step {
	receipts := make(map[string]*receipt, len(have))
	for _, rc := range have {
		receipts[rc.Path] = rc
	}
	var steps []step
	wants := make(map[string]bool, len(mounts))
	for i := range mounts {
		m := &mounts[i]
		path := m.Path()
		wants[path] = true
		s := step{path, actionAdd, m}
		if rc := receipts[path]; rc != nil && rc.Published != nil {
			s.action = actionChange
			if rc.Published.same(m.wanted(nil, store)) {
				s.action = actionKeep
			}
		}
		steps = append(steps, s)
	}
	var gone []step
	for _, rc := range have {
		if rc.Origin == OriginSpec && rc.Spec == spec && !wants[rc.Path] {
			gone = append(gone, step{rc.Path, actionRemove, nil})
		}
	}
	slices.SortFunc(gone, func(a, b step) int { return strings.Compare(b.path, a.path) })
	return append(steps, gone...)
}
