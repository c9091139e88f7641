package extract

import (
	"runtime"
	"sync"
)

// writers make small files while the parser goes on. Most of an archive's
// entries are files of a few KiB, and making one costs several system calls
// and no thought, so those are handed over; everything else the parser makes
// itself.
//
// Nobody may see the difference from making all in order. Two entries clash
// only if they have one name, or if one is a hard link's target or the
// directory of the other. So the names handed over are remembered, and before
// anything is made that might clash the parser calls settle, which waits until
// all that was handed over is there.
type writers struct {
	make  func(*fileJob) error
	jobs  chan *fileJob // nil: the parser makes everything itself
	names map[string]struct{}
	bytes int // of the names

	pending sync.WaitGroup
	ended   sync.WaitGroup
	mu      sync.Mutex
	err     error // the first, guarded by mu
}

// fileJob is a small file: all that making it needs.
type fileJob struct {
	dir   *dirFD // held
	base  string
	entry entry
	owner *Owner
	data  []byte
	buf   *buffer // held; data lies in it
}

const (
	// A second writer is worth it for plain archives only, whose parser has
	// little to do; a third is of no use on any archive measured.
	writerCount = 2
	jobQueue    = 256
	// Names are forgotten together, by settling, when there are this many, or
	// bytes of them.
	maxNames     = 4096
	maxNameBytes = 1 << 20
)

// newWriters starts the writers, or on one processor none.
func newWriters(make_ func(*fileJob) error) *writers {
	w := &writers{make: make_, names: map[string]struct{}{}}
	if runtime.GOMAXPROCS(0) == 1 {
		return w
	}
	w.jobs = make(chan *fileJob, jobQueue)
	for range writerCount {
		w.ended.Go(w.run)
	}
	return w
}

func (w *writers) run() {
	for j := range w.jobs {
		if w.failed() == nil {
			if err := w.make(j); err != nil {
				w.mu.Lock()
				if w.err == nil {
					w.err = locate(err, j.entry.rawName, j.entry.offset)
				}
				w.mu.Unlock()
			}
		}
		j.dir.release()
		j.buf.release()
		w.pending.Done()
	}
}

// failed is the first error of a writer.
func (w *writers) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// hand gives a file to the writers. Its name must not be among those handed
// over since the last settle: see clashes.
func (w *writers) hand(j *fileJob) error {
	if len(w.names) >= maxNames || w.bytes >= maxNameBytes {
		if err := w.settle(); err != nil {
			return err
		}
	}
	w.names[j.entry.name] = struct{}{}
	w.bytes += len(j.entry.name)
	j.dir.hold()
	j.buf.hold()
	w.pending.Add(1)
	w.jobs <- j
	return nil
}

// clashes says whether a file of this name may still be in the making.
func (w *writers) clashes(name string) bool {
	_, ok := w.names[name]
	return ok
}

// settle waits until everything handed over is made, and gives the first error.
func (w *writers) settle() error {
	w.pending.Wait()
	clear(w.names)
	w.bytes = 0
	return w.failed()
}

// close ends the writers. What was handed over is made first, unless there
// was an error.
func (w *writers) close() {
	if w.jobs != nil {
		close(w.jobs)
		w.ended.Wait()
	}
}
