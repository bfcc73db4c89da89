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

// Pebble's Get builds an iterator, uses it once and takes it apart. While nothing is
// written, one can be kept from a look-up to the next, which saves up to half of the
// time (docs/adr/0008-kept-iterators.md); a Lookup is two such iterators, one for DEK records
// and one for sealed blocks, of the same state.
//
// What a Lookup finds is what Get would have found at the moment it was taken, because
// it is taken only if no change of the engine was begun since before its iterators were
// made, nor was one under way then: from any other moment it could return what an
// earlier reader has seen replaced.
//
// Iterators pin what they read from: memtables, and files that a compaction has
// replaced. Those that are kept are closed by the next change, by what has obsolete
// files removed, and after keepLookups in any case, because compactions go on without
// changes.
type lookups struct {
	p     *pebble.DB
	guard *guard
	keep  time.Duration // keepLookups

	begun atomic.Uint64 // changes
	_     [56]byte      // what writers write is not what readers read
	ended atomic.Uint64 // of them
	_     [56]byte

	armed atomic.Bool // there may be some in slots
	slots []lookupSlot

	mu     sync.Mutex
	timer  *time.Timer // when there may be some, until Close
	closed bool
}

// lookupSlot is where a Lookup is kept, in a cache line of its own.
type lookupSlot struct {
	kept atomic.Pointer[Lookup]
	_    [56]byte
}

const (
	// lookupPatience is how many look-ups go by without a change before an iterator
	// is kept: making one costs as much as Get, and is for nothing if a change follows.
	lookupPatience = 16
	// keepLookups is the longest that iterators pin anything when nobody uses them.
	keepLookups = time.Second
)

func newLookups(p *pebble.DB, g *guard) *lookups {
	return &lookups{p: p, guard: g, keep: keepLookups, slots: make([]lookupSlot, min(max(4, 2*runtime.GOMAXPROCS(0)), 64))}
}

// change is called before the engine's state changes, and its result afterwards.
// A Lookup whose user finds no change begun is one that change finds to close, and the
// reverse: each of the two first writes what the other reads.
func (k *lookups) change() (done func()) {
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

// expire closes what is kept, and has what is in use closed after it.
func (k *lookups) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.timer = nil
	if !k.closed {
		k.change()()
	}
}

// close closes what is kept, for good.
func (k *lookups) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	if k.timer != nil {
		k.timer.Stop()
	}
	k.begin() // and does not end: nothing is kept any more
}

// Reading is what a caller of [DB.Lookup] keeps from one call to the next, so that
// it finds the iterators that it used before: those of its core, if it is pooled.
type Reading struct {
	begun uint64
	calm  int // look-ups since
	slot  int
}

// Lookup finds keys in one state of the engine. It belongs to one goroutine and is not
// for long: release it.
type Lookup struct {
	k     *lookups
	begun uint64
	slot  int
	iters [2]*pebble.Iterator // over DEK records, over sealed blocks
	bad   bool                // not to be used again
}

// Lookup returns what finds keys faster than Get does, unless they are in a memtable, or
// nil if there is no such thing now, because the engine has just been written to. It
// finds keys of DEK records and sealed blocks, and panics over others.
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

// State returns what finds the keys of DEK records and sealed blocks in the engine's state of when it
// first looks one up, as a snapshot would; but it keeps no compaction from removing what
// it sees. Release it soon.
func (d *DB) State() *Lookup {
	k := d.lookups
	return &Lookup{k: k, begun: noLookup}
}

// noLookup is before every change: a Lookup from then is not kept.
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
		// A change that was begun before the slot was filled has not seen it.
		if l.begun != k.begun.Load() {
			if l := s.kept.Swap(nil); l != nil {
				l.close()
			}
		}
		return
	}
	l.close()
}

// wake has what is kept closed in a while.
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
			_ = it.Close() // its error was returned to who ran into it
		}
	}
	l.iters = [2]*pebble.Iterator{}
}

// Get implements [Getter]. The value is valid until the next Get of a key in the same space,
// and Release.
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

// iter returns the iterator of a key's space.
func (l *Lookup) iter(key []byte) (it *pebble.Iterator, err error) {
	space := byte(0)
	if len(key) > 0 {
		space = key[0]
	}
	if space != spaceDEK && space != spaceData {
		panic("engine: Lookup.Get of a key that is of neither a DEK record nor a sealed block")
	}
	at := space - spaceDEK
	if l.iters[at] != nil {
		return l.iters[at], nil
	}
	o := pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}}
	if other := l.iters[1-at]; other != nil { // of the very same state
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

// nothing is there to be closed.
type nothing struct{}

func (nothing) Close() error { return nil }
