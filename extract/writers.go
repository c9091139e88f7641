package extract

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// writers make small files while the parser goes on. Most of an archive's
// entries are files of a few KiB, and making one costs several system calls
// and no thought, so those are handed over; everything else the parser makes
// itself. They are handed over in batches, because waking a writer costs as much
// as making a file.
//
// Nobody may see the difference from making all in order. Two entries clash
// only if they have one name, or if one is a hard link's target or the
// directory of the other. So the names handed over are remembered, and before
// anything is made that might clash the parser calls settle, which waits until
// all that was handed over is there.
type writers struct {
	make  func(*fileJob) error
	jobs  chan *batch // nil: the parser makes everything itself
	free  chan *batch
	next  *batch // not handed over yet
	names map[string]struct{}
	bytes int // of the names

	pending sync.WaitGroup
	ended   sync.WaitGroup
	failing atomic.Bool
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
}

// batch is files whose data lie in one buffer: so the parser keeps no more than
// one from going back to the decoder.
type batch struct {
	buf   *buffer // held
	jobs  []fileJob
	bytes int
}

const (
	// A second writer is worth it for plain archives only, whose parser has
	// little to do; a third is of no use on any archive measured.
	writerCount = 2
	// Batches are small enough for both writers to have work.
	batchJobs  = 16
	batchBytes = 64 << 10
	batchQueue = 32
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
	w.jobs, w.free = make(chan *batch, batchQueue), make(chan *batch, batchQueue)
	for range writerCount {
		w.ended.Go(w.run)
	}
	return w
}

func (w *writers) run() {
	for b := range w.jobs {
		for i := range b.jobs {
			j := &b.jobs[i]
			if w.failed() == nil {
				if err := w.make(j); err != nil {
					w.fail(locate(err, j.entry.rawName, j.entry.offset))
				}
			}
			j.dir.release()
		}
		b.buf.release()
		clear(b.jobs)
		b.buf, b.jobs, b.bytes = nil, b.jobs[:0], 0
		select {
		case w.free <- b:
		default:
		}
		w.pending.Done()
	}
}

func (w *writers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
		w.failing.Store(true)
	}
}

// failed is the first error of a writer.
func (w *writers) failed() error {
	if !w.failing.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// hand gives a file to the writers; its data lie in buf. Its name must not be
// among those handed over since the last settle: see clashes.
func (w *writers) hand(j fileJob, buf *buffer) error {
	if len(w.names) >= maxNames || w.bytes >= maxNameBytes {
		if err := w.settle(); err != nil {
			return err
		}
	}
	w.names[j.entry.name] = struct{}{}
	w.bytes += len(j.entry.name)
	if w.next != nil && w.next.buf != buf {
		w.flush()
	}
	if w.next == nil {
		select {
		case w.next = <-w.free:
		default:
			w.next = &batch{jobs: make([]fileJob, 0, batchJobs)}
		}
		w.next.buf = buf
		buf.hold()
	}
	j.dir.hold()
	w.next.jobs = append(w.next.jobs, j)
	if w.next.bytes += len(j.data); len(w.next.jobs) == batchJobs || w.next.bytes >= batchBytes {
		w.flush()
	}
	return nil
}

// flush hands the batch over that is being filled.
func (w *writers) flush() {
	if w.next != nil {
		w.pending.Add(1)
		w.jobs <- w.next
		w.next = nil
	}
}

// clashes says whether a file of this name may still be in the making.
func (w *writers) clashes(name string) bool {
	_, ok := w.names[name]
	return ok
}

// settle waits until everything handed over is made, and gives the first error.
func (w *writers) settle() error {
	w.flush()
	w.pending.Wait()
	clear(w.names)
	w.bytes = 0
	return w.failed()
}

// close ends the writers. What was handed over is made first, unless there
// was an error.
func (w *writers) close() {
	if w.jobs != nil {
		w.flush()
		close(w.jobs)
		w.ended.Wait()
	}
}
