// Package objectmount is the root of the project: it holds no code, only this
// map and the test that keeps the map true.
//
// objectmount makes Storage Objects be there on a machine: it reads a spec of
// object mounts, fetches each object through a URL that expires, and leaves it
// extracted at its path.
//
// The rooms, from the outside in:
//
//	cmd/objectmount       turns words into calls and errors into exit codes
//	agent                 makes the machine match the spec, and says how far it has got
//	systemd               the unit file, and all that is said to the service manager
//	extract               unpacks a stream into a directory without ever leaving it; packs one for upload
//	mount                 shows an index as a file system, with a writable layer over it
//	objects               speaks the Storage Objects API; reads an object through a URL that expires
//	store                 is a Storage Objects API server over a directory and SQLite
//	index                 reads tar headers strictly, for all who need to know what is in an archive
//	internal/inflate      decodes DEFLATE and gzip fast, and resumes at any block boundary
//	internal/archivetest  makes deterministic archives for tests, tame and hostile
//	internal/faulttest    misbehaves as networks and servers do, by seed
//	bench                 compares whole processes with the peers that are installed
//
// How bytes flow when a machine boots:
//
//	systemd → cmd → agent.LoadSpec → objects (get, download URL)
//	        → objects.Reader → gzip, tar → extract (stage) → sync → rename → receipt → READY
//
// Arrows point down only: a leaf room (objects, extract, systemd, internal/...)
// imports nothing of ours but what the table in layering_test.go grants it.
package objectmount
