package objects

import (
	"testing"
	"time"
)

// net is a network for a tuner in time of its own: what n workers get.
type fakeNetwork struct {
	rate   func(n int) float64 // bytes per second of n workers together
	hungry bool
}

// run lets a tuner live for d and gives the workers it wants at the end, and
// the most it ever wanted.
func (f fakeNetwork) run(t *tuner, from time.Time, d time.Duration) (n, most int) {
	const step = 5 * time.Millisecond
	var at reading
	at.when = from
	for passed := time.Duration(0); passed < d; passed += step {
		at.when = at.when.Add(step)
		at.bytes += int64(f.rate(t.n) * step.Seconds())
		at.busy += time.Duration(t.n) * step
		if f.hungry {
			at.starved += step
		}
		t.tick(at, true)
		most = max(most, t.n)
	}
	return t.n, most
}

// TestTuner: how many workers a transfer comes to, for networks of all kinds.
func TestTuner(t *testing.T) {
	each := func(rate float64) func(int) float64 { return func(n int) float64 { return rate * float64(n) } }
	upTo := func(rate, most float64) func(int) float64 {
		return func(n int) float64 { return min(rate*float64(n), most) }
	}
	start := time.Unix(1e9, 0)
	for _, c := range []struct {
		name     string
		f        fakeNetwork
		most     int
		within   time.Duration
		low, top int
	}{
		{"each connection carries so much: all of them, soon", fakeNetwork{each(90e6), true}, 16, 100 * time.Millisecond, 16, 16},
		{"the machine is the limit: one does", fakeNetwork{upTo(2e9, 2e9), true}, 16, time.Second, 1, 1},
		{"the line is the limit: as many as fill it", fakeNetwork{upTo(90e6, 300e6), true}, 16, time.Second, 4, 4},
		{"a slow line of a slow server", fakeNetwork{each(100e3), true}, 16, 10 * time.Second, 16, 16},
		{"the reader has enough: no more", fakeNetwork{each(90e6), false}, 16, time.Minute, 4, 4},
		{"more make it slower", fakeNetwork{func(n int) float64 { return 100e6 / float64(n) }, true}, 16, 2 * time.Second, 1, 1},
		{"fewer are allowed", fakeNetwork{each(90e6), true}, 3, time.Minute, 3, 3},
		{"one is allowed", fakeNetwork{each(90e6), true}, 1, time.Minute, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tu := newTuner(c.most)
			if n, _ := c.f.run(&tu, start, c.within); n < c.low || n > c.top {
				t.Errorf("%d workers, want %d to %d", n, c.low, c.top)
			}
			if _, most := c.f.run(&tu, start.Add(c.within), time.Minute); most > c.most {
				t.Errorf("%d workers, %d are allowed", most, c.most)
			}
		})
	}
}

// TestTunerSlowsDown: SlowDown halves at once, but not for each of the
// refusals of one moment, and the number grows again when it has been quiet.
func TestTunerSlowsDown(t *testing.T) {
	f := fakeNetwork{func(n int) float64 { return 90e6 * float64(n) }, true}
	now := time.Unix(1e9, 0)
	tu := newTuner(16)
	f.run(&tu, now, time.Second)
	now = now.Add(time.Second)
	for range 10 {
		tu.slowDown(now)
	}
	if tu.n != 8 {
		t.Errorf("%d workers after refusals", tu.n)
	}
	if _, most := f.run(&tu, now, slowRest); most > 8 {
		t.Errorf("%d workers right after", most)
	}
	if n, _ := f.run(&tu, now.Add(slowRest), 10*time.Second); n != 16 {
		t.Errorf("%d workers long after", n)
	}
	for range 10 {
		now = now.Add(time.Minute)
		tu.slowDown(now)
	}
	if tu.n != 1 {
		t.Errorf("%d workers after many refusals", tu.n)
	}
}
