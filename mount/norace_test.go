//go:build !race

package mount

const underRace = false

// manyDirs are the directories of manyTree.
const manyDirs = 100
