package index_test

import (
	"math/rand/v2"
	"time"
)

// pause lets others run while a test waits for a condition.
func pause() { time.Sleep(time.Millisecond) }

func rnd(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 8)) }

// testStart: times after it come from the clock, not from an archive.
var testStart = time.Now().Add(-time.Second)
