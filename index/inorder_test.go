package index_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"objectmount/index"
	"objectmount/internal/archivetest"
)

// inOrder decodes data by x, and keeps up to keep parts from being freed until
// others have come, as an extraction does.
func inOrder(x *index.Index, r io.Reader, keep int) (stream []byte, err error) {
	d, err := index.NewDecoder(x, r, 3)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var kept []*index.Part
	for {
		p, err := d.Next()
		if err == io.EOF {
			return stream, nil
		}
		if err != nil {
			return stream, err
		}
		stream = append(stream, p.Data...)
		if kept = append(kept, p); len(kept) > keep {
			kept[0].Free()
			kept = kept[1:]
		}
	}
}

// TestInOrder decodes objects by their indexes.
func TestInOrder(t *testing.T) {
	for _, o := range objects(t) {
		x := build(t, o.data, index.BuildOptions{})
		for how, r := range map[string]io.Reader{
			"at once": bytes.NewReader(o.data), "halves": iotest.HalfReader(bytes.NewReader(o.data)),
			"the end with bytes": iotest.DataErrReader(bytes.NewReader(o.data)),
		} {
			if testing.Short() && how != "halves" {
				continue
			}
			got, err := inOrder(x, r, 5)
			switch gzip := !bytes.Equal(o.data, o.stream); {
			case !gzip && !errors.Is(err, index.ErrNotInOrder):
				t.Errorf("%s, which is no gzip: %v", o.name, err)
			case gzip && (err != nil || !bytes.Equal(got, o.stream)):
				t.Errorf("%s, %s: %d bytes of %d, %v", o.name, how, len(got), len(o.stream), err)
			}
		}
	}
}

// TestInOrderMemory keeps every part: all come nevertheless.
func TestInOrderMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("80 MiB")
	}
	stream := make([]byte, 80<<20) // more than a Decoder holds
	data := gzipped(t, stream, 1)
	got, err := inOrder(build(t, data, index.BuildOptions{}), bytes.NewReader(data), 1000)
	if err != nil || !bytes.Equal(got, stream) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// TestInOrderDamage damages the object: what comes out is an error, or the same
// bytes where it was of no importance.
func TestInOrderDamage(t *testing.T) {
	size, flips := 3<<20, 60
	if testing.Short() {
		size, flips = 3<<19, 6
	}
	stream := archivetest.Tar(archivetest.File("text", string(text(size, 1))), archivetest.File("noise", string(noise(1<<18, 2))))
	data := archivetest.Join(gzipped(t, stream[:size], 6), archivetest.Members(stream[size:], nil))
	x := build(t, data, index.BuildOptions{})
	rnd := rnd(3)
	for range flips {
		at := rnd.IntN(8 * len(data))
		got, err := inOrder(x, bytes.NewReader(archivetest.Flip(data, at)), 1)
		if err == nil && !bytes.Equal(got, stream) || err != nil && !errors.Is(err, index.ErrCorrupt) {
			t.Errorf("bit %d: %d bytes, %v", at, len(got), err)
		}
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"cut":            {bytes.NewReader(data[:len(data)-1]), io.ErrUnexpectedEOF},
		"nothing":        {bytes.NewReader(nil), io.ErrUnexpectedEOF},
		"longer":         {bytes.NewReader(append(bytes.Clone(data), 0)), index.ErrCorrupt},
		"another object": {bytes.NewReader(noise(len(data), 1)), index.ErrCorrupt},
		"broken":         {io.MultiReader(bytes.NewReader(data[:len(data)/2]), errorReader{broken}), broken},
		"broken at end":  {io.MultiReader(bytes.NewReader(data), errorReader{broken}), broken},
	} {
		if _, err := inOrder(x, c.r, 1); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestInOrderClose leaves early, at any time, and no goroutine stays.
func TestInOrderClose(t *testing.T) {
	o := objects(t)[2]
	x := build(t, o.data, index.BuildOptions{})
	before := runtime.NumGoroutine()
	for n := range x.NumSpans() {
		d, err := index.NewDecoder(x, bytes.NewReader(o.data), 2)
		must(t, err)
		for range n - 1 {
			p, err := d.Next()
			must(t, err)
			p.Free()
		}
		d.Close()
	}
	wait(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// notForged decodes an object by an index that lies: that fails, or nothing
// but the object's bytes come out.
func notForged(x *index.Index, data, stream []byte) error {
	got, err := inOrder(x, bytes.NewReader(data), 1)
	if err == nil && !bytes.Equal(got, stream) {
		return errors.New("other bytes")
	}
	for _, known := range []error{nil, index.ErrNotInOrder, index.ErrDamaged, index.ErrCorrupt} {
		if err == known || known != nil && errors.Is(err, known) {
			return nil
		}
	}
	return fmt.Errorf("unexpected: %w", err)
}
