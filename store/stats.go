package store

import "sync/atomic"

// Stats is a snapshot of what a Store has done since it was opened.
type Stats struct {
	Requests      int64 `json:"requests"`       // answered, refusals included
	ClientErrors  int64 `json:"client_errors"`  // answered 4xx
	ServerErrors  int64 `json:"server_errors"`  // answered 5xx
	Replays       int64 `json:"replays"`        // repeated calls recognised by x-request-id
	Created       int64 `json:"created"`        // objects
	Completed     int64 `json:"completed"`      // objects
	Deleted       int64 `json:"deleted"`        // objects, expired ones included
	Expired       int64 `json:"expired"`        // objects deleted because their ttl_ms was over
	Uploads       int64 `json:"uploads"`        // whole uploads taken in
	UploadsFailed int64 `json:"uploads_failed"` // broken off or refused midway
	BytesIn       int64 `json:"bytes_in"`       // of content
	BytesOut      int64 `json:"bytes_out"`      // of content
	Active        int64 `json:"active"`         // requests under way now
}

// counters are Stats in the making.
type counters struct {
	requests, clientErrors, serverErrors, replays  atomic.Int64
	created, completed, deleted, expired           atomic.Int64
	uploads, uploadsFailed, bytesIn, bytesOut, now atomic.Int64
}

// Stats gives a snapshot; the fields are read one after another.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		Requests: c.requests.Load(), ClientErrors: c.clientErrors.Load(), ServerErrors: c.serverErrors.Load(),
		Replays: c.replays.Load(), Created: c.created.Load(), Completed: c.completed.Load(),
		Deleted: c.deleted.Load(), Expired: c.expired.Load(), Uploads: c.uploads.Load(),
		UploadsFailed: c.uploadsFailed.Load(), BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		Active: c.now.Load(),
	}
}
