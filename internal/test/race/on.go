//go:build race

// Package race says whether the race detector is on, for tests that do the same many
// times over: under it they are several times slower, and once is as good as often where
// nothing runs side by side.
package race

// Enabled reports whether the program was built with the race detector.
const Enabled = true
