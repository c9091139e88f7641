package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"

	"modernc.org/sqlite" // the driver "sqlite", in pure Go
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is kept in PRAGMA user_version. A directory of a later one is
// refused, since an older program would break its rules.
const schemaVersion = 1

// schema is what is known of objects.
//
// n counts objects as they were made. Ids sort as they were made too, so one
// index serves a page, its filters and its cursor: a list is a walk of
// objects_own or objects_public from the cursor on, the filters are judged
// from the index alone, and only rows that pass are fetched.
//
// totals holds how many objects there are of each sort, kept by the triggers,
// so that a list's total is a sum of a few rows however many objects there are.
const schema = `
CREATE TABLE objects (
	n               INTEGER PRIMARY KEY,
	id              TEXT NOT NULL UNIQUE,
	account         TEXT NOT NULL,
	name            TEXT NOT NULL,
	content_type    TEXT NOT NULL,
	state           TEXT NOT NULL CHECK (state IN ('UPLOADING', 'READ_ONLY', 'DELETED', 'ERROR')),
	deleted         INTEGER NOT NULL GENERATED ALWAYS AS (state = 'DELETED') STORED,
	is_public       INTEGER NOT NULL,
	create_ms       INTEGER NOT NULL,
	delete_after_ms INTEGER, -- ttl_ms after create_ms
	deleted_ms      INTEGER, -- when it became a tombstone
	metadata        TEXT,    -- a JSON object
	file            TEXT,    -- the whole upload below content/; NULL: none
	size            INTEGER, -- of that file, bytes
	upload_ms       INTEGER  -- when it was whole
) STRICT;

CREATE INDEX objects_own    ON objects (account, deleted, id DESC, state, content_type, is_public, name);
CREATE INDEX objects_public ON objects (deleted, id DESC, state, content_type, name) WHERE is_public = 1;
CREATE INDEX objects_ttl    ON objects (delete_after_ms) WHERE deleted = 0 AND delete_after_ms IS NOT NULL;
CREATE INDEX objects_empty  ON objects (create_ms) WHERE state = 'UPLOADING' AND file IS NULL;
CREATE UNIQUE INDEX objects_file ON objects (file) WHERE file IS NOT NULL;
CREATE INDEX objects_gone   ON objects (deleted_ms) WHERE deleted = 1;

-- metadata of the objects that are not deleted, to find keys and values.
CREATE TABLE metadata (
	account TEXT NOT NULL,
	key     TEXT NOT NULL,
	value   TEXT NOT NULL,
	n       INTEGER NOT NULL REFERENCES objects (n) ON DELETE CASCADE,
	PRIMARY KEY (account, key, value, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX metadata_of ON metadata (n);

CREATE TABLE totals (
	account      TEXT NOT NULL,
	is_public    INTEGER NOT NULL,
	state        TEXT NOT NULL,
	content_type TEXT NOT NULL,
	count        INTEGER NOT NULL,
	PRIMARY KEY (account, is_public, state, content_type)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER objects_made AFTER INSERT ON objects BEGIN
	INSERT INTO totals VALUES (new.account, new.is_public, new.state, new.content_type, 1)
	ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER objects_moved AFTER UPDATE OF state ON objects WHEN old.state <> new.state BEGIN
	UPDATE totals SET count = count - 1 WHERE account = old.account AND is_public = old.is_public
		AND state = old.state AND content_type = old.content_type;
	INSERT INTO totals VALUES (new.account, new.is_public, new.state, new.content_type, 1)
	ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER objects_forgotten AFTER DELETE ON objects BEGIN
	UPDATE totals SET count = count - 1 WHERE account = old.account AND is_public = old.is_public
		AND state = old.state AND content_type = old.content_type;
END;

-- calls that were done, by x-request-id: see idempotency.go.
CREATE TABLE requests (
	n       INTEGER PRIMARY KEY AUTOINCREMENT,
	call    BLOB NOT NULL UNIQUE, -- SHA-256 of account, operation, target and x-request-id
	body    BLOB NOT NULL,        -- SHA-256 of what was asked
	id      TEXT NOT NULL,        -- the object
	time_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX requests_time ON requests (time_ms);
`

// openDB opens the database, making it when it is absent. write is a pool of
// one connection whose transactions take the write lock at their start; read
// never changes anything and is not held up by a writer (WAL).
func openDB(ctx context.Context, path string) (write, read *sql.DB, err error) {
	// SQLite would make it by umask; the log takes over the database's mode.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	f.Close()

	// synchronous FULL: what was answered is on the disk, as content is.
	pragmas := []string{"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)",
		"foreign_keys(1)", "cache_size(-4096)", "journal_size_limit(16777216)", "temp_store(MEMORY)"}
	dsn := func(more url.Values) string {
		q := url.Values{"_pragma": pragmas, "_defensive": {"1"}, "_dqs": {"0"}}
		for k, v := range more {
			q[k] = v
		}
		return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
	}
	if write, err = sql.Open("sqlite", dsn(url.Values{"_txlock": {"immediate"}})); err != nil {
		return nil, nil, err
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("database %s: %w", path, err), write.Close())
	}
	if read, err = sql.Open("sqlite", dsn(url.Values{"_query_only": {"1"}})); err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	readers := max(2, min(runtime.GOMAXPROCS(0), 8))
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return write, read, nil
}

// migrate brings a database to schemaVersion, in one transaction.
func migrate(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version == schemaVersion:
		return nil
	case version != 0:
		return fmt.Errorf("its format is version %d, this program knows %d: use the newer program", version, schemaVersion)
	}
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// change runs f in one write transaction and commits unless f fails. It is
// not interrupted when the caller goes away: a change either happens as a
// whole or not at all, and each is short.
func (s *Store) change(ctx context.Context, f func(ctx context.Context, tx *sql.Tx) error) error {
	ctx = context.WithoutCancel(ctx)
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := f(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// isFull reports whether the database could not be written for want of space.
func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}
