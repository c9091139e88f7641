package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// A client that has lost the answer asks again, with the same x-request-id on
// every try. Were a create then done twice, an object would be left that
// nobody knows of; were a complete done twice, the second would be a conflict
// though all is well. So what was done is remembered in the transaction that
// does it, for a day, and at most rememberCalls of them: the oldest go first.
// Refusals change nothing and are not remembered.
const (
	rememberFor   = 24 * time.Hour
	rememberCalls = 100_000
	maxRequestID  = 256 // bytes; a longer one is not a request id and is ignored
)

// call is one call that changes something.
type call struct {
	account   string
	op        string // "create", "complete", "delete"
	target    string // object id; "" for create
	requestID string // "" = the client does not repeat itself
	body      []byte // what is asked for, where the same call may ask for different things
}

// key is what the call is remembered by. The parts are hashed with their
// lengths, so that no two calls run together.
func (c call) key() []byte {
	h := sha256.New()
	for _, part := range []string{c.account, c.op, c.target, c.requestID} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return h.Sum(nil)
}

// once does f in a transaction, or finds that it has been done, and gives the
// object as it is now.
func (s *Store) once(ctx context.Context, c call, f func(context.Context, *sql.Tx) (record, error)) (r record, err error) {
	if len(c.requestID) > maxRequestID {
		c.requestID = ""
	}
	key, body := c.key(), sha256.Sum256(c.body)
	now := s.now()
	err = s.change(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if c.requestID == "" {
			r, err = f(ctx, tx)
			return err
		}
		var id string
		var before []byte
		err := tx.QueryRowContext(ctx, "SELECT id, body FROM requests WHERE call = ? AND time_ms > ?",
			key, now.Add(-rememberFor).UnixMilli()).Scan(&id, &before)
		switch {
		case err == nil && !bytes.Equal(before, body[:]):
			return refuse(http.StatusConflict, "request_id_reused",
				"x-request-id was used before for a %s with another body: use a new one for each call", c.op)
		case err == nil:
			s.stats.replays.Add(1)
			r, err = lookup(ctx, tx, id)
			return err
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		if r, err = f(ctx, tx); err != nil {
			return err
		}
		return remember(ctx, tx, key, body[:], r.ID, now)
	})
	return r, err
}

func remember(ctx context.Context, tx *sql.Tx, key, body []byte, id string, now time.Time) error {
	res, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO requests (call, body, id, time_ms) VALUES (?, ?, ?, ?)",
		key, body, id, now.UnixMilli())
	if err != nil {
		return err
	}
	n, err := res.LastInsertId()
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM requests WHERE n <= ?", n-rememberCalls)
	return err
}
