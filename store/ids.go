package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"math/big"
	"strings"
	"sync"
	"time"
)

// An id is "obj_" and 21 base62 digits, which sort in ASCII order as the
// objects were made:
//
//	obj_ 0W3mfQAe 000 kV3x0Zq1bP
//	     │        │   └ 10 random digits (59 bits): ids cannot be guessed
//	     │        └ 3 digits: count of ids within the millisecond
//	     └ 8 digits: milliseconds since 1970 (until the year 8888)
const (
	idPrefix   = "obj_"
	idDigits   = 21
	timeDigits = 8
	seqDigits  = 3
	digits62   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	seqLimit   = 62 * 62 * 62
)

// validID reports whether text has the form of an id.
func validID(text string) bool {
	digits, ok := strings.CutPrefix(text, idPrefix)
	if !ok || len(digits) != idDigits {
		return false
	}
	for i := range len(digits) {
		if strings.IndexByte(digits62, digits[i]) < 0 {
			return false
		}
	}
	return true
}

// idMaker makes ids that grow, also when the clock goes back. It is safe for
// concurrent use.
type idMaker struct {
	mu  sync.Mutex
	ms  int64 // of the last id
	seq int64 // of the last id
}

// startAfter makes the next id greater than every id of an earlier run.
func (m *idMaker) startAfter(ctx context.Context, db *sql.DB) error {
	var last sql.NullString
	if err := db.QueryRowContext(ctx, "SELECT max(id) FROM objects").Scan(&last); err != nil || !validID(last.String) {
		return err
	}
	digits := strings.TrimPrefix(last.String, idPrefix)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ms = parse62(digits[:timeDigits])
	m.seq = parse62(digits[timeDigits : timeDigits+seqDigits])
	return nil
}

func (m *idMaker) next(now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ms := now.UnixMilli(); ms > m.ms {
		m.ms, m.seq = ms, 0
	} else if m.seq++; m.seq == seqLimit {
		m.ms, m.seq = m.ms+1, 0
	}
	return idPrefix + format62(m.ms, timeDigits) + format62(m.seq, seqDigits) +
		randomDigits(idDigits-timeDigits-seqDigits)
}

func format62(v int64, width int) string {
	b := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		b[i] = digits62[v%62]
		v /= 62
	}
	return string(b)
}

func parse62(digits string) (v int64) {
	for i := range len(digits) {
		v = v*62 + int64(strings.IndexByte(digits62, digits[i]))
	}
	return v
}

// randomDigits gives n base62 digits, each as likely as any other.
func randomDigits(n int) string {
	limit := new(big.Int).Exp(big.NewInt(62), big.NewInt(int64(n)), nil)
	v, err := rand.Int(rand.Reader, limit)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return format62(v.Int64(), n)
}
