package objects

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	noteEvery = time.Second // after which the sidecar is brought up to date, so that a killed process costs no more
	syncEvery = 256 << 20   // bytes after which all is made durable, so that a power loss costs no more
	tellEvery = 100 * time.Millisecond
)

// fill brings the bytes that are missing: from several requests at a time to
// where they belong, or in one piece from a server that can do no better.
func (d *download) fill() error {
	if d.r.provable() && d.r.ranges.Load() {
		return d.fillApart()
	}
	return d.fillInOrder()
}

// fillInOrder brings them through a stream.
func (d *download) fillInOrder() error {
	s, err := d.r.stream(d.ctx, d.have.front())
	if err != nil {
		return err
	}
	defer s.Close()
	s.sum = nil // ours covers what earlier runs brought, too
	for {
		b, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		at := d.have.front()
		if _, err := d.file.WriteAt(b, at); err != nil {
			return err
		}
		if d.have = d.have.add(at, at+int64(len(b))); d.sum != nil {
			d.sum.Write(b)
			d.summed += int64(len(b))
		}
		if err := d.housekeep(); err != nil {
			return err
		}
	}
	return d.check()
}

// fillApart brings them by a crew. Meanwhile this goroutine does all the rest:
// the checksum, which follows the first gap, the sidecar and the progress.
func (d *download) fillApart() error {
	if b := d.r.firstFrom(0); d.have.front() < int64(len(b)) {
		if _, err := d.file.WriteAt(b, 0); err != nil {
			return err
		}
		d.have = d.have.add(0, int64(len(b)))
	}
	gaps := d.have.gaps(d.r.Size())
	if len(gaps) > 0 {
		f := &filler{file: d.file, mem: &d.r.net.mem, have: slices.Clone(d.have), begun: time.Now(), wake: make(chan struct{}, 1)}
		f.missing = gaps.total()
		f.mem.join()
		defer f.mem.leave()
		crew := d.r.fetch(d.ctx, f, nil, gaps...)
		defer crew.close()
		if err := d.watch(f, crew); err != nil {
			return err
		}
	}
	return d.check()
}

// watch does the rest until all is there or something has failed.
func (d *download) watch(f *filler, crew *crew) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		over := false
		select {
		case <-f.wake: // all is there, or a part failed
			over = true
		case <-d.ctx.Done():
			over = true
		case <-tick.C:
		}
		if over {
			crew.close() // all that was received is written now
		}
		var err error
		d.have, err = f.state()
		switch {
		case over && err != nil:
			return d.r.named("read", err)
		case over && d.ctx.Err() != nil && d.have.total() < d.r.Size():
			return context.Cause(d.ctx)
		}
		if err := d.follow(); err != nil {
			return err
		}
		if err := d.housekeep(); err != nil || over {
			return err
		}
	}
}

// housekeep does what is due of what is done now and then.
func (d *download) housekeep() error {
	now := time.Now()
	if now.Sub(d.told) >= tellEvery {
		d.say()
	}
	if total := d.have.total(); total-d.synced.total() >= syncEvery {
		return d.save()
	}
	if now.Sub(d.noted) >= noteEvery {
		return d.note()
	}
	return nil
}

// follow brings the checksum up to the first gap.
func (d *download) follow() error {
	end := d.have.front()
	if d.sum == nil || d.summed == end {
		return nil
	}
	n, err := io.Copy(d.sum, io.NewSectionReader(d.file, d.summed, end-d.summed))
	d.summed += n
	return err
}

// check is the end: all bytes are there. Are they right?
func (d *download) check() error {
	if err := d.follow(); err != nil || d.sum == nil {
		return err
	}
	if err := checkSum(d.sum, d.r.sha256); err != io.EOF {
		return err
	}
	return nil
}

// filler is the sink of a crew that writes bytes to where they belong. Each
// part has one chunk of memory, from which its bytes go to the file at once.
type filler struct {
	file  *os.File
	mem   *memory
	begun time.Time
	wake  chan struct{} // has room for one: look at state, it is over

	mu      sync.Mutex // guards what follows
	have    spans
	missing int64
	err     error // the first
}

func (f *filler) begin(p *part) { p.chunks = [][]byte{f.mem.borrow()} }

func (f *filler) room(_ context.Context, p *part) ([]byte, error) { return p.chunks[0], nil }

// put writes n bytes of p.
func (f *filler) put(p *part, n int) error {
	off := p.off + p.got
	if _, err := f.file.WriteAt(p.chunks[0][:n], off); err != nil {
		return permanent(err)
	}
	if p.got += int64(n); p.got == p.end-p.off {
		f.free(p)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have = f.have.add(off, off+int64(n))
	if f.missing -= int64(n); f.missing == 0 {
		f.tell()
	}
	return nil
}

// fail ends p. The others end soon, too.
func (f *filler) fail(p *part, err error) {
	f.free(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
	f.tell()
}

// tell wakes who watches. The caller holds mu.
func (f *filler) tell() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *filler) free(p *part) {
	for _, c := range p.chunks {
		f.mem.give(nil, c)
	}
	p.chunks = nil
}

// state is what is there, and what failed.
func (f *filler) state() (spans, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.have), f.err
}

// staff: whoever comes has a chunk.
func (f *filler) staff(int, int) {}

// awaits: every part is handed on by itself.
func (f *filler) awaits(*part) bool { return false }

// starved: a file takes everything, so more is always welcome.
func (f *filler) starved() time.Duration { return time.Since(f.begun) }
