package pebble

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

// room refuses writes that would wait inside Pebble for a flush or compaction that fails. Neither a
// context nor Close could end such a wait, and Pebble holds a lock meanwhile that all other writes,
// and its Close, need.
//
// While nothing fails it costs a look at a number. Pebble also stalls writes that come faster than it
// can write out; that ends by itself. A write that is in such a stall when the disk begins to fail
// stays there until the disk accepts writes again.
type room struct {
	memTables uint64        // bytes of memtables from which on Pebble stalls
	failing   atomic.Uint32 // what failed when it was last tried: flushing, compacting, both or nothing
	err       atomic.Value  // why, as noted
	one       sync.Mutex    // held by one write at a time while failing, so that no other passes the check beside it
}

const (
	flushing = 1 << iota
	compacting
)

// noted wraps an error, so that all have one type for atomic.Value.
type noted struct{ error }

func newRoom(o Options) *room {
	size := o.MemTableBytes
	if size == 0 {
		size = defaultMemTable
	}
	return &room{memTables: memTables * size}
}

func (r *room) failed(what uint32, err error) {
	r.err.Store(noted{err})
	r.failing.Or(what)
}

// emptyFlush is the text of the error that Pebble tells of a flush that had nothing to write.
const emptyFlush = "pebble: empty table"

// flushed is called for each flush. One that succeeds shows that there is room, also for compactions.
func (r *room) flushed(info pebble.FlushInfo) {
	switch {
	case info.Err == nil:
		r.failing.Store(0)
	case info.Err.Error() != emptyFlush:
		r.failed(flushing, info.Err)
	}
}

// compacted is called for each compaction. One that succeeds says nothing of a flush that fails: it
// may have made its tables while there was room, or only have moved or removed some.
func (r *room) compacted(info pebble.CompactionInfo) {
	switch {
	case info.Err == nil:
		r.failing.And(^uint32(compacting))
	case !errors.Is(info.Err, pebble.ErrCancelledCompaction):
		r.failed(compacting, info.Err)
	}
}

// because adds to an error why what it gave up waiting for fails.
func (r *room) because(err error) error {
	if err == nil || r.failing.Load() == 0 {
		return err
	}
	return fmt.Errorf("%w; writing out what is in memory fails: %w", err, r.err.Load().(noted).error)
}

// admit is called before a write, and its result after it.
func (d *DB) admit() (admitted func(), err error) {
	r := d.room
	if r.failing.Load() == 0 {
		return admittedFreely, nil
	}
	r.one.Lock()
	m := d.p.Metrics()
	if r.failing.Load() != 0 && (m.MemTable.Size >= r.memTables || m.Levels[0].Sublevels >= l0Stop) {
		r.one.Unlock()
		return nil, fmt.Errorf("%w: %w", engine.ErrNoRoom, r.err.Load().(noted).error)
	}
	return r.one.Unlock, nil
}

func admittedFreely() {}
