package objects_test

import (
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"

	"objectmount/internal/faulttest"
	"objectmount/objects"
)

// peakHeap is a writer that notes the most heap in use while bytes pass.
type peakHeap struct{ seen, next, max uint64 }

func (h *peakHeap) Write(p []byte) (int, error) {
	if h.seen += uint64(len(p)); h.seen >= h.next {
		h.next = h.seen + 4<<20
		h.max = max(h.max, h.now())
	}
	return len(p), nil
}

func (*peakHeap) now() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestStreamMemory: a stream holds no more than its network's memory, however
// long it is.
func TestStreamMemory(t *testing.T) {
	// Garbage, of this test and those before it, is not what is measured.
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	data := make([]byte, 128<<20)
	s := faulttest.New(faulttest.Options{Object: faulttest.Object{Data: data, ETag: `"v1"`}})
	defer s.Close()
	var peak peakHeap
	runtime.GC()
	before := peak.now() // the object, and what other tests keep
	opts := patience()
	opts.Network = objects.NewNetwork(objects.Limits{Memory: 8 << 20})
	r := open(t, s, opts)
	for range 3 {
		st, err := r.Stream(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(&peak, st); err != nil || n != int64(len(data)) {
			t.Fatal(n, err)
		}
		st.Close()
	}
	if over := int64(peak.max) - int64(before); over > 32<<20 {
		t.Errorf("%d MiB of heap more than before", over>>20)
	}
}
