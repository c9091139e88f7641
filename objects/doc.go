// Package objects speaks the Storage Objects API, and reads the bytes of an
// object through a URL that expires.
//
// # The two halves
//
// A [Client] makes API calls: small JSON requests that bear the key. The bytes
// themselves never pass through the API. It only hands out signed URLs, on
// which anybody may PUT or GET for a while, and the bytes go straight to and
// from the storage behind them:
//
//	Client ──create──→ API        Client ──download──→ API
//	   ←── upload_url ──             ←── download_url ──
//	   ──PUT bytes──→ storage     Reader ──GET ranges──→ storage
//	   ──complete──→ API             ←── bytes ──
//
// [Client.Upload] is the left side. The right side is a [Reader], which asks a
// [Minter] (Client.Minter, or FixedURL for a URL given by hand) for a URL
// whenever it needs one.
//
// # What a Reader promises
//
// Whatever the network, the storage or somebody in between does, a reader
// gives the right bytes or an error, never wrong or missing ones:
//
//   - The first answer pins the object's size and its strong ETag (or else its
//     Last-Modified). Every later request says so (If-Match), and every later
//     answer is held against it: anything else is ErrChanged (answer.go).
//   - An answer must say what range it brings and how long it is, and must
//     bring exactly that. Login pages, error pages with status 200, wrong
//     ranges, compressed bodies and connections that end early are seen as
//     what they are.
//   - Silence (15 s), crawling (less than 16 KiB/s over 30 s), resets and
//     refusals lead to another request from the first missing byte on, by the
//     retry law (retry.go), as long as there is progress within a budget.
//   - A URL is renewed at 80 % of its life, judged by the server's clock, and
//     when it is refused; once for everybody who waits (lease.go).
//   - Where the SHA-256 of the whole is known, a stream from 0 gives io.EOF
//     only if it is right.
//
// # How a stream is fetched
//
// A storage service gives each connection only so much, and lets it wait for
// each answer. So a [Reader.Stream] asks for several parts at a time, and yet
// hands the bytes over in order and from bounded memory:
//
//		object   ─────────────┬────────┬────────┬────────┬─────────────────
//		          handed over │ part 1 │ part 2 │ part 3 │ not asked for yet
//		                      └──┬─────┴──┬─────┴──┬─────┘
//		workers                  feed     feed     feed    one request each
//		chunks                   ███▒     ██▒▒     █▒▒▒    256 KiB each, of the Network's memory
//
//	  - A feed (feed.go) brings one range by one request after another: all the
//	    rules above hold for each part by itself. A single read uses one feed.
//	  - A crew (crew.go) of workers takes part after part. A part is as large as
//	    the memory allows if all 16 workers had one, but takes no longer than
//	    about a second, and the last ones are even.
//	  - A window (window.go) hands over what has come of the first part, while
//	    it comes, in the slices that the socket was read into: Next copies
//	    nothing, and a chunk goes back when the next one is asked for.
//	  - Memory (memory.go) that is short goes to the part that is the least
//	    ahead of its reader, and the chunk that a reader waits for is always
//	    given. So no part can keep an earlier one from coming, and parts that
//	    are far ahead simply stop reading their sockets.
//	  - A tuner (tuner.go) finds the number of workers: 4 at first, then 16,
//	    later the double, each time for as long as it takes to see whether that
//	    is faster (20 ms and more). What is no faster is taken back, and fewer
//	    are tried. A reader with enough to do wants no more, and a 503 or 429
//	    halves the number at once.
//	  - A connection that is stuck in a bad place of the network is given up
//	    when everybody waits for it and the others are four times as fast.
//
// A server without ranges, or an object without validators, is read in one
// piece. [Reader.Download] uses the same crew, but each part goes straight to
// its place in the file, and a sidecar says which places are filled.
//
// A [Network] holds the limits that several Readers share: bandwidth,
// connections to one host (single reads go before parts), and memory.
//
// # Lazy reading
//
// With ReaderOptions.Lazy, [Open] sends nothing, and the first
// [Reader.ReadAtContext], whatever range it is for, also finds out what the
// object is (pin.go): one round trip. A read that stands still for twice as
// long as 99 of 100 reads did is asked for once more on another connection
// (readat.go); the faster one wins and the other is ended. Such second
// requests are rationed, because where everything is slow they only make it
// slower.
//
// # Secrets
//
// The key and the signed URLs are of type [Secret], which cannot be printed.
// Every error goes through [Redact]. Redirects are followed by hand: at most
// three, never from https to http, and what is meant for one host (the key, a
// precondition, a Referer with a signature in it) is never sent to another.
package objects
