// Package index knows what is inside an archive, and where.
//
// A tar archive is a stream: entry after entry, each a header block of 512
// bytes, sometimes extension headers before it, then the content padded to a
// multiple of 512. There is no table of contents, so whoever wants to know
// what is inside reads all of it once. [TarReader] is that reading. Extraction
// and lazy mounts share it, so that both always see the same entries; two
// readers that disagree about one header are how archives smuggle files past
// checks (CVE-2025-62518 is one of many).
//
// # The formats in the wild
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
// # Strictness
//
// What is ambiguous is refused, not guessed: a reader that guesses one way and
// a checker that guesses the other are the bug above. So a long name and a PAX
// path for one entry, two extension headers of one kind, an extension without
// an entry, a link that claims content, a NUL inside a name, a PAX record that
// does not end where its length says, and a checksum that does not match are
// all errors ([ErrTarAmbiguous] where more than one reading is possible). GNU tar reads some of these; docs/differences-from-tar.md lists
// them.
//
// Names are bytes. Nothing here cleans or judges paths: that is extraction's
// and the tree's work.
package index
