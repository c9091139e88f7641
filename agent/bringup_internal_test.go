package agent

import (
	"fmt"
	"testing"

	"objectmount/extract"
	"objectmount/objects"
)

func TestBeginAgain(t *testing.T) {
	for _, c := range []struct {
		err  error
		try  int
		want bool
	}{
		{objects.ErrChanged, 1, true},
		{objects.ErrChanged, maxRestarts, false},
		{objects.ErrNoRanges, 2, true},
		{objects.ErrNoValidator, 2, true},
		{objects.ErrChecksum, 1, true},
		{objects.ErrChecksum, 2, false}, // it was not the network
		{objects.ErrNotFound, 1, false},
		{extract.ErrCorrupt, 1, false},
		{nil, 1, false},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("read object: %w", err)
		}
		if got := beginAgain(err, c.try); got != c.want {
			t.Errorf("%v at try %d: %v", c.err, c.try, got)
		}
	}
}
