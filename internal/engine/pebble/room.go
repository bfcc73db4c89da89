package pebble

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/engine"
)

// room refuses writes that would wait inside Pebble for a flush or compaction that fails. Neither a
// context nor Close could end such a wait, and Pebble holds a lock meanwhile that all other writes,
// and its Close, need.
//
// While nothing fails it costs a look at a flag. Pebble also stalls writes that come faster than it
// can write out; that ends by itself. A write that is in such a stall when the disk begins to fail
// stays there until the disk accepts writes again.
type room struct {
	memTables uint64       // bytes of memtables from which on Pebble stalls
	failing   atomic.Bool  // the last flush or compaction failed
	err       atomic.Value // why, as noted
	one       sync.Mutex   // held by one write at a time while failing, so that no other passes the check beside it
}

// noted wraps an error, so that all have one type for atomic.Value.
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

// ended is called for each flush and compaction. failed has noted the error, if there is one.
func (r *room) ended(err error) {
	if err == nil {
		r.failing.Store(false)
	}
}

// because adds to an error why what it gave up waiting for fails.
func (r *room) because(err error) error {
	if err == nil || !r.failing.Load() {
		return err
	}
	return fmt.Errorf("%w; writing out what is in memory fails: %w", err, r.err.Load().(noted).error)
}

// admit is called before a write, and its result after it.
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
