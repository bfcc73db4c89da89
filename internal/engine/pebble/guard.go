package pebble

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// Pebble v2.1 reports a blob file that is missing, or whose end does not parse,
// without saying which it is, and panics over that
// (https://github.com/cockroachdb/pebble/issues/5127). A guard makes an error of it.
// No lock is held there and nothing was changed, but what the read had pinned stays
// pinned, and Pebble's Close panics over that in turn, after everything that matters
// has been closed.
//
// In the background, where a compaction reads blob files to rewrite them, nothing can
// be caught: there the process ends.
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
