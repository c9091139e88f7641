// Package extract unpacks a stream into a directory without ever leaving it,
// and packs a directory for upload.
//
// The stream is an object as it is stored, made by strangers; the process is
// often root. So three rules hold for every input, and the tests state them
// as laws:
//
//   - Nothing outside the object's path changes. An archive is refused, never
//     sanitised: a name with "..", a name that leads through a symbolic link,
//     a device node or a setuid trick ends the extraction with an *EntryError.
//   - Nothing is half done. Everything is written into a staging directory
//     beside the target, every checksum is verified to the last byte of the
//     stream, and one rename makes it appear.
//   - Everything is bounded: entries, bytes, names, depth, headers, free space
//     (see Limits); what it takes in memory does not depend on the object.
//
// # How an object becomes files
//
//	   one goroutine          the caller's                two goroutines
//	r ── source ── inflate ═▶ index.TarReader ── members ═▶ writers     publish
//	     counts,   or a copy  headers            names,     small       sync, rename,
//	     cancels              ring of buffers    types      files       fsync parent,
//	                                             tree: all else         fingerprint
//
// Decoding, parsing and writing overlap, through a ring of 8 buffers of
// 512 KiB (feed); memory does not grow with the object. Inflating is the slow
// part of a .tar.gz, so it has a processor to itself, and of the others what
// parsing and writing leave: who waits for the decoder decodes ahead of it
// (inflate.Ahead). A file costs four system calls: openat with its final mode,
// pwrite, utimensat, close; a fifth where its owner must be set. Small files go
// to the writers in batches. What the directories will be given is kept in a
// file of the stage until all else is done, because a million of them must not
// cost memory either (dirLog).
//
// Where an index of the object is at hand (Options.Index), all processors
// inflate, each another part, and the feed hands the parts over in order
// (indexed.go). The object still streams by from its first byte to its last: so
// its SHA-256 is still checked by who gives it, and gzip's own checksums, too.
//
// What an object is, its first bytes say: 1f 8b 08 is a gzip; a block whose
// header checksum is right is a tar (V7 archives have no magic, so "ustar" is
// not asked for); a gzip is looked into for a tar; all else is a plain file.
// The name and content type are only held against that: an object which
// claims to be an archive and is none (a saved error page, an empty file) is
// refused instead of being left at its path as a file.
//
//	bytes            becomes     format
//	tar              directory   tar
//	gzip of a tar    directory   tar.gz
//	gzip of other    file        gz       decompressed
//	other            file        other
//
// # Where it goes
//
// See Extract for object paths. While it is made it lies here:
//
//	<parent>/.<base>.stage-<id>/       0700, flock held while its maker lives
//	<parent>/.<base>.stage-<id>/new    what will be renamed to <parent>/<base>
//
// Nobody but us can look into the staging directory, so nobody can swap a
// directory below our feet, and everything in it was written by us: that is
// why "a hard link's target must be a file of this archive" needs no table of
// names. After a crash Sweep takes the directory away; the lock, not the
// name, tells whether its maker lives.
//
// # Publishing and power cuts
//
// A rename may reach the disk before the files do: after a power cut the path
// then shows a tree of empty files. There are two ways to deal with that:
//
//   - Sync first, then rename. What is at the path is always right. This is
//     what Extract does by itself, and always when it replaces something: the
//     old is not deleted before the new is safe. But the sync is most of the
//     time that an extraction takes on a disk, and tar does not wait for it.
//   - With Options.FlushLater, rename first. Then after a power cut what is
//     at the path cannot be believed, and somebody has to know that: before
//     any content is written Options.Staged tells the caller path and inode,
//     and he writes them down for good. After Extract he calls Flush, and
//     writes down that from now on the tree can be believed. Package agent
//     does this: see its flush.go.
//
// Where no rename can take the place of what is there (a mount point, a lower
// layer of an overlay), on_conflict replace binds the tree over it: bind.go.
//
// # Archives and users
//
// User and group ids of an archive mean nothing on another machine and are
// ignored unless Options.PreserveOwner is set. setuid and setgid bits are
// cleared, and the sticky bit is kept on directories only. Extended
// attributes are restored when Options.Xattrs asks for it, and then only those
// of the user namespace; an access control list, a capability or a label never
// is. What was left out is counted in Result.Skipped. Times are kept to the
// nanosecond where the archive has them. Symbolic links are kept as they are,
// wherever they point: we only never follow them.
//
// # Archives that end early
//
// A tar should end in two blocks of zeros. Many writers forget them, and GNU
// tar does not mind; neither do we, if the stream ends where a header could
// begin. Bytes after the end marker are read (their checksum counts) and
// ignored, as GNU tar does. An archive without any entry must be all zeros.
package extract
