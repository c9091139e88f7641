// Package agent makes the machine match the spec of object mounts, and says
// how far it has got.
//
// # Words
//
// A mount is an entry of the spec: an object and the path at which it is to
// be. An item is a mount in the agent's care, with a state. A receipt is what
// is known on disk about a path. A stage is the directory in which package
// extract makes something before it publishes it.
//
// # The life of an item
//
//	            ┌────────────────────── changed ─────────────────────┐
//	            ▼                                                    │
//	in spec ─▶ pending ─▶ fetching ─▶ extracting ─▶ ready ───────────┤
//	            ▲  │         │            │                          │
//	       next │  │         ▼            ▼                          ▼
//	        try └──┼─────── failed ◀──────┘          not in spec ─▶ removing ─▶ gone
//	               └─▶ ready, if the receipt says that it is there already
//
// A lazy mount is "indexing" in the place of extracting, and ready when its tree
// is live; see lazy.go. What it fetches before anybody asks is prefetch.go's and
// trace.go's subject; lazyask.go lets each process tell of the mounts it serves.
//
// Whatever the state of the path, one function brings the item up (bringUp)
// and another takes it down (takeDown). Both read the receipt under the lock
// of the path, first put right what a dead process left, then do what is
// missing. So they can be called at any time, by the daemon and by the manual
// command, and calling them twice does nothing.
//
// # What is never done
//
//   - A tree that is there is not fetched again: after a reboot the receipt
//     and the inode are enough, and what users edited in it stays.
//   - What a power cut may have destroyed is never told to be ready: it is
//     made again first (flush.go).
//   - A lazy mount that died is not mounted over: it is taken away and made
//     anew, with the changes that were made to it.
//   - Changes to a lazy mount outlive it; only who says so deletes them
//     (layers.go).
//   - A file that somebody edited is not deleted, unless on_conflict is
//     "replace" or Unmount is told to. Edited trees are left where they are.
//   - Nothing is taken down because a spec file is missing or wrong. Only a
//     spec that is there, and right as a whole, is acted on.
//   - One mount does not disturb another: each has its own goroutine, stage,
//     lock and receipt; errors, and even panics, stay with the one whose bytes
//     caused them.
//   - No key and no URL with its query is in a receipt, status, log or error.
//
// # Nested paths
//
// A mount may lie inside another's tree. Then it comes up after the outer one
// and goes down before it, it is not counted as an edit of the outer tree, and
// when the outer tree is replaced it is made again.
//
// # Who runs it
//
// Run is the daemon, Once makes everything once, Mount and Unmount are the
// manual commands. They share the receipts of one state directory. The daemon
// takes down only what the same spec has brought up. A lazy mount lives as long
// as the process that serves it: Run, or who calls Serve after Mount.
package agent
