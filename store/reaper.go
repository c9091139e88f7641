package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	reapEvery    = time.Second         // how late a ttl may be noticed by a list; every other call notices at once
	tidyEvery    = time.Minute         // for what nobody waits for
	keepTombs    = 30 * 24 * time.Hour // how long get still shows a deleted object
	uploadGrace  = time.Minute         // beyond the upload URL's end, before an empty object is given up
	reapBatch    = 500                 // rows of one transaction, so that other writers get their turn
	reapMaxBatch = 100                 // batches of one round
)

// reap does what time brings, until ctx ends.
func (s *Store) reap(ctx context.Context) {
	tick := time.NewTicker(reapEvery)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		jobs := []func(context.Context) (int, error){s.expire}
		if time.Since(last) >= tidyEvery {
			last = time.Now()
			jobs = append(jobs, s.giveUp, s.forget, s.forgetCalls)
		}
		for _, job := range jobs {
			if _, err := job(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("reaper failed, it will try again", zap.Error(err))
			}
		}
	}
}

// inBatches calls do until it has less than a batch to do.
func inBatches(ctx context.Context, do func(context.Context) (int, error)) (total int, err error) {
	for range reapMaxBatch {
		n, err := do(ctx)
		total += n
		if err != nil || n < reapBatch || ctx.Err() != nil {
			return total, err
		}
	}
	return total, nil
}

// expire deletes the objects whose ttl is over, and tells how many.
func (s *Store) expire(ctx context.Context) (int, error) {
	total, err := inBatches(ctx, func(ctx context.Context) (int, error) {
		due, err := s.numberedRows(ctx, `SELECT n, coalesce(file, '') FROM objects
			WHERE deleted = 0 AND delete_after_ms IS NOT NULL AND delete_after_ms <= ? LIMIT ?`,
			s.now().UnixMilli(), reapBatch)
		if err != nil || len(due) == 0 {
			return 0, err
		}
		var files []string
		err = s.change(ctx, func(ctx context.Context, tx *sql.Tx) error {
			for _, d := range due {
				// Another delete, or an upload, may have come in between.
				var file string
				err := tx.QueryRowContext(ctx, "SELECT coalesce(file, '') FROM objects WHERE n = ? AND deleted = 0", d.n).Scan(&file)
				if errors.Is(err, sql.ErrNoRows) {
					continue
				}
				if err == nil {
					err = s.bury(ctx, tx, d.n)
				}
				if err != nil {
					return err
				}
				s.stats.expired.Add(1)
				files = append(files, file)
			}
			return nil
		})
		if err == nil {
			for _, f := range files {
				s.remove(f)
			}
		}
		return len(due), err
	})
	if total > 0 {
		s.log.Info("deleted objects whose ttl is over", zap.Int("objects", total))
	}
	return total, err
}

// giveUp moves objects to ERROR whose upload URL is over and to which nothing
// was uploaded: they can never be completed.
func (s *Store) giveUp(ctx context.Context) (int, error) {
	before := s.now().Add(-s.opts.UploadDuration - uploadGrace).UnixMilli()
	empty, err := s.numberedRows(ctx, `SELECT n, id FROM objects
		WHERE state = 'UPLOADING' AND file IS NULL AND create_ms <= ? LIMIT ?`, before, reapBatch)
	if err != nil {
		return 0, err
	}
	given := 0
	err = s.change(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, e := range empty {
			if s.flights.has(e.text) {
				continue // a long upload that began in time
			}
			res, err := tx.ExecContext(ctx, "UPDATE objects SET state = 'ERROR' WHERE n = ? AND state = 'UPLOADING' AND file IS NULL", e.n)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			given += int(n)
		}
		return nil
	})
	return given, err
}

// forget removes tombstones after keepTombs.
func (s *Store) forget(ctx context.Context) (int, error) {
	return inBatches(ctx, func(ctx context.Context) (int, error) {
		return s.purge(ctx, `DELETE FROM objects WHERE n IN
			(SELECT n FROM objects WHERE deleted = 1 AND deleted_ms <= ? LIMIT ?)`, keepTombs)
	})
}

// forgetCalls removes what idempotency need not know any more.
func (s *Store) forgetCalls(ctx context.Context) (int, error) {
	return inBatches(ctx, func(ctx context.Context) (int, error) {
		return s.purge(ctx, `DELETE FROM requests WHERE n IN
			(SELECT n FROM requests WHERE time_ms <= ? LIMIT ?)`, rememberFor)
	})
}

// purge runs a statement over one batch of rows older than age.
func (s *Store) purge(ctx context.Context, statement string, age time.Duration) (deleted int, err error) {
	err = s.change(ctx, func(ctx context.Context, tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, statement, s.now().Add(-age).UnixMilli(), reapBatch)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		deleted = int(n)
		return err
	})
	return deleted, err
}

type numbered struct {
	n    int64
	text string
}

// numberedRows runs a query that gives a row's number and a text.
func (s *Store) numberedRows(ctx context.Context, query string, args ...any) ([]numbered, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []numbered
	for rows.Next() {
		var r numbered
		if err := rows.Scan(&r.n, &r.text); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}
