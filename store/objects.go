package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"objectmount/objects"
)

// record is a row of the table objects.
type record struct {
	objects.Object
	n        int64
	account  string
	file     string // below content/; "" = nothing uploaded
	size     int64  // of file
	uploaded time.Time
}

// columns are what scan wants, in its order.
const columns = `n, id, account, name, content_type, state, is_public, create_ms, delete_after_ms,
	metadata, coalesce(file, ''), size, coalesce(upload_ms, 0)`

func scan(row interface{ Scan(...any) error }) (record, error) {
	var (
		r           record
		after, size sql.NullInt64
		metadata    sql.NullString
		uploadedMS  int64
	)
	err := row.Scan(&r.n, &r.ID, &r.account, &r.Name, &r.ContentType, &r.State, &r.IsPublic,
		&r.CreateTimeMS, &after, &metadata, &r.file, &size, &uploadedMS)
	if err != nil {
		return record{}, err
	}
	r.size, r.uploaded = size.Int64, time.UnixMilli(uploadedMS)
	if after.Valid {
		r.DeleteAfterTimeMS = &after.Int64
	}
	// Until complete, what is uploaded may still be replaced.
	if size.Valid && (r.State == objects.StateReadOnly || r.State == objects.StateDeleted) {
		r.SizeBytes = &size.Int64
	}
	if metadata.Valid {
		if err := json.Unmarshal([]byte(metadata.String), &r.Metadata); err != nil {
			return record{}, fmt.Errorf("metadata of %s: %w", r.ID, err)
		}
	}
	return r, nil
}

// querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// lookup finds a record by id; sql.ErrNoRows when there is none.
func lookup(ctx context.Context, q querier, id string) (record, error) {
	return scan(q.QueryRowContext(ctx, "SELECT "+columns+" FROM objects WHERE id = ?", id))
}

// find finds an object that account may see. One whose time is over is
// deleted first, if the reaper has not yet been there.
func (s *Store) find(ctx context.Context, account, id string) (record, error) {
	r, err := s.findAny(ctx, id)
	if err == nil && r.account != account && !r.IsPublic {
		return record{}, noSuchObject(id)
	}
	return r, err
}

// findAny is find for whoever holds a signed URL.
func (s *Store) findAny(ctx context.Context, id string) (record, error) {
	if !validID(id) {
		return record{}, noSuchObject(id)
	}
	r, err := lookup(ctx, s.read, id)
	if errors.Is(err, sql.ErrNoRows) {
		return record{}, noSuchObject(id)
	}
	if err == nil && r.State != objects.StateDeleted && r.DeleteAfterTimeMS != nil && *r.DeleteAfterTimeMS <= s.now().UnixMilli() {
		if _, err := s.expire(ctx); err != nil {
			return record{}, err
		}
		return lookup(ctx, s.read, id)
	}
	return r, err
}

// findOwn is find for calls that only the owner may make.
func (s *Store) findOwn(ctx context.Context, account, id string) (record, error) {
	r, err := s.find(ctx, account, id)
	if err == nil && r.account != account {
		return record{}, refuse(http.StatusForbidden, "permission_denied", "object %s belongs to another account", id)
	}
	return r, err
}

// create makes an object in state UPLOADING. req has been checked.
func (s *Store) create(ctx context.Context, c call, req objects.CreateRequest) (record, error) {
	return s.once(ctx, c, func(ctx context.Context, tx *sql.Tx) (record, error) {
		now := s.now()
		var after, metadata any
		if req.TTLMS != nil {
			after = now.UnixMilli() + *req.TTLMS
		}
		if req.Metadata != nil {
			b, err := json.Marshal(req.Metadata)
			if err != nil {
				return record{}, err
			}
			metadata = string(b)
		}
		id := s.ids.next(now)
		res, err := tx.ExecContext(ctx, `INSERT INTO objects
			(id, account, name, content_type, state, is_public, create_ms, delete_after_ms, metadata)
			VALUES (?, ?, ?, ?, 'UPLOADING', ?, ?, ?, ?)`,
			id, c.account, req.Name, req.ContentType, req.IsPublic, now.UnixMilli(), after, metadata)
		if err != nil {
			return record{}, err
		}
		n, err := res.LastInsertId()
		if err != nil {
			return record{}, err
		}
		for k, v := range req.Metadata {
			if _, err := tx.ExecContext(ctx, "INSERT INTO metadata VALUES (?, ?, ?, ?)", c.account, k, v, n); err != nil {
				return record{}, err
			}
		}
		s.stats.created.Add(1)
		return lookup(ctx, tx, id)
	})
}

// attach makes a whole upload the object's content, in place of an earlier
// one. If the object is not UPLOADING any more, the upload came too late.
func (s *Store) attach(ctx context.Context, id, file string, size int64) error {
	var old string
	err := s.change(ctx, func(ctx context.Context, tx *sql.Tx) error {
		r, err := lookup(ctx, tx, id)
		if errors.Is(err, sql.ErrNoRows) {
			return noSuchObject(id)
		}
		if err != nil {
			return err
		}
		if r.State != objects.StateUploading {
			return notUploading(r)
		}
		old = r.file
		_, err = tx.ExecContext(ctx, "UPDATE objects SET file = ?, size = ?, upload_ms = ? WHERE n = ?",
			file, size, s.now().UnixMilli(), r.n)
		return err
	})
	if err == nil {
		s.remove(old)
	}
	return err
}

func notUploading(r record) *refusal {
	return refuse(http.StatusConflict, "not_uploading", "object %s is not in state UPLOADING but %s", r.ID, r.State)
}

// complete makes an uploaded object READ_ONLY. Its content is already whole,
// synced and in place, so it is readable when complete returns.
func (s *Store) complete(ctx context.Context, c call) (record, error) {
	if _, err := s.findOwn(ctx, c.account, c.target); err != nil {
		return record{}, err
	}
	return s.once(ctx, c, func(ctx context.Context, tx *sql.Tx) (record, error) {
		r, err := lookup(ctx, tx, c.target)
		if err != nil {
			return record{}, err
		}
		if r.State != objects.StateUploading {
			return record{}, notUploading(r)
		}
		if r.file == "" {
			return record{}, refuse(http.StatusConflict, "nothing_uploaded",
				"nothing has been uploaded to object %s: PUT its content to upload_url, then complete it", r.ID)
		}
		if _, err := tx.ExecContext(ctx, "UPDATE objects SET state = 'READ_ONLY' WHERE n = ?", r.n); err != nil {
			return record{}, err
		}
		s.stats.completed.Add(1)
		return lookup(ctx, tx, r.ID)
	})
}

// delete makes an object a tombstone, then removes its content. Deleting a
// tombstone changes nothing.
func (s *Store) delete(ctx context.Context, c call) (record, error) {
	if _, err := s.findOwn(ctx, c.account, c.target); err != nil {
		return record{}, err
	}
	var file string
	r, err := s.once(ctx, c, func(ctx context.Context, tx *sql.Tx) (record, error) {
		r, err := lookup(ctx, tx, c.target)
		if err != nil || r.State == objects.StateDeleted {
			return r, err
		}
		file = r.file
		if err := s.bury(ctx, tx, r.n); err != nil {
			return record{}, err
		}
		return lookup(ctx, tx, r.ID)
	})
	if err == nil {
		s.remove(file)
	}
	return r, err
}

// bury makes the row n a tombstone. Its content is to be removed when the
// transaction has been committed.
func (s *Store) bury(ctx context.Context, tx *sql.Tx, n int64) error {
	_, err := tx.ExecContext(ctx, "UPDATE objects SET state = 'DELETED', deleted_ms = ?, file = NULL WHERE n = ?",
		s.now().UnixMilli(), n)
	if err == nil {
		_, err = tx.ExecContext(ctx, "DELETE FROM metadata WHERE n = ?", n)
	}
	if err == nil {
		s.stats.deleted.Add(1)
	}
	return err
}

// etag is a strong validator: an object's content is one upload, and no two
// uploads have the same name.
func (r record) etag() string {
	_, gen, _ := strings.Cut(r.file, ".")
	return `"` + gen + `"`
}
