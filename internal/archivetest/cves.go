package archivetest

import (
	"strings"
)

// CVEs are archives that do what broke other programs, one case for each
// number, whose Name it is. Those that need more than an archive (two of them,
// or somebody who moves directories about) are in extraction's own tests.
func CVEs(outside string) []Case {
	cve := func(id string, why Outcome, entries ...[]byte) Case {
		c := refused(id, why, entries...)
		c.Attack = true
		return c
	}
	made := func(id string, data []byte, tree Tree) Case {
		c := tarCase(id, data, tree)
		c.Object, c.Attack = "object.tar", true
		return c
	}
	smuggled := Tar(File("smuggled", "x"))[:2*BlockSize]
	mode := func(name string, typ byte, mode int64) []byte {
		return Entry{Name: name, Type: typ, Mode: mode}.Bytes()
	}
	sparse1 := func(body string) []byte {
		return Join(PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", "4194304"),
			Entry{Name: "s", Body: string(Pad(body))}.Bytes())
	}
	return []Case{
		// Bounds: what a header promises is not allocated, and has an end.
		cve("CVE-2022-2879", Limit, Entry{Name: "x", Type: 'x', Size: 1 << 40}.Bytes()),                            // Go: extension headers of any size
		cve("CVE-2025-58183", Limit, sparse1("9999999999\n"+strings.Repeat("0\n0\n", 1_000_001))),                  // Go: PAX 1.0 sparse maps of any size
		cve("CVE-2026-32288", Limit, oldSparseMap(1_000_001)),                                                      // Go: old GNU ones likewise
		cve("Python-unbounded-header", Limit, LongName(strings.Repeat("n", 2<<20)), File("a", "x")),                // tarfile read all of it
		cve("CVE-2025-8194", Corrupt, badOffset("a", -1<<40), File("b", "x")),                                      // Python: negative sizes went round for ever
		cve("CVE-2007-4559", Unsafe, File("a", "x"), File("../outside/evil", "x"), File("/"+outside+"/evil", "x")), // Python: names as they came

		// Two readings of one header.
		made("CVE-2025-62518", Tar(PAX("size", "1024"), // TARmageddon: the content was read as headers
			Entry{Name: "a", Body: string(smuggled), Edit: func(b []byte) { octal(b[124:136], 0) }}.Bytes(), File("b", "x")),
			Tree{"a": Reg(0o644, string(smuggled)), "b": Reg(0o644, "x")}),
		made("RUSTSEC-2026-0112", Tar(PAX("size", "1024"), // astral-tokio-tar: a PAX size was applied to the header between
			LongName("a long name"), Entry{Name: "a", Body: string(smuggled), Flavor: GNU, Edit: func(b []byte) { octal(b[124:136], 0) }}.Bytes(), File("b", "x")),
			Tree{"a long name": Reg(0o644, string(smuggled)), "b": Reg(0o644, "x")}),
		cve("tokio-tar-bad-pax", Corrupt, Entry{Name: "x", Type: 'x', Body: "30 path=a\nnot as long as it says\n"}.Bytes(), File("b", "x")), // skipped in silence
		made("CVE-2025-13462", Tar(LongName(strings.Repeat("n", 99)+"/file"), // Python: a directory by the slash of the cut name
			Entry{Name: strings.Repeat("n", 99) + "/", Type: AREGTYPE, Body: string(smuggled), Flavor: GNU}.Bytes(), File("b", "x")),
			Tree{strings.Repeat("n", 99): Implied(), strings.Repeat("n", 99) + "/file": Reg(0o644, string(smuggled)), "b": Reg(0o644, "x")}),

		// Through symbolic links.
		cve("CVE-2026-33056", Unsafe, Dir("d/"), Symlink("d/l", outside), mode("d/l", '5', 0o777)),                                  // tar-rs: chmod of what a link leads to
		cve("RUSTSEC-2026-0113", Unsafe, Symlink("l", outside), mode("l/", '5', 0o700)),                                             // astral-tokio-tar: the same
		cve("CVE-2021-32760", Unsafe, Symlink("l", outside+"/canary"), HardLink("h", "l"), mode("h", '0', 0o777)),                   // containerd: chmod through a link
		cve("CVE-2021-29136", Unsafe, Symlink(".", outside), File("evil", "x")),                                                     // umoci: the root is a link
		cve("CVE-2025-47290", Unsafe, Dir("d/"), File("d/a", "x"), Symlink("d", outside), File("d/evil", "x")),                      // containerd: checked, then exchanged
		cve("CVE-2025-4517", Unsafe, longChain(outside)...),                                                                         // Python: realpath gave up on what is long
		cve("CVE-2025-4330", Unsafe, append(longChain(outside), Symlink("out", up(1, "/canary")), File("out", "evil"))...),          // Python: links out behind such a path
		cve("CVE-2025-4138", Unsafe, Dir("d/"), Symlink("d/up", ".."), Symlink("d/out", "up/../outside"), File("d/out/evil", "")),   // Python: links that leave one after the other
		cve("CVE-2025-4435", Unsafe, File("../outside/evil", "x"), File("good", "x")),                                               // Python: what the filter refused was made all the same
		cve("CVE-2024-12718", Unsafe, Symlink("l", outside+"/canary"), Entry{Name: "l", Mode: 0o777, MTime: 1}.Bytes()),             // Python: time and mode of files outside
		cve("CVE-2026-23745", Unsafe, Symlink("l", outside+"/canary"), HardLink("h", outside+"/canary"), File("l", "evil")),         // node-tar: absolute targets
		cve("CVE-2018-20834", Unsafe, HardLink("h", outside+"/canary"), File("h", "evil")),                                          // node-tar: a file through a hard link
		cve("CVE-2026-24842", Unsafe, Dir("a/b/c/"), HardLink("a/b/c/h", "../../../../outside/canary")),                             // node-tar: checked from one place, linked from another
		cve("CVE-2026-26960", Unsafe, Dir("a/"), Symlink("a/x", ".."), Symlink("a/y", "x/.."), HardLink("h", "a/y/outside/canary")), // node-tar: a chain of links
		cve("CVE-2026-29786", Unsafe, HardLink("h", "C:../outside/canary")),                                                         // node-tar: drive-relative
		made("CVE-2026-31802", Tar(Symlink("l", "C:../outside"), File(`C:..\evil`, "x")), // the same; here these are names
			Tree{"l": Sym("C:../outside"), `C:..\evil`: Reg(0o644, "x")}),
		cve("CVE-2026-42496", Unsafe, Symlink("l", up(1, "")), File("l/evil", "x")),           // Perl: a link out, and through it
		cve("CVE-2026-42497", Unsafe, HardLink("h", up(1, "/canary")), mode("h", '0', 0o777)), // Perl: a hard link out, and then its mode
		made("CVE-2026-23950", Tar(File("ss", "1"), File("ß", "2"), Symlink("SS", "ss"), File("e\u0301", "3"), File("é", "4")), // node-tar: names that macOS holds to be one
			Tree{"ss": Reg(0o644, "1"), "ß": Reg(0o644, "2"), "SS": Sym("ss"), "e\u0301": Reg(0o644, "3"), "é": Reg(0o644, "4")}),
	}
}

// badOffset is an entry with a negative size.
func badOffset(name string, size int64) []byte {
	return Entry{Name: name, Flavor: GNU, Edit: func(b []byte) { octal(b[124:136], size) }}.Bytes()
}

// oldSparseMap is a sparse file of n ranges in GNU's old format: 21 in each
// block behind the header.
func oldSparseMap(n int) []byte {
	all := [][]byte{Entry{Name: "s", Type: 'S', Size: int64(n), Flavor: GNU, Edit: func(b []byte) {
		b[482] = 1
		octal(b[483:495], 2*int64(n))
	}}.Bytes()}
	for i := 0; i < n; i += 21 {
		b := make([]byte, BlockSize)
		for k := range min(21, n-i) {
			octal(b[24*k:24*k+12], int64(2*(i+k)))
			octal(b[24*k+12:24*k+24], 1)
		}
		if i+21 < n {
			b[504] = 1
		}
		all = append(all, b)
	}
	return append(Join(all...), Pad(strings.Repeat("x", n))...)
}
