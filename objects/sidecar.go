package objects

import (
	"encoding/json"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	partVersion  = 2
	maxSidecar   = 64 << 10
	bootIDSource = "/proc/sys/kernel/random/boot_id"
)

// sidecar is PATH.part.json: which bytes PATH.part has, and of what.
//
// What a process wrote before it was killed is in the file, and Have says
// where; it is brought up to date every second or so, without waiting for the
// disk. What was written before the machine went down is there only if it was
// synced.
type sidecar struct {
	Version  int      `json:"version"`
	Identity Identity `json:"identity"`
	BootID   string   `json:"boot_id"` // of the machine's run in which the bytes were written
	Have     spans    `json:"have"`    // bytes that were written
	Synced   spans    `json:"synced"`  // bytes that are on the disk for sure
}

// readSidecar gives what part, which is size bytes long, has of id's bytes.
func readSidecar(part string, size int64, id Identity) spans {
	b, err := readAtMost(part+".json", maxSidecar)
	var was sidecar
	if err != nil || json.Unmarshal(b, &was) != nil || was.Version != partVersion ||
		was.Identity != id || !id.Proven() {
		return nil
	}
	have := was.Have
	if was.BootID == "" || was.BootID != bootID() {
		have = was.Synced
	}
	return have.clip(min(size, id.Size))
}

// write replaces part.json as a whole.
func (c sidecar) write(part string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	name := part + ".json"
	tmp, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil && len(c.Synced) > 0 {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

func readAtMost(name string, n int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, n))
}

// bootID names the machine's present run; "" when it cannot be known.
func bootID() string {
	b, err := readAtMost(bootIDSource, 64)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
