package objects

import (
	"slices"
	"strings"
)

// ContentType is the API's own word for what an object holds. It is not a
// MIME type, and it is only a claim: a "gzip" object may hold a tar, and a
// "tgz" object may have a name without any extension. Who unpacks an object
// looks at its bytes.
type ContentType string

// The content types the API knows.
const (
	ContentUnspecified ContentType = "unspecified"
	ContentText        ContentType = "text"
	ContentBinary      ContentType = "binary"
	ContentGzip        ContentType = "gzip"
	ContentTar         ContentType = "tar"
	ContentTgz         ContentType = "tgz"
)

var contentTypes = []ContentType{ContentUnspecified, ContentText, ContentBinary, ContentGzip, ContentTar, ContentTgz}

// Valid reports whether t is one of the words the API knows.
func (t ContentType) Valid() bool { return slices.Contains(contentTypes, t) }

// textExtensions are the endings that the public clients upload as "text".
var textExtensions = []string{".txt", ".html", ".css", ".js", ".json", ".xml", ".yaml", ".yml", ".md", ".csv"}

// DetectContentType guesses the content type from a file's name, with the
// same rules as the public TypeScript and Python clients, so that an object
// is described alike whoever uploads it. Upper and lower case are the same.
func DetectContentType(name string) ContentType {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".tar.gz"), strings.HasSuffix(name, ".tgz"):
		return ContentTgz
	case strings.HasSuffix(name, ".gz"):
		return ContentGzip
	case strings.HasSuffix(name, ".tar"):
		return ContentTar
	}
	for _, ext := range textExtensions {
		if strings.HasSuffix(name, ext) {
			return ContentText
		}
	}
	return ContentUnspecified
}

// State is where an object is in its life:
//
//	create → UPLOADING → complete → READ_ONLY → delete → DELETED
//
// ERROR is the server's word for an upload that cannot be completed any more.
type State string

// The states the API knows.
const (
	StateUploading State = "UPLOADING"
	StateReadOnly  State = "READ_ONLY"
	StateDeleted   State = "DELETED"
	StateError     State = "ERROR"
)

// Object is what the API tells of an object (ObjectView on the wire).
type Object struct {
	ID                string            `json:"id"`
	Name              string            `json:"name"`
	State             State             `json:"state"`
	ContentType       ContentType       `json:"content_type"`
	CreateTimeMS      int64             `json:"create_time_ms"`       // since 1970, milliseconds
	SizeBytes         *int64            `json:"size_bytes"`           // nil until the upload is complete
	DeleteAfterTimeMS *int64            `json:"delete_after_time_ms"` // since 1970, milliseconds; nil: kept
	Metadata          map[string]string `json:"metadata"`             // may be nil
	IsPublic          bool              `json:"is_public"`            // readable by every account
	UploadURL         Secret            `json:"upload_url,omitempty"` // only in the answer to create
}

// CreateRequest is the body of a create call.
type CreateRequest struct {
	Name        string            `json:"name"`
	ContentType ContentType       `json:"content_type"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	TTLMS       *int64            `json:"ttl_ms,omitempty"` // life in milliseconds, counted from creation; nil: kept
	IsPublic    bool              `json:"is_public,omitempty"`
}

// ListQuery narrows a listing. The zero value lists the account's own
// objects, newest first, in pages of the server's default size (20).
type ListQuery struct {
	Limit         int    // objects per page, at most 5000; 0: the server's default
	StartingAfter string // an object's id: the page begins after it
	Name          string // part of a name
	Search        string // an id, or part of a name
	ContentType   ContentType
	State         State
	Public        bool // list public objects of all accounts instead
	NoTotal       bool // leave the total out, which spares the server a count
}

// ListPage is one page of a listing. The next page starts after the id of
// its last object; there is none when HasMore is false.
type ListPage struct {
	Objects    []Object `json:"objects"`
	HasMore    bool     `json:"has_more"`
	TotalCount *int32   `json:"total_count"`
}

// ErrorBody is the JSON body of every refusal of the API.
type ErrorBody struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}
