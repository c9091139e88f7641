// Package inflate decodes DEFLATE and gzip at the speed of the machine, and
// resumes in the middle of a stream.
//
// # DEFLATE in one screen
//
// A DEFLATE stream (RFC 1951) is a row of blocks, read bit by bit from the low
// end of each byte. A block is either stored bytes or a row of symbols, each
// a literal byte, a length with a distance ("repeat 12 bytes from 340 back"),
// or the end of the block. Symbols are Huffman codes, of 1 to 15 bits, one
// code for literals and lengths and one for distances; a dynamic block begins
// with the lengths of the codes of each symbol, which are all it takes to
// know the codes. A distance reaches at most 32 KiB back: that much output
// must be kept, and no more.
//
// Decoding is a walk from symbol to symbol whose every step waits for the
// last one: only when a code's length is known can the next be looked at. So
// speed is a matter of what lies on that path.
//
//   - bits, a 64-bit word, holds the next bits of input. Its low 12 bits index
//     a table whose entry says everything: which symbol, how many bits with
//     its extra bits, what to add to them. One load and one shift per symbol;
//     codes longer than the index take a second load. See tables.go for the
//     layouts, and for the pairs of literal and length that one entry holds.
//   - Refilling bits is an unaligned load of 8 bytes, without a branch, after
//     each match or three literals. See fast.go for the rule.
//   - A match is copied by 16 bytes at a time, more than it needs: what is
//     written too much lies where the next symbols go. That, and reading
//     ahead, is why the fast loop wants slack at the end of its buffers; the
//     slow loop (slow.go) decodes what lies in it, and is the reference.
//   - Output goes straight into a large buffer with the history in front, so
//     that a match is one copy inside it. Whoever wants the output gets a
//     slice of that buffer.
//
// # Resume points
//
// Decoding can start wherever three things are known: the bit offset in the
// input, the history before it, and, inside a block, the codes. A Point is
// that. At a member start there is no history; at a block boundary there are
// no codes. Of the 32 KiB of history only the bytes that later output refers
// to are kept (a tenth, in source code), the others are zeros, so that a
// window compresses to next to nothing. Recording points costs about one
// percent of decoding.
//
//	r := inflate.NewReader(inflate.FromReader(f), inflate.Options{OnPoint: keep})
//	...
//	r = inflate.Resume(point, source, inflate.Options{})  // source begins at byte point.In/8
//
// With points known, DecodeRanges decodes the ranges between them on several
// processors and hands them over in order. Without points, Ahead guesses where
// blocks begin, and lets who has nothing better to do decode from there before
// the reader comes: see ahead.go.
//
// # What is refused
//
// Whatever compress/flate refuses, and with it zlib: over-subscribed and
// incomplete codes (one code of one bit excepted), codes that do not exist,
// distances before the start. In gzip: a wrong CRC-32 or length of any
// member, a wrong header CRC, reserved flags, anything but zeros or another
// member behind a member, and an input that ends early. Errors are *Error and
// say where. Data is handed over before its member's checksum is known:
// believe it when io.EOF has come.
package inflate
