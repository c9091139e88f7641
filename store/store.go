// Package store is a Storage Objects API server over a directory and SQLite,
// signing its own URLs. (Skeleton: the chapter follows.)
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"objectmount/objects"
)

var errSkeleton = errors.New("store: being written")

// Options of a Store.
type Options struct {
	DataDir        string        // required; made 0700 when absent
	PublicURL      string        // how clients reach the server, for signed URLs; "" = as each request came
	Keys           []Account     // who may call; at least one
	Log            *zap.Logger   // nil: no log
	MaxObjectSize  int64         // bytes; 0 = no limit but the disk
	URLMaxDuration time.Duration // longest life of a download URL; 0 = 7 days
	Now            func() time.Time
}

// Account is one API key and whose it is. An account may have several keys.
type Account struct {
	Name string
	Key  objects.Secret
}

// Store is a server's state.
type Store struct{}

// Open opens or makes the data directory.
func Open(ctx context.Context, opts Options) (*Store, error) { return nil, errSkeleton }

// Handler gives the whole API as one handler.
func (s *Store) Handler() http.Handler { return nil }

// Serve answers on l until ctx ends, then stops gracefully.
func (s *Store) Serve(ctx context.Context, l net.Listener, tc *tls.Config) error { return errSkeleton }

// Close ends the background work and releases the data directory.
func (s *Store) Close() error { return nil }

// LoadKeys reads a file of account:key lines.
func LoadKeys(path string) ([]Account, error) { return nil, errSkeleton }

// LocalKeyFile is the name of LocalKey's file in the data directory.
const LocalKeyFile = "api-key"

// LocalKey gives the key kept in the data directory, making it when absent.
func LocalKey(dataDir string) (key objects.Secret, made bool, err error) { return "", false, errSkeleton }
