package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds of a spec. A machine has some dozens of mounts; these are far above,
// and far below what would hurt.
const (
	maxSpecFile  = 4 << 20 // bytes of one file
	maxSpecFiles = 1000
	maxMounts    = 10_000
)

// Spec is what is wanted in all.
type Spec struct {
	Mounts  []Mount  // in the order of the files and of the entries in them
	Skipped []string // one line for each mount of a type that is not ours
	Sources []string // the files read

	digest [sha256.Size]byte // of names and bytes of all files
}

// SpecError says what is wrong with a spec, and where.
type SpecError struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`   // from 1; 0: the file as a whole
	Column int    `json:"column,omitempty"` // from 1, in characters
	Msg    string `json:"message"`
	Hint   string `json:"hint,omitempty"`

	err error // what the system said, for errors.Is
}

// Error gives "file:line:column: message".
func (e *SpecError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Unwrap gives what the system said, if it was the system: fs.ErrNotExist
// when there is no spec at all.
func (e *SpecError) Unwrap() error { return e.err }

// LoadSpec reads a spec. path is a file, which may be missing as long as there
// are drop-ins: the files *.json of the directory beside it that has ".d" in
// the place of ".json" (mounts.json and mounts.d). Or path is a directory, and
// its *.json are the spec. Files are read in the order of their names, the
// main file first.
//
// A spec is taken as a whole or refused as a whole: every error is a
// *SpecError. When there is no file at all it answers to fs.ErrNotExist.
func LoadSpec(path string) (*Spec, error) {
	files, err := readSpecFiles(path)
	if err != nil {
		return nil, err
	}
	return parseSpecFiles(files)
}

// specFile is one file of a spec, as it was read.
type specFile struct {
	name string
	data []byte
}

// dropInDir is the directory of a spec file's drop-ins.
func dropInDir(path string) string { return strings.TrimSuffix(path, ".json") + ".d" }

// readSpecFiles reads all files of a spec, bounded in size and number.
func readSpecFiles(path string) ([]specFile, error) {
	var names []string
	dir := path
	if st, err := os.Stat(path); err == nil && !st.IsDir() {
		names, dir = append(names, path), dropInDir(path)
	} else if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fileError(path, err)
		}
		dir = dropInDir(path)
	}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fileError(dir, err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".json" && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) == 0 {
		// Not a spec without mounts: files that vanish must not take mounts
		// with them.
		return nil, &SpecError{File: path, Msg: "there is no spec", err: fs.ErrNotExist,
			Hint: fmt.Sprintf("write one, or put one into %s; a spec without mounts is []", dir)}
	}
	if len(names) > maxSpecFiles {
		return nil, &SpecError{File: dir, Msg: fmt.Sprintf("%d files, more than %d", len(names), maxSpecFiles), Hint: "put several mounts into one file"}
	}
	files := make([]specFile, 0, len(names))
	for _, name := range names {
		data, err := readSpecFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, specFile{name, data})
	}
	return files, nil
}

func readSpecFile(name string) ([]byte, error) {
	// O_NONBLOCK: a FIFO put there must not hang the agent.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(name, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, fileError(name, err)
	} else if !st.Mode().IsRegular() {
		return nil, &SpecError{File: name, Msg: "is not a regular file", Hint: "a spec is a file of JSON"}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSpecFile+1))
	if err != nil {
		return nil, fileError(name, err)
	}
	if len(data) > maxSpecFile {
		return nil, &SpecError{File: name, Msg: fmt.Sprintf("is larger than %d MiB", maxSpecFile>>20), Hint: "a spec is a list of mounts, some kilobytes long"}
	}
	return data, nil
}

// fileError drops the path that os puts into its errors: SpecError has it.
func fileError(name string, err error) *SpecError {
	var pe *fs.PathError
	cause := err
	if errors.As(err, &pe) {
		cause = pe.Err
	}
	return &SpecError{File: name, Msg: "cannot be read: " + cause.Error(), Hint: "check that it is a file and who may read it", err: err}
}

// specDigest tells one state of the files from another.
func specDigest(files []specFile) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %d\n", f.name, len(f.data))
		h.Write(f.data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// parseSpecFiles makes one spec of all files, and holds their mounts against
// each other.
func parseSpecFiles(files []specFile) (*Spec, error) {
	s := &Spec{digest: specDigest(files)}
	for _, f := range files {
		mounts, skipped, err := parseSpec(f.name, f.data)
		if err != nil {
			return nil, err
		}
		s.Sources = append(s.Sources, f.name)
		s.Skipped = append(s.Skipped, skipped...)
		s.Mounts = append(s.Mounts, mounts...)
	}
	if len(s.Mounts) > maxMounts {
		return nil, &SpecError{File: s.Sources[0], Msg: fmt.Sprintf("%d mounts in all, more than %d", len(s.Mounts), maxMounts), Hint: "pack several objects into one"}
	}
	first := make(map[string]*Mount, len(s.Mounts))
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if o := first[m.Path()]; o != nil {
			return nil, &SpecError{File: m.File, Line: m.Line, Column: m.Column,
				Msg:  fmt.Sprintf("two mounts of %s: here and at %s", m.Path(), o.Source()),
				Hint: "give each mount a path of its own"}
		}
		first[m.Path()] = m
	}
	return s, nil
}
