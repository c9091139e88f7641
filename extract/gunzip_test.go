package extract

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os/exec"
	"testing"

	"objectmount/internal/archivetest"
)

const gunzipMost = 32 << 20

func gunzipAll(data []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(newGunzip(bufio.NewReader(bytes.NewReader(data))), gunzipMost))
}

// compareGunzip decodes data with our reader and the standard library's. Ours
// is stricter about trailing bytes in one way only: it takes zeros, which the
// library does not.
func compareGunzip(t *testing.T, data []byte) {
	ours, err := gunzipAll(data)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("refused without a reason: %v", err)
		}
		return
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("accepted, but compress/gzip says: %v", err)
	}
	theirs, err := io.ReadAll(io.LimitReader(z, gunzipMost))
	if err != nil && !(errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF)) {
		t.Fatalf("accepted, but compress/gzip says: %v", err)
	}
	if !bytes.Equal(ours, theirs) {
		t.Fatalf("%d bytes, compress/gzip gives %d", len(ours), len(theirs))
	}
	if err != nil && data[len(data)-1] != 0 {
		t.Fatalf("accepted without padding, but compress/gzip says: %v", err)
	}
}

// TestGunzip runs the comparison on all cases, and asks gzip itself whether
// what we accept is right.
func TestGunzip(t *testing.T) {
	for _, c := range archivetest.Cases("/outside") {
		if !bytes.HasPrefix(c.Data, gzipMagic) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			compareGunzip(t, c.Data)
			want, err := gunzipAll(c.Data)
			if _, lookErr := exec.LookPath("gzip"); err != nil || lookErr != nil || c.Differs != "" {
				return
			}
			cmd := exec.Command("gzip", "-dc")
			cmd.Stdin = bytes.NewReader(c.Data)
			got, err := cmd.Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("gzip gives %d bytes, %v; we %d", len(got), err, len(want))
			}
		})
	}
}
