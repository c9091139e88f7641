package store

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// A transfer may last for days, as long as it moves. So no deadline is set
// for a whole body: it is moved on with each piece. That is also why the
// deadlines are not left standing while nothing is read or written: HTTP/2
// resets a stream whose deadline runs out, and for HTTP/1.1 net/http takes it
// for a client that has gone.

// steadyPiece is what one deadline is for: at the default of 2 minutes a
// client that takes less than about 2 KiB/s is cut off.
const steadyPiece = 256 << 10 // bytes

// steadyBody is an upload's body. It ends with a *readError when no byte came
// for idle, and with a refusal after limit bytes (0 = no limit).
type steadyBody struct {
	r     io.Reader
	rc    *http.ResponseController
	idle  time.Duration
	limit int64
	sent  int64
	count *atomic.Int64
}

func (b *steadyBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.idle)) // not every Handler's server can
	n, err := b.r.Read(p)
	b.count.Add(int64(n))
	if b.sent += int64(n); b.limit > 0 && b.sent > b.limit {
		return 0, tooLarge(b.limit)
	}
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // the sync that follows may last
	}
	if err != nil && err != io.EOF {
		err = &readError{err}
	}
	return n, err
}

// readError is an error of the client's side of an upload.
type readError struct{ err error }

func (e *readError) Error() string { return "read upload: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// answer is an answer being written: piece by piece, each with its deadline,
// its status and bytes noted for the log.
type answer struct {
	http.ResponseWriter
	rc     *http.ResponseController
	idle   time.Duration
	count  *atomic.Int64
	status int // 0 = not begun
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func (a *answer) begin(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
	_ = a.rc.SetWriteDeadline(time.Now().Add(a.idle)) // not every Handler's server can
}

func (a *answer) WriteHeader(status int) {
	a.begin(status)
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) wrote(n int64) {
	a.bytes += n
	a.count.Add(n)
}

func (a *answer) Write(p []byte) (total int, err error) {
	for {
		piece := p[:min(len(p), steadyPiece)]
		a.begin(http.StatusOK)
		n, err := a.ResponseWriter.Write(piece)
		a.wrote(int64(n))
		total += n
		if p = p[n:]; err != nil || len(p) == 0 {
			return total, err
		}
	}
}

// ReadFrom lets net/http send a file by sendfile, which it does on a
// cleartext HTTP/1.1 connection.
func (a *answer) ReadFrom(src io.Reader) (total int64, err error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	// io.CopyN gives a *io.LimitedReader, through one of which, not two,
	// sendfile finds the file below.
	whole, ok := src.(*io.LimitedReader)
	if !ok {
		whole = &io.LimitedReader{R: src, N: 1<<63 - 1}
	}
	for whole.N > 0 {
		a.begin(http.StatusOK)
		want := min(whole.N, steadyPiece)
		n, err := io.CopyBuffer(a.ResponseWriter, &io.LimitedReader{R: whole.R, N: want}, buf[:])
		whole.N -= n
		a.wrote(n)
		total += n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}
