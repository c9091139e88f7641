package store

import (
	"path/filepath"
)

// files lists whole uploads and those on their way.
func (s *server) files() (all []string) {
	for _, dir := range []string{"incoming/*", "content/*/*"} {
		found, err := filepath.Glob(filepath.Join(s.store.opts.DataDir, dir))
		if err != nil {
			s.t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}
