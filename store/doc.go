// Package store is a Storage Objects API server over a directory and SQLite,
// signing its own URLs. The public clients work against it unchanged.
//
// # An object's life
//
//	POST /v1/objects            PUT upload_url        POST …/complete
//	──────────────▶ UPLOADING ───┐ (any number) ────────────────▶ READ_ONLY
//	                  │   ▲──────┘                                    │
//	                  │ upload URL over, nothing uploaded             │ …/delete,
//	                  ▼                                               ▼ ttl_ms over
//	                ERROR ──────────────── …/delete ──────────────▶ DELETED
//
// An object is written once. While it is UPLOADING its upload URL takes the
// whole content, and the last whole one wins; complete ends that, and from
// then on the bytes never change. A deleted object is a tombstone for 30
// days: get shows it as DELETED, its content is gone at once; then it is
// forgotten.
//
// # Calls
//
//	POST /v1/objects                              create
//	GET  /v1/objects                              list the account's own objects
//	GET  /v1/objects/list_public                  list every account's public objects
//	GET  /v1/objects/metadata/keys                metadata keys in use by the account
//	GET  /v1/objects/metadata/keys/{key}/values   values of one key
//	GET  /v1/objects/{id}                         get
//	POST /v1/objects/{id}/complete                complete
//	POST /v1/objects/{id}/delete                  delete
//	GET  /v1/objects/{id}/download                a download URL, duration_seconds (3600)
//	PUT, GET, HEAD /v1/content/{id}?Expires=…&Signature=…   what signed URLs look like
//
// All but the last want "Authorization: Bearer KEY". An account sees its own
// objects and those that are public (is_public in the create body); any other
// object is 404, as if it did not exist. Only the owner completes or deletes:
// for others a public object answers 403. Refusals are
// {"code": "…", "message": "…"}; unknown query parameters and body fields are
// ignored, and complete and delete need no body.
//
// # Lists
//
// Newest first, in pages of limit (20; at most 5000, more is taken as 5000, 0
// or less as 20). A page also ends at 8 MiB, has_more says whether there is
// another. The next page starts after the last id: starting_after is a
// position, so it may be an id that is gone or was never given out.
// DELETED objects are hidden unless state=DELETED asks for them. name matches
// any part of a name, search any part of a name or an id, both without regard
// to ASCII case. is_public=true or false narrows a list, own objects as
// before. Empty parameters count as absent. total_count, left out when
// include_total_count=false, counts what the filters match on all pages.
//
// # Signed URLs
//
// A URL is good for one method, one object, until one second; these are all
// that HMAC-SHA256 covers and all that the URL holds, so that there is nothing
// to vary (sign.go). The secret is made once and kept 0600 in the data
// directory. Neither queries nor Authorization headers are ever logged.
//
// # Retries
//
// A create, complete or delete with an x-request-id is done once: within a day
// the same call of the same account gives the same object again, without
// doing it again (idempotency.go). Conflicts that will not go away say
// "x-should-retry: false", or the public clients would try for half a minute.
//
// # The data directory
//
//	lock                   flocked: one process per data directory
//	api-key, url-secret    made when first needed, 0600
//	objects.db (-wal -shm) SQLite: what is known of each object
//	incoming/              uploads on their way; emptied at start
//	content/5f/ID.5f…      whole uploads, each in a file of its own
//
// An upload is written to incoming, synced, renamed into content, its
// directory synced, and only then named in the database, in one transaction
// that SQLite syncs. So a crash at any point leaves the object without content
// or with a whole one; what no row names is swept away at start.
package store
