package pebble

import (
	"bytes"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/blockseal/blockseal/internal/engine"
)

// lookups keeps iterators from one look-up to the next while nothing is written. A Lookup is two of
// them, over DEK records and over sealed blocks, of the same state. It may be used only if, since
// before its iterators were made, no write of the engine began or was under way: from any other
// moment it could return what an earlier reader has already seen replaced. The next write closes
// the kept ones, as does what removes obsolete files; keepLookups bounds how long they pin
// anything. docs/adr/0008-kept-iterators.md has the argument.
type lookups struct {
	p     *pebble.DB
	guard *guard
	keep  time.Duration

	begun atomic.Uint64 // writes that have begun
	_     [56]byte      // keeps what writers write apart from what readers write
	ended atomic.Uint64 // writes that have ended
	_     [56]byte

	armed atomic.Bool // slots may have some
	slots []lookupSlot

	mu     sync.Mutex
	timer  *time.Timer // runs while slots may have some, until Close
	closed bool
	walks  Reading // of all walks
}

// lookupSlot keeps a Lookup, in a cache line of its own.
type lookupSlot struct {
	kept atomic.Pointer[Lookup]
	_    [56]byte
}

const (
	// lookupPatience is the number of look-ups without a write before an iterator is kept: making
	// one costs as much as Get, and is wasted if a write follows.
	lookupPatience = 16
	// keepLookups is the longest time for which unused iterators pin anything.
	keepLookups = time.Second
)

func newLookups(p *pebble.DB, g *guard) *lookups {
	return &lookups{p: p, guard: g, keep: keepLookups, slots: make([]lookupSlot, min(max(4, 2*runtime.GOMAXPROCS(0)), 64))}
}

// write is called before the engine's state changes, and its result afterwards. A writer counts
// itself and then looks for kept Lookups; a reader keeps a Lookup and then looks at the count. So
// one of the two finds the other and closes the Lookup.
func (k *lookups) write() (done func()) {
	k.begin()
	return k.end
}

func (k *lookups) begin() {
	k.begun.Add(1)
	if k.armed.Load() && k.armed.Swap(false) {
		k.closeKept()
	}
}

func (k *lookups) end() { k.ended.Add(1) }

func (k *lookups) closeKept() {
	for i := range k.slots {
		if l := k.slots[i].kept.Swap(nil); l != nil {
			l.close()
		}
	}
}

// expire closes what is kept. What is in use is closed by its Release.
func (k *lookups) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = nil
	if !k.closed {
		k.write()()
	}
}

func (k *lookups) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	k.begin() // and does not end: no Lookup is kept any more
}

// Reading is what a caller of [DB.Lookup] keeps from one call to the next, so that it finds the
// same iterators again.
type Reading struct {
	begun uint64
	calm  int // look-ups since begun changed
	slot  int
}

// Lookup finds keys in one state of the engine. It belongs to one goroutine. The caller releases it
// soon.
type Lookup struct {
	k     *lookups
	begun uint64
	slot  int
	iters [2]*pebble.Iterator // over DEK records, over sealed blocks
	bad   bool                // it must not be used again
}

// Lookup returns what finds keys faster than Get, unless they are in a memtable. It is nil if the
// engine was just written to. It finds keys of DEK records and sealed blocks, and panics over
// others.
func (d *DB) Lookup(r *Reading) *Lookup {
	k := d.lookups
	begun := k.begun.Load()
	if r.begun != begun {
		r.begun, r.calm = begun, 0
	}
	if r.calm < lookupPatience {
		r.calm++
		return nil
	}
	for i := range k.slots {
		at := (r.slot + i) % len(k.slots)
		s := &k.slots[at]
		if s.kept.Load() == nil {
			continue
		}
		l := s.kept.Swap(nil)
		if l == nil {
			continue
		}
		if l.begun == k.begun.Load() {
			r.slot, l.slot = at, at
			return l
		}
		l.close()
	}
	ended := k.ended.Load()
	if begun = k.begun.Load(); begun != ended {
		return nil
	}
	return &Lookup{k: k, begun: begun, slot: r.slot}
}

// lookupForWalk is Lookup for a walk over ids: of walks that soon end, making iterators is the better part. All
// walks count as one caller.
func (d *DB) lookupForWalk() *Lookup {
	k := d.lookups
	k.mu.Lock()
	r := k.walks
	k.mu.Unlock()
	l := d.Lookup(&r)
	k.mu.Lock()
	k.walks = r
	k.mu.Unlock()
	return l
}

// State returns a Lookup of the state in which it first looks up a key. Unlike a snapshot it keeps
// no compaction from removing what it sees. It finds keys of DEK records and sealed blocks, and
// panics over others.
func (d *DB) State() *Lookup {
	k := d.lookups
	return &Lookup{k: k, begun: noLookup}
}

// noLookup never equals begun: a Lookup with it is not kept.
const noLookup = math.MaxUint64

// Release lets go of l, which must not be used any more.
func (l *Lookup) Release() {
	k := l.k
	if l.bad || l.begun != k.begun.Load() {
		l.close()
		return
	}
	for i := range k.slots {
		s := &k.slots[(l.slot+i)%len(k.slots)]
		if !s.kept.CompareAndSwap(nil, l) {
			continue
		}
		if !k.armed.Load() {
			k.armed.Store(true)
			k.wake()
		}
		// A write that began before the slot was filled has not seen it.
		if l.begun != k.begun.Load() {
			if l := s.kept.Swap(nil); l != nil {
				l.close()
			}
		}
		return
	}
	l.close()
}

func (k *lookups) wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.timer == nil && !k.closed {
		k.timer = time.AfterFunc(k.keep, k.expire)
	}
}

func (l *Lookup) close() {
	var err error
	defer l.k.guard.read(&err)
	for _, it := range l.iters {
		if it != nil {
			_ = it.Close() // its error was returned to who met it
		}
	}
	l.iters = [2]*pebble.Iterator{}
}

// Get implements [Getter]. The value is valid until the next Get of a key in the same space, or
// Release.
func (l *Lookup) Get(key []byte) (v []byte, _ io.Closer, err error) {
	defer l.k.guard.read(&err)
	l.bad = true // unless all goes well
	it, err := l.iter(key)
	if err != nil {
		return nil, nil, translate(err)
	}
	if !it.SeekPrefixGE(key) || !bytes.Equal(it.Key(), key) {
		if err := it.Error(); err != nil {
			return nil, nil, translate(err)
		}
		l.bad = false
		return nil, nil, engine.ErrNotFound
	}
	if v, err = it.ValueAndErr(); err != nil {
		return nil, nil, translate(err)
	}
	l.bad = false
	return v, nothing{}, nil
}

func (l *Lookup) iter(key []byte) (it *pebble.Iterator, err error) {
	space := byte(0)
	if len(key) > 0 {
		space = key[0]
	}
	if space != spaceDEK && space != spaceData {
		panic("engine: Lookup.Get of a key that is of neither a DEK record nor a sealed block")
	}
	return l.over(space)
}

// over returns the iterator over a space, which is spaceDEK or spaceData.
func (l *Lookup) over(space byte) (it *pebble.Iterator, err error) {
	at := space - spaceDEK
	if l.iters[at] != nil {
		return l.iters[at], nil
	}
	o := pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}}
	if other := l.iters[1-at]; other != nil { // of the same state
		it, err = other.Clone(pebble.CloneOptions{IterOptions: &o})
	} else {
		it, err = l.k.p.NewIter(&o)
	}
	if err != nil {
		return nil, err
	}
	l.iters[at] = it
	return it, nil
}

type nothing struct{}

func (nothing) Close() error { return nil }
