// Package archivetest makes deterministic archives for tests, tame and hostile.
package archivetest
