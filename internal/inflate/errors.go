package inflate

import (
	"errors"
	"fmt"
)

// Every refusal of the input is an *Error that wraps one of these. Errors of
// the Source itself are returned as they came.
var (
	// ErrCorrupt: the bytes are not DEFLATE or gzip.
	ErrCorrupt = errors.New("corrupt data")
	// ErrTruncated: the source ended before the stream did.
	ErrTruncated = errors.New("truncated data")
	// ErrChecksum: the data decoded, but its CRC-32 or length is not what the
	// gzip member says.
	ErrChecksum = errors.New("checksum mismatch")
	// ErrTrailing: something other than zero padding or another member
	// follows the last gzip member.
	ErrTrailing = errors.New("trailing data")
)

// Error says what was wrong with the input, and where.
type Error struct {
	In   int64  // compressed byte offset at which the decoder stood
	Out  int64  // stream offset: bytes of output before the fault
	What string // what was wrong there
	Err  error  // ErrCorrupt, ErrTruncated, ErrChecksum or ErrTrailing
}

func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s at compressed byte %d (output byte %d)", e.Err, e.What, e.In, e.Out)
}

func (e *Error) Unwrap() error { return e.Err }

// fault is a refusal without its place; Reader.fail adds it.
type fault struct {
	err  error
	what string
}

var (
	errEnd          = &fault{ErrTruncated, "input ends inside the stream"}
	errBlockType    = &fault{ErrCorrupt, "block of the reserved type 3"}
	errStoredLen    = &fault{ErrCorrupt, "stored block whose length does not match its complement"}
	errCounts       = &fault{ErrCorrupt, "more than 286 length or 30 distance codes"}
	errCodeLens     = &fault{ErrCorrupt, "code length code is over-subscribed or incomplete"}
	errRepeat       = &fault{ErrCorrupt, "code lengths repeat before the first or past the last"}
	errLitCode      = &fault{ErrCorrupt, "literal/length code is over-subscribed or incomplete"}
	errDistCode     = &fault{ErrCorrupt, "distance code is over-subscribed or incomplete"}
	errNoEnd        = &fault{ErrCorrupt, "block without an end-of-block code"}
	errSymbol       = &fault{ErrCorrupt, "bits that are no code of the block"}
	errFar          = &fault{ErrCorrupt, "distance reaches before the history"}
	errMagic        = &fault{ErrCorrupt, "no gzip header"}
	errMethod       = &fault{ErrCorrupt, "gzip method other than DEFLATE"}
	errFlags        = &fault{ErrCorrupt, "reserved gzip header flags"}
	errHeaderLong   = &fault{ErrCorrupt, "gzip header longer than 1 MiB"}
	errHeaderCRC    = &fault{ErrChecksum, "CRC-16 of the gzip header"}
	errCRC          = &fault{ErrChecksum, "CRC-32 of the gzip member"}
	errSize         = &fault{ErrChecksum, "length of the gzip member"}
	errTail         = &fault{ErrTrailing, "bytes after the last gzip member"}
	errPoint        = &fault{ErrCorrupt, "resume point that no stream has"}
	errRange        = &fault{ErrCorrupt, "range does not end at the next resume point"}
	errRangeCRC     = &fault{ErrChecksum, "CRC-32 of the range up to the next resume point"}
	errNotIncreases = &fault{ErrCorrupt, "resume points out of order"}

	errMet = &fault{nil, "a guess begins here"} // no error: see Ahead
)
