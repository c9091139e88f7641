package objects

import "time"

// How a tuner measures.
const (
	firstWorkers = 4                     // what a transfer begins with
	firstStep    = 4                     // times as many are tried then
	epochMin     = 20 * time.Millisecond // a measurement takes at least that
	epochMax     = time.Second           // and ends then, however little has come
	epochBytes   = 128 << 10             // of each worker
	gainWanted   = 1.15                  // doubling the workers must bring that much
	lossAllowed  = 0.95                  // halving them must leave that much
	restShort    = 50 * time.Millisecond // when the reader has enough
	restFirst    = 2 * time.Second       // after what did not help, doubled each time
	restMax      = 30 * time.Second
	slowRest     = 5 * time.Second // after SlowDown
)

// tuner finds out how many connections a transfer should use. It climbs in
// large steps, from 4 to 16 and later by doubling, because an object of 67 MB
// is over in a fifth of a second, and goes back when that does not bring more:
//
//	measure n ──reader waits──→ 2n ──at least 1.15 times as fast──→ measured: again
//	    │                        └──not──→ n/2 ──as fast──→ again
//	    │                                   └──slower──→ n, and rest
//	    └─reader has enough─→ rest
//
// What it measures is how fast bytes come while they come, per worker and so
// without the latency of requests, times the workers: that is steady after a
// few milliseconds, where bytes per second over all would depend on how many
// parts happen to be between two requests.
//
// It is guarded by its crew's mu.
type tuner struct {
	n       int // workers there should be
	most    int
	ceiling int // most for now, after SlowDown

	from  int     // workers before the step that is being measured; 0: no step
	base  float64 // bytes per second with them
	rest  time.Time
	pause time.Duration // the last rest
	begun bool          // the first step was made
	slow  time.Time     // of the last SlowDown

	at reading // when the measurement began; zero: not begun
}

// reading is what the crew's meters show.
type reading struct {
	when    time.Time
	bytes   int64         // received
	busy    time.Duration // of all workers, receiving
	starved time.Duration // of the reader
}

func newTuner(most int) tuner {
	return tuner{n: min(firstWorkers, most), most: most, ceiling: most, pause: restFirst / 2}
}

// tick may change n. settled says that n workers are receiving.
func (t *tuner) tick(now reading, settled bool) {
	if now.when.Before(t.rest) {
		return
	}
	if !settled {
		t.at = reading{}
		return
	}
	if t.at.when.IsZero() {
		t.at = now
		return
	}
	took, bytes := now.when.Sub(t.at.when), now.bytes-t.at.bytes
	if took < epochMin || bytes < int64(t.n)*epochBytes && took < epochMax {
		return
	}
	busy := now.busy - t.at.busy
	hungry := now.starved-t.at.starved > took/10
	t.at = reading{}
	if busy <= 0 {
		return
	}
	t.judge(now.when, float64(bytes)/busy.Seconds()*float64(t.n), hungry)
}

// judge decides on the next step, given how fast the present one was.
func (t *tuner) judge(now time.Time, rate float64, hungry bool) {
	switch {
	case t.from == 0 && !hungry:
		t.rest = now.Add(restShort)
	case t.from == 0:
		if t.ceiling < t.most && now.Sub(t.slow) > slowRest {
			t.ceiling = min(2*t.ceiling, t.most)
		}
		up := 2
		if !t.begun {
			t.begun, up = true, firstStep
		}
		t.step(now, rate, up*t.n)
	case t.n > t.from && rate >= gainWanted*t.base:
		t.pause = restFirst / 2
		t.step(now, rate, 2*t.n)
	case t.n > t.from:
		t.n = t.from
		t.step(now, t.base, t.n/2)
	case rate >= lossAllowed*t.base:
		t.step(now, max(rate, t.base), t.n/2)
	default:
		t.n = t.from
		t.settle(now)
	}
}

// step tries n workers, where that can be.
func (t *tuner) step(now time.Time, rate float64, n int) {
	n = max(1, min(n, t.ceiling))
	if n == t.n {
		t.settle(now)
		return
	}
	t.from, t.base, t.n = t.n, rate, n
}

// settle ends a climb.
func (t *tuner) settle(now time.Time) {
	t.from = 0
	t.pause = min(2*t.pause, restMax)
	t.rest = now.Add(t.pause)
}

// slowDown is told that the server asked for fewer requests (429, 503).
func (t *tuner) slowDown(now time.Time) {
	if now.Sub(t.slow) < time.Second {
		return // of the same moment, to another worker
	}
	t.slow = now
	t.n = max(1, t.n/2)
	t.ceiling, t.from, t.at = t.n, 0, reading{}
	t.rest = now.Add(slowRest)
}
