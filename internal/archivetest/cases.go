package archivetest

import (
	_ "embed"
	"slices"
	"strings"
)

// Outcome is what must become of an archive.
type Outcome string

// The outcomes. All but Accept are refusals, by their reason.
const (
	Accept  Outcome = "accept"
	Corrupt Outcome = "corrupt" // not what it claims to be
	Unsafe  Outcome = "unsafe"  // would leave the tree, or make what may not be made
	Limit   Outcome = "limit"   // too many, too long, too large
)

// Case is an object and what must become of it. The name finishes the
// sentence "an object with ...".
type Case struct {
	Name string
	Data []byte

	Object string // the object's name, which may declare a format
	Type   string // the object's content type: "tar", "tgz", "gzip", ... or ""

	Want Outcome
	File bool   // accepted, and becomes a file with the content Body
	Body string // of that file
	Tree Tree   // accepted, and becomes this tree

	// Differs says why GNU tar makes another tree of an accepted archive;
	// empty: it makes the same.
	Differs string
	// Attack marks archives that are made to do harm, not merely broken.
	Attack bool
	// MaxEntries and MaxBytes are limits to set, if not zero.
	MaxEntries, MaxBytes int64
}

// Cases returns all cases in a fixed order. Attacks aim at the directory
// outside, an absolute path, and by relative names at directories and files
// called "outside" one to four levels above the tree; tests put a canary
// there.
func Cases(outside string) []Case {
	return slices.Concat(
		tameCases(), uploaderCases(), nameCases(outside), linkCases(outside),
		typeCases(outside), headerCases(), sparseCases(), gzipCases(), claimCases(), limitCases(),
	)
}

// tarCase is an accepted archive.
func tarCase(name string, data []byte, tree Tree) Case {
	return Case{Name: name, Data: data, Want: Accept, Tree: tree}
}

// refused is an archive that is declared a tar and must be refused.
func refused(name string, why Outcome, entries ...[]byte) Case {
	return Case{Name: name, Data: Tar(entries...), Object: "object.tar", Want: why}
}

// attack is refused for being unsafe.
func attack(name string, entries ...[]byte) Case {
	c := refused(name, Unsafe, entries...)
	c.Attack = true
	return c
}

func (c Case) differs(why string) Case { c.Differs = why; return c }

func (c Case) named(object string) Case { c.Object = object; return c }

// tameCases are archives as ordinary programs make them.
func tameCases() []Case {
	long := strings.Repeat("component/", 15) + "end.txt"
	longTree := Tree{long: Reg(0o644, "deep")}
	for dir := "component"; dir != long[:len(long)-len("/end.txt")]; dir += "/component" {
		longTree[dir] = Implied()
	}
	longTree[long[:len(long)-len("/end.txt")]] = Implied()
	byOneName := long[:50] + "cut"
	target := strings.Repeat("t/", 120) + "x"
	plain := Tar(Dir("d/"), File("d/a.txt", "hello"), Symlink("d/link", "a.txt"), HardLink("d/hard", "d/a.txt"))
	plainTree := Tree{
		"d": Folder(0o755), "d/a.txt": Reg(0o644, "hello").As("d/a.txt"),
		"d/hard": Reg(0o644, "hello").As("d/a.txt"), "d/link": Sym("a.txt"),
	}
	v7 := func(e Entry) []byte { e.Flavor = V7; return e.Bytes() }
	return []Case{
		tarCase("a directory, a file, a symbolic and a hard link", plain, plainTree),
		tarCase("the same in a gzip", Gzip(plain), plainTree),
		tarCase("a gzip of many members, cut anywhere", Members(plain[:100], plain[100:1000], nil, plain[1000:]), plainTree),
		tarCase("zero padding after the gzip", append(Gzip(plain), make([]byte, 1000)...), plainTree).named("p.tar.gz"),
		tarCase("padding to a record of 10 KiB", append(slices.Clone(plain), Zeros(12)...), plainTree),
		tarCase("no end marker", plain[:len(plain)-2*BlockSize], plainTree),
		tarCase("one block of zeros as its end", plain[:len(plain)-BlockSize], plainTree),
		tarCase("another archive after the end marker", Join(plain, Tar(File("ignored", "x"))), plainTree),
		tarCase("garbage after the end marker in a gzip", Gzip(Join(plain, []byte("garbage"))), plainTree),
		tarCase("a root entry and names that begin with ./",
			Tar(Entry{Name: "./", Type: '5', Mode: 0o700}.Bytes(), File("./a", "1"), Dir("./d/"), HardLink("./d/b", "a"), HardLink("c", "./a")),
			Tree{
				"a": Reg(0o644, "1").As("a"), "d": Folder(0o755),
				"d/b": Reg(0o644, "1").As("a"), "c": Reg(0o644, "1").As("a"),
			}),
		tarCase("a root entry of mode 0 that belongs to a stranger",
			Tar(Entry{Name: ".", Type: '5', Mode: -1, UID: 12345, GID: 12345}.Bytes(), File("a", "1")),
			Tree{"a": Reg(0o644, "1")}),
		tarCase("a root entry that opens it to all and sets its bits",
			Tar(Entry{Name: "./", Type: '5', Mode: 0o7777, UID: 12345, GID: 12345, MTime: 1}.Bytes(), File("a", "1")),
			Tree{"a": Reg(0o644, "1")}),
		tarCase("doubled slashes and dots in a name", Tar(File("d//.//./a", "1")),
			Tree{"d": Implied(), "d/a": Reg(0o644, "1")}),
		tarCase("only a root entry", Tar(Dir("./")), Tree{}),
		tarCase("implied directories", Tar(File("a/b/c", "1"), File("a/d", "2")),
			Tree{"a": Implied(), "a/b": Implied(), "a/b/c": Reg(0o644, "1"), "a/d": Reg(0o644, "2")}),
		tarCase("a directory after what is in it", Tar(File("d/a", "1"), Entry{Name: "d/", Type: '5', Mode: 0o700}.Bytes()),
			Tree{"d": Folder(0o700), "d/a": Reg(0o644, "1")}),
		tarCase("read-only directories", Tar(
			Entry{Name: "d/", Type: '5', Mode: 0o555}.Bytes(), Entry{Name: "d/e/", Type: '5', Mode: 0o500}.Bytes(), File("d/e/a", "1")),
			Tree{"d": Folder(0o555), "d/e": Folder(0o500), "d/e/a": Reg(0o644, "1")}),
		tarCase("modes of all kinds", Tar(
			Entry{Name: "none", Mode: -1}.Bytes(), Entry{Name: "all", Mode: 0o777}.Bytes(), Entry{Name: "x", Mode: 0o751}.Bytes(),
			Entry{Name: "r", Mode: 0o444, Body: "ro"}.Bytes()),
			Tree{"none": Reg(0, ""), "all": Reg(0o777, ""), "x": Reg(0o751, ""), "r": Reg(0o444, "ro")}),
		tarCase("headers of V7", Tar(
			v7(Entry{Name: "d/", Type: AREGTYPE, Mode: 0o755}), v7(Entry{Name: "d/a", Type: AREGTYPE, Body: "1"}),
			v7(Entry{Name: "d/l", Type: '2', Link: "a"})),
			Tree{"d": Folder(0o755), "d/a": Reg(0o644, "1"), "d/l": Sym("a")}),
		tarCase("an ordinary file whose name ends in a slash", Tar(Entry{Name: "d/", Mode: 0o750}.Bytes()), Tree{"d": Folder(0o750)}),
		tarCase("a contiguous file", Tar(Entry{Name: "a", Type: '7', Body: "1"}.Bytes()), Tree{"a": Reg(0o644, "1")}),
		tarCase("a long name in a PAX header", Tar(PAX("path", long), File(byOneName, "deep")), longTree),
		tarCase("a long name in GNU's header", Tar(LongName(long), Entry{Name: byOneName, Body: "deep", Flavor: GNU}.Bytes()), longTree),
		tarCase("a long name in a ustar prefix", Tar(Entry{Name: long[100:], Body: "deep", Edit: func(b []byte) {
			copy(b[345:500], long[:99])
		}}.Bytes()), longTree),
		tarCase("a long link target in a PAX header", Tar(PAX("linkpath", target), Symlink("l", "cut")), Tree{"l": Sym(target)}),
		tarCase("a long link target in GNU's header", Tar(LongLink(target), Entry{Name: "l", Type: '2', Link: "cut", Flavor: GNU}.Bytes()),
			Tree{"l": Sym(target)}),
		tarCase("times in fractions of a second and before 1970", Tar(
			PAX("mtime", "1700000000.123456789"), File("a", ""), PAX("mtime", "-1.5"), File("b", ""),
			PAX("mtime", "1234567890.5"), Symlink("l", "a")),
			Tree{"a": Reg(0o644, "").At(1700000000123456789), "b": Reg(0o644, "").At(-1500000000), "l": Sym("a").At(1234567890500000000)}),
		tarCase("a size in base 256", Tar(Entry{Name: "a", Body: "123", Flavor: GNU, Edit: func(b []byte) {
			copy(b[124:136], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03")
		}}.Bytes()), Tree{"a": Reg(0o644, "123")}),
		tarCase("a checksum of signed bytes", Tar(Entry{Name: "n\xe9", Flavor: V7, Break: func(b []byte) {
			sum := 0
			copy(b[148:156], "        ")
			for _, c := range b[:BlockSize] {
				sum += int(int8(c))
			}
			octal(b[148:156], int64(sum))
		}}.Bytes()), Tree{"n\xe9": Reg(0o644, "")}),
		tarCase("names that are no UTF-8, and one with a newline", Tar(File("\xff\xfe", "1"), File("a\nb", "2")),
			Tree{"\xff\xfe": Reg(0o644, "1"), "a\nb": Reg(0o644, "2")}),
		tarCase("a backslash and a drive letter, which are names here", Tar(File(`..\evil`, "1"), File(`C:\x`, "2")),
			Tree{`..\evil`: Reg(0o644, "1"), `C:\x`: Reg(0o644, "2")}),
		tarCase("a name with three dots", Tar(File(".../..a", "1")), Tree{"...": Implied(), ".../..a": Reg(0o644, "1")}),
		tarCase("whiteout names, which mean nothing here", Tar(File(".wh.a", ""), File(".wh..wh..opq", "")),
			Tree{".wh.a": Reg(0o644, ""), ".wh..wh..opq": Reg(0o644, "")}),
		tarCase("a comment in a global header, as git archive writes", Tar(GlobalPAX("comment", "0123456789abcdef"), File("a", "1")),
			Tree{"a": Reg(0o644, "1")}),
		tarCase("a volume label", Tar(Entry{Name: "label", Type: 'V', Flavor: GNU}.Bytes(), File("a", "1")), Tree{"a": Reg(0o644, "1")}),
		tarCase("the same file twice: the last wins", Tar(File("a", "old"), File("b", "x"), File("a", "new")),
			Tree{"a": Reg(0o644, "new"), "b": Reg(0o644, "x")}),
		tarCase("a file again after a hard link to it: a new file", Tar(File("a", "old"), HardLink("b", "a"), File("a", "new")),
			Tree{"a": Reg(0o644, "new"), "b": Reg(0o644, "old")}),
		tarCase("a file and its hard link twice, as tar -r appends",
			Tar(File("a", "old"), HardLink("b", "a"), File("a", "new"), HardLink("b", "a")),
			Tree{"a": Reg(0o644, "new").As("a"), "b": Reg(0o644, "new").As("a")}),
		tarCase("a symbolic link twice", Tar(Symlink("l", "old"), Symlink("l", "new")), Tree{"l": Sym("new")}),
		tarCase("a directory twice: the last wins", Tar(Dir("d/"), Entry{Name: "d", Type: '5', Mode: 0o700, MTime: MTime + 1}.Bytes()),
			Tree{"d": Folder(0o700).At((MTime + 1) * 1e9)}),
		tarCase("a hard link to itself", Tar(File("a", "1"), HardLink("a", "a"), HardLink("./a", "a")), Tree{"a": Reg(0o644, "1")}),
		tarCase("a hard link to a symbolic link", Tar(File("a", "1"), Symlink("l", "a"), HardLink("m", "l")),
			Tree{"a": Reg(0o644, "1"), "l": Sym("a").As("l"), "m": Sym("a").As("l")}),
		tarCase("symbolic links that point anywhere", Tar(
			Symlink("abs", "/etc/passwd"), Symlink("up", "../../../../etc"), Symlink("none", "does/not/exist"), Symlink("self", "self")),
			Tree{"abs": Sym("/etc/passwd"), "up": Sym("../../../../etc"), "none": Sym("does/not/exist"), "self": Sym("self")}),
		tarCase("extended attributes, which are not restored", Tar(
			PAX("SCHILY.xattr.user.a", "1", "SCHILY.xattr.security.capability", "\x01", "SCHILY.xattr.trusted.overlay.opaque", "y",
				"SCHILY.xattr.security.selinux", "x"), File("a", "1")), Tree{"a": Reg(0o644, "1")}),
		tarCase("unknown PAX keys, times and ids in words", Tar(
			PAX("SCHILY.dev", "1", "SCHILY.ino", "2", "atime", "1.5", "ctime", "2.5", "uname", "nobody", "VENDOR.key", "v"), File("a", "1")),
			Tree{"a": Reg(0o644, "1")}),
		tarCase("a directory of an incremental backup", Tar(
			Entry{Name: "d/", Type: 'D', Body: "Ya\x00\x00", Mode: 0o755, Flavor: GNU}.Bytes(), File("d/a", "1")),
			Tree{"d": Folder(0o755), "d/a": Reg(0o644, "1")}),
		tarCase("no entries, but declared a tar", Zeros(20), Tree{}).named("empty.tar"),
		tarCase("no entries, but declared a tgz", Gzip(Zeros(20)), Tree{}).named("empty.tar.gz"),
	}
}

//go:embed testdata/typescript.tgz
var typescriptTGZ []byte

//go:embed testdata/python.tgz
var pythonTGZ []byte

//go:embed testdata/rl-cli.tgz
var rlcliTGZ []byte

// uploaderCases are archives made by the programs that the public clients
// use. testdata/make.sh made them.
func uploaderCases() []Case {
	long := "sub/" + strings.Repeat("long-", 24) + ".txt"
	files := Tree{
		"a.txt": Reg(0o644, "hello\n").As("a.txt"), "hard.txt": Reg(0o644, "hello\n").As("a.txt"),
		"soft": Sym("a.txt"), "sub": Folder(0o755), "sub/empty": Reg(0o644, ""), long: Reg(0o644, "x"),
		"sub/run.sh": Reg(0o755, "#!/bin/sh\necho run\n"), "sub/up": Sym("../a.txt"),
		"ünï": Folder(0o755), "ünï/cödé.txt": Reg(0o644, "non-ascii\n"),
	}
	quarter, below := Tree{}, Tree{"d": Folder(0o755)}
	for path, n := range files {
		quarter[path] = n.At(MTime*1e9 + 250_000_000)
		n.Same = ""
		below["d/"+path] = n
	}
	return []Case{
		{Name: "a directory as the TypeScript client packs it", Data: typescriptTGZ, Object: "dir", Type: "tgz", Want: Accept, Tree: files,
			Differs: "its directories come before what is in them, level by level, and GNU tar then loses their times"},
		{Name: "a directory as the Python client packs it", Data: pythonTGZ, Object: "d.tar.gz", Type: "tgz", Want: Accept, Tree: quarter},
		{Name: "a directory as rl-cli packs it", Data: rlcliTGZ, Object: "d.tar.gz", Type: "gzip", Want: Accept, Tree: below},
	}
}
