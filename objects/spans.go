package objects

import "slices"

// span is bytes [off, end), and not empty where it is in spans. In a sidecar
// it is written as [off, end].
type span [2]int64

// spans are ascending, and apart from each other.
type spans []span

// add gives s with [off, end) in it too.
func (s spans) add(off, end int64) spans {
	if off >= end {
		return s
	}
	// The first span that ends at off or later, and the first that begins
	// after end: what lies between them becomes one.
	i, _ := slices.BinarySearchFunc(s, off, func(x span, off int64) int { return cmpBytes(x[1], off) })
	j := i
	for j < len(s) && s[j][0] <= end {
		off, end = min(off, s[j][0]), max(end, s[j][1])
		j++
	}
	if j == i+1 {
		s[i] = span{off, end} // what nearly always happens: one grows
		return s
	}
	return slices.Replace(s, i, j, span{off, end})
}

func cmpBytes(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// gaps gives what is missing of [0, size).
func (s spans) gaps(size int64) spans {
	var g spans
	at := int64(0)
	for _, x := range s {
		if x[0] >= size {
			break
		}
		if x[0] > at {
			g = append(g, span{at, x[0]})
		}
		at = x[1]
	}
	if at < size {
		g = append(g, span{at, size})
	}
	return g
}

// front is how many bytes there are from 0 on.
func (s spans) front() int64 {
	if len(s) == 0 || s[0][0] > 0 {
		return 0
	}
	return s[0][1]
}

// total is how many bytes there are.
func (s spans) total() int64 {
	n := int64(0)
	for _, x := range s {
		n += x[1] - x[0]
	}
	return n
}

// clip gives what lies within [0, size), or nothing of what cannot be spans:
// it is for those that were read from a file.
func (s spans) clip(size int64) spans {
	var c spans
	at := int64(-1)
	for _, x := range s {
		if x[0] <= at || x[1] <= x[0] {
			return nil
		}
		at = x[1]
		if x[0] < size {
			c = append(c, span{x[0], min(x[1], size)})
		}
	}
	return c
}
