package pebble

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// room keeps writes out that would wait inside Pebble for a flush or compaction that
// fails: such a wait has no end that a context or Close could bring about, and Pebble
// holds a lock meanwhile, for which all other writes, and its Close, wait too.
//
// As long as nothing fails it costs a look at a flag. Pebble also stalls writes that come
// faster than it can write them out, which ends by itself; a write that is in such a
// stall when the disk begins to fail stays in it until the disk takes writes again.
type room struct {
	memTables uint64       // bytes from which Pebble stalls
	failing   atomic.Bool  // the last flush or compaction failed
	err       atomic.Value // of noted: why
	one       sync.Mutex   // while failing one write at a time, so that none passes another's check
}

// noted is an error, of whatever type.
type noted struct{ error }

func newRoom(o Options) *room {
	size := o.MemTableBytes
	if size == 0 {
		size = defaultMemTable
	}
	return &room{memTables: memTables * size}
}

func (r *room) failed(err error) {
	r.err.Store(noted{err})
	r.failing.Store(true)
}

// ended is told of each flush and compaction; those that failed are failed's.
func (r *room) ended(err error) {
	if err == nil {
		r.failing.Store(false)
	}
}

// because adds to the error of something that was given up what it waited for.
func (r *room) because(err error) error {
	if err == nil || !r.failing.Load() {
		return err
	}
	return fmt.Errorf("%w; writing out what is in memory fails: %w", err, r.err.Load().(noted).error)
}

// admit is called by what writes, and its result afterwards.
func (d *DB) admit() (admitted func(), err error) {
	r := d.room
	if !r.failing.Load() {
		return admittedFreely, nil
	}
	r.one.Lock()
	m := d.p.Metrics()
	if r.failing.Load() && (m.MemTable.Size >= r.memTables || m.Levels[0].Sublevels >= l0Stop) {
		r.one.Unlock()
		return nil, fmt.Errorf("%w: %w", engine.ErrNoRoom, r.err.Load().(noted).error)
	}
	return r.one.Unlock, nil
}

func admittedFreely() {}
