// Package mount shows an [index.Tree] as a directory: a read-only FUSE file
// system whose bytes come from an index.Reader when somebody asks for them, a
// writable layer over it, and all that is needed to take both down again.
//
// # How a tree is shown
//
//	process ─▶ kernel ─▶ /dev/fuse ─▶ server ─▶ index.Tree     names, attributes
//	             │ page cache, names,             └─▶ Content      bytes
//	             ▼ attributes: kept
//	           (most requests end here)
//
// The node id of a FUSE inode is its row in the index plus one, the file handle
// is always 0, and nothing is remembered between requests. So a server has no
// state that it could lose, FORGET means nothing, and OPEN and OPENDIR answer
// ENOSYS: the kernel then never asks again, and opening a file that it knows
// costs what it costs on a local disk.
//
// A tree never changes once it is complete, so the kernel may keep names,
// attributes, missing names, link targets, listings and pages for as long as it
// likes. While the first pass still runs ([index.Growing]) it may keep names
// and attributes for a second, and is never told that a name is missing: that
// answer waits for the end of the pass, as listings do. A tree in which nothing
// has extended attributes says that it knows none (ENOTSUP), once.
//
// # Waiting
//
// A request may have to wait for the network. Three things end that:
//
//   - the bytes, or an error;
//   - the deadline (Options.Deadline): the process gets EIO. During the first
//     pass it counts from the pass's last progress. The kernel keeps no errors,
//     so a later read tries again;
//   - the process is being killed: FUSE says so by an INTERRUPT. As it sends
//     one for any signal, and programs do not expect EINTR from a file (in a
//     page fault it would be SIGBUS), only processes that are leaving are let
//     go.
//
// The deadline holds even when Content does not return: then its buffer is
// given up, not its reader. Fewer bytes than the attributes promise are EIO as
// well: a short answer would be shown as zeros.
//
// # Writing
//
// With Options.StateDir, what a process sees at the mount's path is a kernel
// overlayfs over the read-only tree; changes go to a layer on local disk:
//
//	<StateDir>/<key>/upper   what was changed; <key> is made of identity and path
//	<StateDir>/<key>/work    overlayfs's own
//	<StateDir>/<key>/lower   where the read-only tree is mounted
//	<StateDir>/<key>/object  whose layer this is, for people
//
// The layer is kept when the mount goes, and found again by the same object at
// the same path. Changing the mode or owner of a file copies none of it
// (metacopy), renaming a directory neither (redirect_dir); opening a file for
// writing, unless with O_TRUNC, reads all of it. A file with several names is
// parted from the others by the first change through one of them: what is
// written there is not seen through the others, as it would be in an extracted
// tree. Where the machine has no overlayfs for us, the mount is read-only and
// Info says why.
//
// A name that the archive has twice, and that was used through the layer before
// the second was seen, gives ESTALE for the first seconds after the first pass.
//
// # Who may mount
//
// Root mounts by mount(2), for all users. Everybody else needs fusermount3, the
// setuid helper of the fuse3 package, and is the only one who sees the mount.
//
// # What is left behind
//
// When a server dies its mount stays, and answers ENOTCONN. [Clean] detaches
// such mounts of ours, and [Mount] does so first: mounts are never stacked.
// They are known by their names in /proc/self/mountinfo, and asked by statfs in
// a goroutine of its own, because a mount whose server hangs answers nobody.
//
// The process that serves a mount must not use it: a request of its own could
// take the last thread that would answer it.
package mount
