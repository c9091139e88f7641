package agent

import (
	"os"
	"path/filepath"
	"testing"

	"objectmount/extract"
)

// TestIsThere: the same inode is the same tree, also when its device has
// another number by now.
func TestIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	i, err := lookAt(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*published)
		there  bool
	}{
		"as it was":         {func(*published) {}, true},
		"another device":    {func(p *published) { p.Fingerprint.Dev++ }, true},
		"and another birth": {func(p *published) { p.Fingerprint.Dev++; p.BirthNS++ }, false},
		"another inode":     {func(p *published) { p.Fingerprint.Ino++ }, false},
		"was a file":        {func(p *published) { p.Kind = extract.KindFile }, false},
		"path is gone":      {func(p *published) { p.RealPath += "x" }, false},
		"parent is a file":  {func(p *published) { p.RealPath += "/f/x" }, false},
	} {
		p := &published{Kind: extract.KindTree, RealPath: dir, Entries: 1, BirthNS: i.birth,
			Fingerprint: extract.Fingerprint{Dev: i.dev, Ino: i.ino, ChangeTimeNS: i.changed}}
		c.change(p)
		there, err := p.isThere()
		if err != nil || there != c.there {
			t.Errorf("%s: there %v, %v", name, there, err)
		}
		if there && p.Fingerprint.Dev != i.dev {
			t.Errorf("%s: the new number of the device was not taken over", name)
		}
	}
}
