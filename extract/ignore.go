package extract

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"
)

const (
	ignoreFileName = ".dockerignore"
	ignoreFileMost = 1 << 20 // bytes; patterns are matched one by one
)

// ignore knows what to leave out of a packed directory; nil leaves out
// nothing. The patterns mean what they mean to docker build: the last one
// that matches a path, or a directory above it, decides.
type ignore struct {
	patterns *patternmatcher.PatternMatcher
}

// ignored is what is known of a path: whether it is left out, and what its
// entries need to know about it.
type ignored struct {
	out  bool
	info patternmatcher.MatchInfo
}

func readIgnore(root int, opts PackOptions) (*ignore, error) {
	if opts.NoIgnore {
		return nil, nil
	}
	name, fd, err := opts.IgnoreFile, -1, error(nil)
	if name != "" {
		fd, err = openat(unix.AT_FDCWD, name, unix.O_RDONLY, 0)
	} else {
		name = ignoreFileName
		fd, err = openat(root, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", quote(name), err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	text := &io.LimitedReader{R: f, N: ignoreFileMost + 1}
	lines, err := ignorefile.ReadAll(text)
	if err == nil && text.N == 0 {
		err = fmt.Errorf("more than %d bytes", ignoreFileMost)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", quote(name), err)
	}
	patterns, err := patternmatcher.New(append(lines, ignoreFileName))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", quote(name), err)
	}
	return &ignore{patterns}, nil
}

// judge says whether path, relative and slash-separated, is left out.
func (i *ignore) judge(path string, parent ignored) (state ignored, err error) {
	if i == nil {
		return state, nil
	}
	state.out, state.info, err = i.patterns.MatchesUsingParentResults(path, parent.info)
	if err != nil {
		return state, fmt.Errorf("match %s with %s: %w", quote(path), ignoreFileName, err)
	}
	return state, nil
}

// hasExceptions says whether something in a directory that is left out may
// still be wanted.
func (i *ignore) hasExceptions() bool { return i != nil && i.patterns.Exclusions() }
