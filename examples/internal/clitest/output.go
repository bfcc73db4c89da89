// Package clitest is what tests of the examples share.
package clitest

import (
	"strings"
	"sync"
)

// Output keeps what a command writes. It is safe for concurrent use: a store tells its
// last events from a goroutine of its own, which may be after the command has ended.
type Output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// String returns what was written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
