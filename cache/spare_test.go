package cache

import "testing"

// TestSpare: what nobody has asked for takes the place of nothing, and gives
// its own up first.
func TestSpare(t *testing.T) {
	s := newStream(21, 100, 64<<10, true)
	c := mustOpen(t, newCacheDir(t), 4<<20)
	b := mustBlob(t, c, "a", s)
	here := func(lo, hi int) (n int) {
		for i := lo; i < hi; i++ {
			if b.HasSpan(i) {
				n++
			}
		}
		return n
	}
	room := b.Room()
	if room <= 0 || room > 4<<20 {
		t.Fatalf("an empty cache has room for %d bytes", room)
	}
	for i := range 20 {
		b.PutSpan(i, s.span(i))
	}
	if now := b.Room(); now >= room || now <= 0 {
		t.Errorf("room for %d bytes, and %d when 20 spans were put", room, now)
	}
	for i := 20; i < 100; i++ {
		b.PutSpare(i, s.span(i))
	}
	spare := here(20, 100)
	if here(0, 20) != 20 || spare == 0 || spare == 80 || c.Stats().Evicted != 0 {
		t.Fatalf("%d of 20 spans are left, %d of 80 spare ones were kept, %d evicted", here(0, 20), spare, c.Stats().Evicted)
	}
	if got := b.Room(); got >= 200<<10 {
		t.Errorf("room for %d bytes is left", got)
	}
	// One is read: it is no longer spare.
	if ok, err := s.verify(b, 20); !ok || err != nil {
		t.Fatalf("a spare span: %v %v", ok, err)
	}
	for i := 80; i < 100; i++ {
		b.PutSpan(i, s.span(i))
	}
	if here(0, 21) != 21 || here(80, 100) != 20 || here(21, 80) >= spare {
		t.Errorf("%d of 21 read before, %d of 20 put after and %d spare ones are there", here(0, 21), here(80, 100), here(21, 80))
	}
	b.Close()
	if b.Room() != 0 {
		t.Error("a closed blob has room")
	}
}
