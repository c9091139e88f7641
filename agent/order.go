package agent

import (
	"path/filepath"
	"slices"
	"time"
)

// The order of things: what lies inside another mount comes after it, and
// nothing is done inside or outside of a path while it is worked on. New
// mounts come up before old ones go down, except where an old one is in the
// way. Otherwise everything is independent, so one mount that fails holds up
// only those inside of it.

// startable lists tasks that may begin now, in the order in which they should,
// at least as many as there is room for if there are that many; and notes of
// those that wait for another what they wait for.
func (s *scheduler) startable(now time.Time, room int) (list []*task) {
	s.downs = slices.DeleteFunc(s.downs, func(t *task) bool { return s.tasks[t.path] != t })
	downBelow := dirsAbove(s.downs)
	for _, t := range s.ups {
		if len(list) >= room && len(s.downs) == 0 {
			return list
		}
		if !t.todo || t.stop != nil {
			continue
		}
		waits := s.waitsFor(t, downBelow)
		// Where the outer mount failed, what is there already can still be
		// found to be there.
		look := waits != "" && !t.saw && s.outerFailed(t, now)
		if (waits == "" || look) && !t.due.After(now) && !s.relatedRunning(t.path) {
			list = append(list, t)
		} else {
			t.waits(waits)
		}
	}
	if len(s.downs) == 0 {
		return list
	}
	inWay := s.inTheWay()
	busy := false // something new is coming up
	for t := range s.running {
		busy = busy || t.mount != nil || inWay[t]
	}
	for _, first := range []bool{true, false} {
		busy = busy || len(list) > 0
		for _, t := range s.downs {
			if inWay[t] == first && (first || !busy) && t.todo &&
				t.stop == nil && !t.due.After(now) && !downBelow[t.path] && !s.relatedRunning(t.path) {
				list = append(list, t)
			}
		}
	}
	return list
}

// inTheWay is the set of old mounts that must go before a new one can come.
func (s *scheduler) inTheWay() map[*task]bool {
	above := dirsAbove(s.ups)
	set := map[*task]bool{}
	for _, t := range slices.Backward(s.downs) { // outer before inner
		set[t] = above[t.path]
		s.outer(t.path, func(o *task) bool {
			set[t] = set[t] || (o.todo && o.mount != nil) || set[o]
			return set[t]
		})
	}
	return set
}

// waitsFor is the path whose task must be done before that of a new mount can
// begin, "" for none.
func (s *scheduler) waitsFor(t *task, downBelow map[string]bool) (path string) {
	s.outer(t.path, func(o *task) bool {
		if (o.mount != nil && !o.up) || (o.mount == nil && o.todo) {
			path = o.path
		}
		return path != ""
	})
	if path == "" && downBelow[t.path] {
		path = "what lies inside of it"
	}
	return path
}

// outerFailed says whether the mounts around a task will not be there soon.
func (s *scheduler) outerFailed(t *task, now time.Time) (failed bool) {
	s.outer(t.path, func(o *task) bool {
		if o.mount == nil {
			failed = false
			return o.todo
		}
		failed = failed || (!o.up && o.stop == nil && (!o.todo || o.due.After(now)))
		return false
	})
	return failed
}

// waits notes what a task waits for.
func (t *task) waits(path string) {
	phase := ""
	if path != "" {
		phase = "waiting for " + path
	}
	t.a.mu.Lock()
	same := t.status.State != StatePending || t.status.Phase == phase
	t.a.mu.Unlock()
	if !same {
		t.enter(StatePending, phase)
	}
}

func (s *scheduler) relatedRunning(path string) bool {
	for t := range s.running {
		if related(t.path, path) {
			return true
		}
	}
	return false
}

// dirsAbove is the set of all directories above those tasks that have
// something to do.
func dirsAbove(tasks []*task) map[string]bool {
	dirs := map[string]bool{}
	for _, t := range tasks {
		if !t.todo {
			continue
		}
		for dir := filepath.Dir(t.path); dir != "/" && !dirs[dir]; dir = filepath.Dir(dir) {
			dirs[dir] = true
		}
	}
	return dirs
}

// outer calls f for every task around a path, from the inside out, until f
// says stop.
func (s *scheduler) outer(path string, f func(*task) (stop bool)) {
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if t := s.tasks[dir]; t != nil && f(t) {
			return
		}
	}
}
