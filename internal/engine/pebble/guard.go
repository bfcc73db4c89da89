package pebble

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// guard turns a panic of Pebble v2.1 into an error: where a blob file is missing, or its end does
// not parse, Pebble panics over the report of that
// (https://github.com/cockroachdb/pebble/issues/5127). At that point Pebble has no lock and has
// changed nothing. What the read had pinned stays pinned, and Pebble's Close panics over that,
// after everything that matters has been closed.
//
// A compaction that reads blob files panics on a goroutine of Pebble's, where nobody can recover:
// the process ends.
type guard struct{ caught atomic.Bool }

// read is deferred by what reads a value.
func (g *guard) read(err *error) {
	r := recover()
	if r == nil {
		return
	}
	if !strings.HasPrefix(fmt.Sprint(r), "unknown metadata type") {
		panic(r)
	}
	g.caught.Store(true)
	*err = fmt.Errorf("%w: a blob file is missing or cannot be read", engine.ErrCorrupt)
}

// close is deferred by what closes the DB.
func (g *guard) close(err *error) {
	if !g.caught.Load() {
		return
	}
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: closed with a blob file that is missing or cannot be read: %v", engine.ErrCorrupt, r)
	}
}
