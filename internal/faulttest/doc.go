// Package faulttest is an HTTP server for tests that misbehaves on purpose, in
// each way that a network, a storage service or somebody in between has been
// seen to misbehave: it cuts, stalls, lies, redirects, expires and changes.
//
//	s := faulttest.New(faulttest.Options{
//		Object:   faulttest.Object{Data: data, ETag: `"v1"`},
//		Schedule: faulttest.Script(faulttest.Fault{Kind: faulttest.ResetMidBody, At: 1000}),
//	})
//	defer s.Close()
//	url := s.Sign() // as an API would mint it
//
// A Schedule says which Fault each request meets. It depends on nothing but
// the number of the request, so a random one is replayed by its seed:
//
//	faulttest.Random(seed, 0.5) // each second request meets some fault
//
// The server speaks HTTP/1.1 over real sockets. It keeps a log of the
// requests with their headers (Requests), by which a test can show what was
// sent to whom. URLs are signed in the way that storage services do it: with
// a secret in the query, refusing all but GET, and living as long as Options
// say. Every secret holds Mark, so that a test can search for it.
//
// # Below HTTP
//
// A [Proxy] stands in front of any server and breaks TCP connections: it cuts
// them after so many bytes, resets, stalls or delays them, passes bytes on one
// by one, or closes one half. It knows nothing of HTTP, so what it breaks is
// real, whether the server is this one, the project's own or another's:
//
//	p, err := faulttest.NewProxy("127.0.0.1:9000", faulttest.RandomBreaks(seed, 0.3, 1<<20))
//
// # Far away
//
// A [Line] makes a server on the loopback as far away as a storage service is:
// so long until an answer begins, so many bytes per second for each
// connection. A [Pattern] is an object of any size that takes no room.
package faulttest
