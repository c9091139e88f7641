package extract

import "objectmount/index"

// Limits bounds what an object may ask for. A zero field means its default. A
// refusal names the limit in the words in brackets, which are also those of
// the command's flags.
type Limits struct {
	Entries   int64 // files, directories and links; default 10,000,000 (max-entries)
	Bytes     int64 // bytes of all files, holes included; default: what is free, checked as it goes (max-bytes)
	FileBytes int64 // bytes of one file; default: the size of the file system (max-file-size)
	Reserve   int64 // bytes to leave free; default 64 MiB, or 1 % of a smaller file system (reserve)
	Depth     int64 // components of a name; default 512, at most MostDepth (max-depth)
	Path      int64 // bytes of a name; default and most MostPath (max-path)
	Component int64 // bytes of a component; default and most MostComponent (max-component)
	Link      int64 // bytes of a link's target; default and most MostPath (max-link)
	Header    int64 // bytes of a PAX or GNU extension header; default 1 MiB, at most MostHeader (max-header)
	Fragments int64 // ranges with content of a sparse file; default and most MostFragments (max-fragments)
}

// What limits can be raised to: what Linux can hold, and what fits into the
// memory that an extraction may take.
const (
	MostPath      = 4095
	MostComponent = 255
	MostDepth     = MostPath/2 + 1
	MostHeader    = 4 << 20
	MostFragments = 1_000_000
)

func (l Limits) withDefaults() Limits {
	for _, x := range []struct {
		v         *int64
		def, most int64 // most 0: any
	}{
		{&l.Entries, 10_000_000, 0},
		{&l.Depth, 512, MostDepth},
		{&l.Path, MostPath, MostPath},
		{&l.Component, MostComponent, MostComponent},
		{&l.Link, MostPath, MostPath},
		{&l.Header, 1 << 20, MostHeader},
		{&l.Fragments, MostFragments, MostFragments},
	} {
		if *x.v <= 0 {
			*x.v = x.def
		}
		if x.most > 0 {
			*x.v = min(*x.v, x.most)
		}
	}
	return l
}

// tar are the limits that the header reader keeps.
func (l Limits) tar() index.TarLimits {
	return index.TarLimits{Header: l.Header, Fragments: int(l.Fragments)}
}

// rules are those that an entry's header is judged by.
func (l Limits) rules() index.Limits {
	return index.Limits{Depth: l.Depth, Path: l.Path, Component: l.Component, Link: l.Link}
}
