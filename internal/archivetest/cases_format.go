package archivetest

import (
	"bytes"
	"strings"
)

// headerCases are tar headers that are wrong, or that programs read in
// different ways.
func headerCases() []Case {
	whole := Tar(File("a", strings.Repeat("a", 1000)), File("b", "x"))
	cut := func(name string, n int) Case {
		return Case{Name: name, Data: whole[:n], Object: "cut.tar", Want: Corrupt}
	}
	smuggled := Tar(File("smuggled", "x"))
	// TARmageddon, CVE-2025-62518: the PAX header and the ustar header give
	// different sizes, and whoever believes the wrong one reads content as
	// headers.
	desync := func(pax string, e Entry) []byte { return Tar(PAX("size", pax), e.Bytes(), File("b", "x")) }
	badSize := func(field string) []byte {
		return Entry{Name: "a", Edit: func(b []byte) { copy(b[124:136], field) }}.Bytes()
	}
	return []Case{
		cut("its first header cut", 300),
		cut("its content cut", BlockSize+100),
		cut("its content cut at a block", 2*BlockSize),
		cut("its padding cut", BlockSize+1000),
		cut("its second header cut", 3*BlockSize+300),
		refused("a wrong checksum in the first header", Corrupt, Entry{Name: "a", Break: func(b []byte) { b[0] = 'b' }}.Bytes()),
		refused("a wrong checksum in the middle", Corrupt, File("a", "x"), Entry{Name: "b", Break: func(b []byte) { b[0] = 'c' }}.Bytes(), File("c", "x")),
		refused("a size that is no number", Corrupt, File("a", "x"), badSize("0000000000x\x00")),
		refused("a negative size", Corrupt, File("a", "x"), badSize("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
		refused("a size beyond 63 bits", Corrupt, File("a", "x"), badSize("\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
		refused("a size of 8 EiB less one", Limit, badSize("\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")),
		refused("a block of zeros between entries", Corrupt, File("a", "x"), Zeros(1), File("b", "x")),
		refused("GNU's long name for an entry that never comes", Corrupt, File("a", "x"), LongName("b")),
		refused("a PAX header for an entry that never comes", Corrupt, File("a", "x"), PAX("path", "b")),
		refused("a PAX record of a wrong length", Corrupt, Entry{Name: "x", Type: 'x', Body: "99 path=b\n"}.Bytes(), File("a", "x")),
		refused("a PAX record without an equals sign", Corrupt, Entry{Name: "x", Type: 'x', Body: "8 path b\n"}.Bytes(), File("a", "x")),
		refused("a PAX size that is no number", Corrupt, PAX("size", "x"), File("a", "x")),
		refused("a negative PAX size", Corrupt, PAX("size", "-1"), File("a", "x")),
		refused("a PAX time that is no number", Corrupt, PAX("mtime", "now"), File("a", "x")),
		refused("a PAX header of 2 MiB", Limit, PAX("comment", strings.Repeat("c", 2<<20)), File("a", "x")),
		refused("GNU's long name of 2 MiB", Limit, LongName(strings.Repeat("n", 2<<20)), File("a", "x")),
		tarCase("a PAX size where the header says 0", desync("1024", Entry{Name: "a", Body: string(smuggled[:1024]), Edit: func(b []byte) {
			octal(b[124:136], 0)
		}}), Tree{"a": Reg(0o644, string(smuggled[:1024])), "b": Reg(0o644, "x")}),
		tarCase("a PAX size of 0 before an archive in the archive", desync("0", Entry{Name: "a", Body: string(smuggled[:1024])}),
			Tree{"a": Reg(0o644, ""), "smuggled": Reg(0o644, "x"), "b": Reg(0o644, "x")}),
		refused("both GNU's long name and a PAX name", Unsafe, PAX("path", "pax"), LongName("gnu"), Entry{Name: "a", Body: "x", Flavor: GNU}.Bytes()),
		refused("a PAX header twice", Unsafe, PAX("path", "one"), PAX("path", "two"), File("a", "x")),
		refused("GNU's long name twice", Unsafe, LongName("one"), LongName("two"), Entry{Name: "a", Body: "x", Flavor: GNU}.Bytes()),
		refused("a hard link with content", Unsafe, File("a", "x"), Entry{Name: "b", Type: '1', Link: "a", Body: "y"}.Bytes()),
	}
}

// sparseCases are files with holes in all of GNU's formats.
func sparseCases() []Case {
	data := strings.Repeat("D", BlockSize)
	// "data" at 4096 in a file of 8192 bytes.
	want := Reg(0o644, strings.Repeat("\x00", 4096)+data+strings.Repeat("\x00", 8192-4096-BlockSize))
	old := func(real int64, maps ...int64) []byte {
		return Entry{Name: "s", Type: 'S', Body: data, Flavor: GNU, Edit: func(b []byte) {
			for i := 0; i+1 < len(maps) && i < 8; i += 2 {
				octal(b[386+12*i:398+12*i], maps[i])
				octal(b[398+12*i:410+12*i], maps[i+1])
			}
			octal(b[483:495], real)
		}}.Bytes()
	}
	v1 := func(real, sparseMap string) []byte {
		return Join(PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "s", "GNU.sparse.realsize", real),
			Entry{Name: "GNUSparseFile.0/s", Body: string(Pad(sparseMap)) + data}.Bytes())
	}
	return []Case{
		tarCase("a sparse file in GNU's old format", Tar(old(8192, 4096, 512, 8192, 0)), Tree{"s": want}),
		tarCase("a sparse file in format 0.0", Tar(PAX("GNU.sparse.size", "8192", "GNU.sparse.numblocks", "2",
			"GNU.sparse.offset", "4096", "GNU.sparse.numbytes", "512", "GNU.sparse.offset", "8192", "GNU.sparse.numbytes", "0"), File("s", data)), Tree{"s": want}),
		tarCase("a sparse file in format 0.1", Tar(PAX("GNU.sparse.size", "8192", "GNU.sparse.numblocks", "2",
			"GNU.sparse.map", "4096,512,8192,0", "GNU.sparse.name", "s"), File("x", data)), Tree{"s": want}),
		tarCase("a sparse file in format 1.0", Tar(v1("8192", "2\n4096\n512\n8192\n0\n")), Tree{"s": want}),
		refused("a sparse format of the future", Corrupt, PAX("GNU.sparse.major", "2", "GNU.sparse.minor", "0"), File("a", data)),
		{Name: "a hole of 4 EiB", Data: Tar(old(1<<62, 0, 512, 1<<62, 0)), Want: Limit, Attack: true},
		{Name: "a hole of 1 PiB in format 1.0", Data: Tar(v1("1125899906842624", "2\n0\n512\n1125899906842624\n0\n")), Want: Limit, Attack: true},
		refused("a sparse map that goes backwards", Corrupt, old(8192, 4096, 256, 0, 256)),
		refused("a sparse map with more data than there is", Corrupt, old(8192, 0, 4096, 8192, 0)),
		refused("a sparse map that ends after the file", Corrupt, old(1000, 4096, 512)),
		refused("a sparse map without end", Corrupt, Join(PAX("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "8192"),
			Entry{Name: "s", Body: string(Pad("9999999\n" + strings.Repeat("0\n0\n", 200)))}.Bytes())),
	}
}

// gzipCases are streams that gzip libraries are lax about.
func gzipCases() []Case {
	tar := Tar(File("a", strings.Repeat("hello ", 200)))
	tree := Tree{"a": Reg(0o644, strings.Repeat("hello ", 200))}
	zip := Gzip(tar)
	bad := func(name string, data []byte) Case {
		return Case{Name: name, Data: data, Object: "object.tar.gz", Want: Corrupt}
	}
	fields := func(flags byte, f string) []byte { return Member{Data: tar, Flags: flags, Fields: []byte(f)}.Bytes() }
	hcrc := Member{Data: tar, Flags: 1 << 1, Fields: []byte{0, 0}}
	good := hcrc
	good.Fields = headerCRC(1 << 1)
	return []Case{
		bad("a wrong CRC in the gzip trailer", Member{Data: tar, CRC: 1}.Bytes()),
		bad("a wrong length in the gzip trailer", Member{Data: tar, Length: 1}.Bytes()),
		bad("a wrong CRC in the second member", Join(Gzip(tar[:600]), Member{Data: tar[600:], CRC: 1}.Bytes())),
		bad("a wrong CRC in the first member", Join(Member{Data: tar[:600], CRC: 1}.Bytes(), Gzip(tar[600:]))),
		bad("one bit flipped in the compressed data", Flip(zip, 8*len(zip)/2)),
		bad("one bit flipped in the CRC", Flip(zip, -50)),
		bad("its gzip trailer cut", zip[:len(zip)-3]),
		bad("its gzip trailer missing", zip[:len(zip)-8]),
		bad("its compressed data cut", zip[:len(zip)/2]),
		bad("its gzip header cut", zip[:5]),
		bad("a second gzip member cut in its header", Join(zip, zip[:5])),
		bad("garbage after the gzip", append(bytes.Clone(zip), "garbage"...)),
		bad("garbage after zero padding", append(bytes.Clone(zip), "\x00\x00\x00x"...)),
		bad("a gzip member after zero padding", Join(zip, make([]byte, 10), zip)),
		bad("a half magic after the gzip", append(bytes.Clone(zip), 0x1f)),
		bad("a reserved gzip flag", fields(1<<5, "")),
		bad("all reserved gzip flags", fields(0xe0, "")),
		bad("a reserved flag in the second member", Join(Gzip(tar[:600]), Member{Data: tar[600:], Flags: 1 << 7}.Bytes())),
		bad("a wrong header CRC", hcrc.Bytes()),
		bad("an unknown method in the second member", Join(zip, Member{Data: nil, Method: 7}.Bytes())),
		// Found by fuzzing: a decoder called it an error of its own.
		bad("a table of code lengths that repeats the one before the first",
			[]byte("\x1f\x8b\b\x00000000\x04\xc0\x81\x00\x00\x00\x00\xb0\x19%\x95?\xc3\xf780\x00\xc00")),
		bad("a gzip name without end", Join(zip[:3], []byte{1 << 3}, zip[4:10], []byte(strings.Repeat("n", 1<<17)))),
		tarCase("a right header CRC", good.Bytes(), tree),
		tarCase("a gzip name, comment, extra field and text flag", fields(1|1<<2|1<<3|1<<4, "\x04\x00abcdname\x00comment\x00"), tree),
		tarCase("empty gzip members around the data", Join(Gzip(nil), zip, Gzip(nil), Gzip(nil)), tree),
		{Name: "a gzip of text", Data: Gzip([]byte("hello\n")), Object: "hello.txt.gz", Type: "gzip", Want: Accept, File: true, Body: "hello\n"},
		{Name: "a gzip of nothing", Data: Gzip(nil), Object: "nothing.gz", Want: Accept, File: true},
		{Name: "a gzip of a gzip", Data: Gzip(Gzip([]byte("x"))), Object: "x.gz.gz", Want: Accept, File: true, Body: string(Gzip([]byte("x")))},
		{Name: "a gzip of text in two members", Data: Members([]byte("hello "), []byte("world")), Want: Accept, File: true, Body: "hello world"},
		{Name: "a gzip of text with a wrong CRC", Data: Member{Data: []byte("hello"), CRC: 1}.Bytes(), Want: Corrupt},
		{Name: "a gzip of text, cut", Data: Gzip([]byte(strings.Repeat("hello", 1000)))[:30], Want: Corrupt},
	}
}

// claimCases are objects whose bytes are not what their name or type says.
func claimCases() []Case {
	xml := []byte(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>`)
	text := Gzip([]byte("no tar"))
	tar := Tar(File("a", "x"))
	tree := Tree{"a": Reg(0o644, "x")}
	return []Case{
		{Name: "an error page as .tar", Data: xml, Object: "data.tar", Want: Corrupt},
		{Name: "an error page as .tar.gz", Data: xml, Object: "data.tar.gz", Want: Corrupt},
		{Name: "an error page as .tgz", Data: xml, Object: "data.TGZ", Want: Corrupt},
		{Name: "an error page as .gz", Data: xml, Object: "data.gz", Want: Corrupt},
		{Name: "an error page of type tar", Data: xml, Type: "tar", Want: Corrupt},
		{Name: "an error page of type tgz", Data: xml, Type: "tgz", Want: Corrupt},
		{Name: "an error page of type gzip", Data: xml, Type: "gzip", Want: Corrupt},
		{Name: "no bytes as .tar", Object: "data.tar", Want: Corrupt},
		{Name: "no bytes of type gzip", Type: "gzip", Want: Corrupt},
		{Name: "zeros, but less than a block, as .tar", Data: make([]byte, 100), Object: "data.tar", Want: Corrupt},
		{Name: "zeros and then something as .tar", Data: append(Zeros(2), 'x'), Object: "data.tar", Want: Corrupt},
		{Name: "a gzip of text as .tar.gz", Data: text, Object: "data.tar.gz", Want: Corrupt},
		{Name: "a gzip of text of type tgz", Data: text, Type: "tgz", Want: Corrupt},
		{Name: "a tar of type text", Data: tar, Object: "a.txt", Type: "text", Want: Accept, Tree: tree},
		{Name: "a tar of type gzip", Data: tar, Type: "gzip", Want: Accept, Tree: tree},
		{Name: "a gzip of a tar without name or type", Data: Gzip(tar), Want: Accept, Tree: tree},
		{Name: "a gzip of a tar as .tar", Data: Gzip(tar), Object: "data.tar", Want: Accept, Tree: tree},
		{Name: "no bytes and no claim", Want: Accept, File: true},
		{Name: "an error page without claim", Data: xml, Object: "page.xml", Type: "text", Want: Accept, File: true, Body: string(xml)},
		{Name: "zeros without claim", Data: Zeros(4), Want: Accept, File: true, Body: string(Zeros(4))},
		{Name: "a gzip of zeros as .gz", Data: Gzip(Zeros(4)), Object: "zeros.gz", Want: Accept, File: true, Body: string(Zeros(4))},
		{Name: "ustar magic but a wrong checksum", Data: Tar(Entry{Name: "a", Break: func(b []byte) { b[0] = 'b' }}.Bytes()), Want: Corrupt},
		{Name: "half of the gzip magic", Data: []byte{0x1f, 0x8b}, Want: Accept, File: true, Body: "\x1f\x8b"},
		{Name: "nothing but the gzip magic", Data: []byte{0x1f, 0x8b, 8}, Want: Corrupt},
	}
}

// limitCases set a limit.
func limitCases() []Case {
	var many [][]byte
	for i := range 20 {
		many = append(many, File(string(rune('a'+i)), "0123456789"))
	}
	bomb := Tar(File("bomb", strings.Repeat("\x00", 20<<20)))
	return []Case{
		{Name: "one entry more than allowed", Data: Tar(many...), Want: Limit, MaxEntries: 19},
		{Name: "as many entries as allowed", Data: Tar(many...), Want: Accept, MaxEntries: 20, Tree: manyTree()},
		{Name: "directories that names imply counted as entries", Data: Tar(File("a/b/c/d", "x")), Want: Limit, MaxEntries: 3},
		{Name: "more bytes than allowed in all", Data: Tar(many...), Want: Limit, MaxBytes: 199},
		{Name: "as many bytes as allowed", Data: Tar(many...), Want: Accept, MaxBytes: 200, Tree: manyTree()},
		{Name: "a gzip bomb of a tar", Data: Gzip(bomb), Want: Limit, MaxBytes: 1 << 20, Attack: true},
		{Name: "a gzip bomb of a file", Data: Gzip(make([]byte, 20<<20)), Want: Limit, MaxBytes: 1 << 20, Attack: true},
	}
}

func manyTree() Tree {
	tree := Tree{}
	for i := range 20 {
		tree[string(rune('a'+i))] = Reg(0o644, "0123456789")
	}
	return tree
}
