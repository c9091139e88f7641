package archivetest

import (
	"fmt"
	"io/fs"
	"strings"
)

// up is a relative path n levels up and then into "outside".
func up(n int, rest string) string { return strings.Repeat("../", n) + "outside" + rest }

// nameCases are names that lead out, or that no file can have.
func nameCases(outside string) []Case {
	cases := []Case{
		attack("an absolute name", File(outside+"/evil", "x")),
		attack("an absolute name with many slashes", File("//"+outside+"/evil", "x")),
		attack("an absolute directory", Entry{Name: outside + "/", Type: '5', Mode: 0o777}.Bytes()),
		attack("the root of the file system", Entry{Name: "/", Type: '5', Mode: 0o777}.Bytes()),
		attack("an absolute name in a PAX header", PAX("path", outside+"/evil"), File("a", "x")),
		attack("an absolute name in GNU's header", LongName(outside+"/evil"), Entry{Name: "a", Body: "x", Flavor: GNU}.Bytes()),
		attack("dots that stay inside", File("a/../b", "x")),
		attack("dots after a real directory", Dir("a/"), File("a/../../outside/evil", "x")),
		attack("dots at the end of a name", Entry{Name: "a/..", Type: '5', Mode: 0o777}.Bytes()),
		attack("the parent as a directory", Entry{Name: "../", Type: '5', Mode: 0o777}.Bytes()),
		attack("dots behind ./", File("./../outside/evil", "x")),
		attack("dots in a ustar prefix", Entry{Name: "evil", Body: "x", Edit: func(b []byte) { copy(b[345:500], "../outside") }}.Bytes()),
		attack("a PAX name with dots for a sparse file", PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0",
			"GNU.sparse.name", "../outside/evil", "GNU.sparse.realsize", "1"), File("a", "1\n0\n1\n"+strings.Repeat("\x00", 506)+"x")),
		refused("a NUL byte in a PAX name", Unsafe, PAX("path", "a\x00b"), File("a", "x")),
		refused("a NUL byte in a PAX link target", Unsafe, PAX("linkpath", "a\x00b"), Symlink("a", "x")),
		refused("an empty name", Corrupt, File("", "x")),
		tarCase("a file that is the root: a directory by its slash", Tar(File("./", "")), Tree{}),
		refused("a symbolic link that is the root", Unsafe, Symlink(".", outside)),
		refused("a hard link that is the root", Unsafe, File("a", "x"), HardLink("./.", "a")),
		refused("a component of 256 bytes", Limit, PAX("path", "d/"+strings.Repeat("n", 256)), File("a", "x")),
		refused("a name of 4096 bytes", Limit, PAX("path", strings.Repeat("d/", 2047)+"ab"), File("a", "x")),
		refused("a name 513 levels deep", Limit, PAX("path", strings.Repeat("d/", 512)+"a"), File("a", "x")),
		refused("a link target of 4096 bytes", Limit, PAX("linkpath", strings.Repeat("t", 4096)), Symlink("a", "x")),
	}
	for n := 1; n <= 4; n++ {
		cases = append(cases, attack(fmt.Sprintf("dots %d levels up", n), File(up(n, "/evil"), "x")))
	}
	deep := strings.Repeat("d/", 500)
	deepTree := Tree{deep + "a": Reg(0o644, "x")}
	for d := deep; d != ""; d = d[:len(d)-2] {
		deepTree[d[:len(d)-1]] = Implied()
	}
	return append(cases,
		tarCase("a name 501 levels deep", Tar(PAX("path", deep+"a"), File("a", "x")), deepTree),
		tarCase("a component of 255 bytes", Tar(PAX("path", strings.Repeat("n", 255)), File("a", "x")),
			Tree{strings.Repeat("n", 255): Reg(0o644, "x")}),
	)
}

// linkCases write through links, or link to what is not theirs.
func linkCases(outside string) []Case {
	cases := []Case{
		attack("a file through an absolute link", Symlink("l", outside), File("l/evil", "x")),
		attack("a file through a link in the tree", Dir("usr/lib/"), Symlink("lib", "usr/lib"), File("lib/x", "x")),
		attack("a file through a chain of links", Symlink("a", "b"), Symlink("b", "c"), Symlink("c", outside), File("a/evil", "x")),
		attack("a file through a link below a directory", Dir("d/"), Symlink("d/l", up(2, "")), File("d/l/evil", "x")),
		attack("a directory through a link", Symlink("l", outside), Dir("l/evil/")),
		attack("a link through a link", Symlink("l", outside), Symlink("l/evil", "x")),
		attack("a hard link through a link", File("a", "x"), Symlink("l", outside), HardLink("l/evil", "a")),
		attack("a file through a hard link to a link", Symlink("l", outside), HardLink("m", "l"), File("m/evil", "x")),
		attack("a file through a file", File("a", "x"), File("a/b", "x")),
		attack("a file over a link to a file", Symlink("l", outside+"/canary"), File("l", "evil")),
		attack("a file over a dangling link", Symlink("l", outside+"/evil"), File("l", "x")),
		attack("a directory over a link", Symlink("l", outside), Entry{Name: "l/", Type: '5', Mode: 0o777}.Bytes()),
		attack("a directory over a file", File("d", "x"), Dir("d/")),
		attack("a link over a directory, and then into it", Dir("d/"), Symlink("d", outside), File("d/evil", "x")),
		attack("a link over a full directory", Dir("d/"), File("d/a", "x"), Symlink("d", outside)),
		attack("a link over a file", File("a", "x"), Symlink("a", outside+"/canary"), File("a", "evil")),
		attack("a file over a directory", Dir("d/"), File("d", "x")),
		attack("a hard link over a directory", File("a", "x"), Dir("d/"), HardLink("d", "a")),
		attack("a hard link over a symbolic link", File("a", "x"), Symlink("l", outside), HardLink("l", "a")),
		attack("a hard link to an absolute name", HardLink("a", outside+"/canary"), File("a", "evil")),
		attack("a hard link with dots", HardLink("a", up(2, "/canary"))),
		attack("a hard link with dots that stay inside", Dir("d/"), File("b", "x"), HardLink("a", "d/../b")),
		attack("a hard link through a link", Symlink("l", outside), HardLink("a", "l/canary"), File("a", "evil")),
		attack("a hard link to a link, and then over it", Symlink("l", outside+"/canary"), HardLink("m", "l"), File("m", "evil")),
		attack("a hard link to a directory", Dir("d/"), HardLink("a", "d")),
		attack("a hard link to the root", HardLink("a", ".")),
		attack("a hard link to what comes later", HardLink("a", "b"), File("b", "x")),
		attack("a hard link to what was never there", HardLink("a", "etc/passwd")),
		attack("a hard link to itself that is not there", HardLink("a", "a")),
		attack("a hard link to itself that is a directory", Dir("a"), HardLink("a", "a")),
		attack("a link whose name ends in a slash", Symlink("l/", outside)),
		refused("a link to nothing", Corrupt, Symlink("l", "")),
		refused("a hard link to nothing", Corrupt, HardLink("l", "")),
		// CVE-2026-33056: a directory entry that changes the mode behind a link.
		attack("a directory entry that sets a mode through a link", Dir("d/"), Symlink("d/l", outside),
			Entry{Name: "d/l", Type: '5', Mode: 0o777}.Bytes()),
		// CVE-2025-4517: a path that a resolver gives up on because it is long.
		attack("a chain of long links to hide dots", longChain(outside)...),
	}
	for n := 1; n <= 4; n++ {
		cases = append(cases,
			attack(fmt.Sprintf("a file through a link %d levels up", n), Symlink("l", up(n, "")), File("l/evil", "x")),
			attack(fmt.Sprintf("a hard link to a file %d levels up", n), HardLink("a", up(n, "/canary"))))
	}
	return cases
}

// longChain nests directories and links until their real path is longer than
// PATH_MAX, and writes through the last.
func longChain(outside string) [][]byte {
	dir := strings.Repeat("d", 247)
	var all [][]byte
	path := ""
	for i := range 16 {
		name := string(rune('a' + i))
		all = append(all, PAX("path", path+dir+"/"), Dir("x/"), PAX("path", path+name, "linkpath", dir), Symlink("x", "x"))
		path += name + "/"
	}
	return append(all, PAX("path", path+"l", "linkpath", outside), Symlink("x", "x"), PAX("path", path+"l/evil"), File("x", "x"))
}

// typeCases are entries that are neither files, directories nor links.
func typeCases(outside string) []Case {
	node := func(typ byte) []byte {
		return Entry{Name: "node", Type: typ, Mode: 0o666, Edit: func(b []byte) {
			octal(b[329:337], 1)
			octal(b[337:345], 3)
		}}.Bytes()
	}
	set := Entry{Name: "set", Mode: 0o6755, Body: "x"}
	return []Case{
		attack("a character device", node('3')),
		attack("a whiteout device", Entry{Name: "node", Type: '3'}.Bytes()),
		attack("a block device", node('4')),
		attack("a FIFO", Entry{Name: "fifo", Type: '6'}.Bytes()),
		refused("a type that nobody knows", Unsafe, Entry{Name: "a", Type: 'Z'}.Bytes()),
		refused("a continuation from another volume", Corrupt, Entry{Name: "a", Type: 'M', Body: "x", Flavor: GNU}.Bytes()),
		refused("a directory by its name with content", Unsafe, Entry{Name: "d/", Body: "x"}.Bytes()),
		tarCase("setuid and setgid, which are cleared", Tar(set.Bytes(), Entry{Name: "d/", Type: '5', Mode: 0o7777}.Bytes()),
			Tree{"set": Reg(0o755, "x"), "d": {Mode: fs.ModeDir | fs.ModeSticky | 0o777, MTime: MTime * 1e9}}).
			differs("GNU tar as root keeps setuid and setgid"),
		attack("a global header that renames", GlobalPAX("path", outside+"/evil"), File("a", "x")),
		attack("a global header that links", GlobalPAX("linkpath", outside), Symlink("a", "x")),
		attack("a global header that resizes", GlobalPAX("size", "0"), File("a", "x")),
	}
}
