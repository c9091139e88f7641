//go:build race

package mount

// underRace is true under the race detector, which makes decoding twenty times
// slower: the same is tested, with less of it.
const underRace = true

// manyDirs are the directories of manyTree.
const manyDirs = 10
