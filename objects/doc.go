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
// # Secrets
//
// The key and the signed URLs are of type [Secret], which cannot be printed.
// Every error goes through [Redact]. Redirects are followed by hand: at most
// three, never from https to http, and what is meant for one host (the key, a
// precondition, a Referer with a signature in it) is never sent to another.
package objects
