// Package index makes archives seekable: one pass over a .tar, .gz or .tar.gz
// builds a table of what is in it and of points from which decoding can resume;
// with it any byte can be read.
//
// A tar archive is a stream: entry after entry, each a header block of 512
// bytes, sometimes extension headers before it, then the content padded to a
// multiple of 512. There is no table of contents, so whoever wants to know
// what is inside reads all of it once. [TarReader] is that reading. Extraction
// and lazy mounts share it, so that both always see the same entries; two
// readers that disagree about one header are how archives smuggle files past
// checks (CVE-2025-62518 is one of many). Around that stream a gzip is another
// one, which can be entered nowhere but at its points.
//
// # From an object to its bytes
//
//		Source ──first pass──▶ Growing ──end──▶ Index ──Save──▶ file ──Open──▶ Index
//		                          │                │
//		                          └─ Tree, Layout ─┘◀── Reader ◀── Spans (a cache)
//
//	  - [Build], or [Growing] where others shall look on, reads a [Source] once.
//	    Entries become rows, in order; the stream is cut into spans.
//	  - A span is the unit of fetching, decoding, verifying and caching: about
//	    1 MiB of the uncompressed stream. Of a gzip it begins where the decoder
//	    took a point (see internal/inflate), of a plain tar at each MiB. Each has
//	    a CRC32C, and no byte of a span is given before that was compared.
//	  - An [Index] is the result: a file that is mapped and used as it is. A row
//	    is an inode number; nothing else needs to be remembered by who shows the
//	    tree.
//	  - A [Reader] reads any range of the stream, or of a file, from [Spans] or,
//	    where they have it not, by decoding it anew.
//	  - A [Builder] is for who reads the object for a purpose of his own, and
//	    tells it what passes by.
//
// Members of a gzip are points without a window, so files of many members
// (bgzip, eStargz, whose every file is one or more) have small indexes; so have
// those of pigz -i, whose blocks refer to nothing before them.
//
// eStargz's own table of contents, stargz.index.json, is not used and not
// trusted: it is a file of the archive like any other, and shown as one, with
// the landmarks beside it. It tells where the members lie, which the pass finds
// anyway; but not where they lie in the stream, nor anything that vouches for
// the bytes between, and a table that says something else than the headers do
// would make a lazy tree differ from an extracted one.
//
// Who wants all of a gzip has it decoded on all processors by a [Decoder].
//
// A plain tar can be skimmed ([BuildOptions].Skim): its headers read, its
// large files jumped over. Spans then have no checksum (the bytes were not
// seen). What is read of them is as good as the Source, which pins the object's
// version, and the cache holds it against the sum that it made when it came.
//
// # The file
//
// All numbers are little-endian. Bytes are counted from 0; ranges are
// half-open. The header has 512 bytes:
//
//	  0   8  "OBJMIDX\n"
//	  8   4  version of the format, 1
//	 12   4  flags: 1 the object is a gzip, 2 the stream is a tar, 4 spans have sums
//	 16   8  bytes of this file
//	 24   8  bytes of the object
//	 32   8  bytes of the stream
//	 40   4  CRC32C of the section of block sums
//	 44  12  strings: the object's id, its ETag, its SHA-256 in hex
//	 56  32  SHA-256 of all behind the header, followed by the header with this
//	         field and the last one zero
//	 96 160  ten sections, in the order below: offset 8, bytes 8
//	256 252  zeros
//	508   4  CRC32C of the header before it
//
// The sections follow, each at the next multiple of 8:
//
//	rows      48 each: parent row 4, name (string) 4, class 4, extra 4 (its
//	          number plus 1, or 0), data 4, nanoseconds 4, seconds 8, size 8,
//	          content 8. Row 0 is the root. What data, size and content are:
//	            file       -                     bytes             offset in the stream
//	            directory  first of its children number of them    directories among them
//	            symlink    target (string)       bytes of it       -
//	            hard link  row of the inode      -                 -
//	          A row has a higher number than its parent. Names that a later
//	          entry took keep their rows, without being anybody's children.
//	children  4 each: rows; each directory's are together, in bytewise order of
//	          their names
//	strings   uvarint length, bytes; a string is named by its offset here
//	classes   12 each: mode in bits 0-11, bit 16 "has a time", type (as in tar)
//	          in bits 24-31; uid 4; gid 4
//	extras    24 each: names of the inode 4, flags 4 (1 sparse), first xattr 4,
//	          number of xattrs 4, first piece 4, number of pieces 4
//	xattrs    8 each: name (string) 4, value (string) 4
//	pieces    24 each: offset in the file 8, in the stream 8, bytes 8; what is
//	          between a sparse file's pieces is holes
//	spans     of a gzip 44 each: stream offset 8, object offset in bits 8,
//	          CRC32C of the span 4; of the gzip member before it: CRC-32 4,
//	          bytes modulo 2^32 4; flags 2 (1 a member starts here), bytes of
//	          code lengths 2, of window 2, of both compressed 2, and where
//	          those are among the windows 8. Without gzip 4 each: CRC32C; or
//	          none without sums
//	windows   for each point, window and code lengths compressed by zstd
//	block sums 4 each: CRC32C of each 64 KiB of the file from byte 512 to here
//
// Opening checks the header, the sections' places and the block sums' own sum.
// All else is checked when it is used: its place, the sum of its block, its
// sense. So a million entries open in the time of one, and a flipped bit is
// found before it does harm. A file that was made to harm can lie about the
// archive, as the archive can, but all it can reach is the object's bytes.
//
// The file is mapped, and must not be changed while it is open: saving is by
// rename, and never touches a file that is there. A disk that fails behind the
// mapping is an error of the method that wanted the page.
//
// What is fetched before anybody asks for it: the rest of a span, which comes
// for free; what follows a sequence of reads, or a file in its directory
// (ahead.go); and in the background what a trace says was read the last time,
// or all ([Reader.Fetch]). A [Reader] records such a trace ([Reader.Trace]),
// whose file trace.go describes.
//
// Published, an index is its file compressed by zstd, as an object of its own:
// see [PublishedName], [Index.Metadata], [Index.Publish] and [Install].
//
// # Tar: the formats in the wild
//
// One archive may mix several; the magic bytes at 257 of each block tell:
//
//	V7      no magic: name 100 bytes, link 100 bytes, octal numbers
//	ustar   "ustar\0" "00": adds types, user names, and 155 bytes of name prefix
//	GNU     "ustar  \0": long names ('L') and links ('K') as entries of their
//	        own before the one they name, sparse files ('S'), base-256 numbers
//	PAX     ustar with 'x' entries before the one they describe: records
//	        "length key=value\n" that override the block; 'g' for all that follow
//	star    ustar with "tar\0" at 508: a prefix of 131 bytes, times behind it
//
// # Tar: strictness
//
// What is ambiguous is refused, not guessed: a reader that guesses one way and
// a checker that guesses the other are the bug above. So a long name and a PAX
// path for one entry, two extension headers of one kind, an extension without
// an entry, a link that claims content, a NUL inside a name, a PAX record that
// does not end where its length says, and a checksum that does not match are
// all errors ([ErrTarAmbiguous] where more than one reading is possible). GNU
// tar reads some of these; docs/differences-from-tar.md lists them.
//
// Names are bytes. [TarReader] does not judge paths; the rules for those are in
// rules.go and rows.go, and are extraction's: what it refuses has no index, and
// what it accepts has the tree that it makes on disk.
package index
