// Package cache keeps spans of objects on disk, within a budget of bytes, and
// never gives back a wrong one.
//
// A span is what is fetched, decoded and checked as a whole: about a mebibyte
// of an object's uncompressed stream. Decoding one costs a request and some
// milliseconds; reading it from here costs one pread. Everything kept can be
// had again, so nothing is ever synced to the disk, and nothing is trusted
// without its checksum. Losing a span costs time, never a byte.
package cache
