package row

import (
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Table is the rows of one store. It is safe for concurrent use. It uses the engine inside a hold
// of the keyring, or while a [Use] keeps the engine open; closing the store ends both first.
type Table struct {
	Part engine.Partition

	use     *Use
	keys    *keyring.Keyring
	salt    uint64 // of the ids in the caches, which tables share
	noSync  bool
	shared  bool
	judged  atomic.Uint64 // the floor's revision that was last known before the document was looked at; see judge
	wrote   func()
	records *recordCache
	rows    *rowCache
	scratch *sync.Pool    // of *scratch
	helpers chan struct{} // has one for each helper that seals for a batch; see Lent
}

// Config configures a Table.
type Config struct {
	Part   engine.Partition
	Number uint32 // of the partition
	Keys   *keyring.Keyring
	Use    *Use
	Caches *Caches // nil: none
	NoSync bool    // commits need not be durable
	Shared bool    // other processes have the rows too, and the document; see engine.Sharer
	Wrote  func()  // is called after each write that was applied
}

// New returns the table of a store that has a keyring.
func New(c Config) *Table {
	if c.Caches == nil {
		c.Caches = NewCaches(0, 0)
	}
	t := &Table{Part: c.Part, salt: c.Caches.salt(c.Number), keys: c.Keys, use: c.Use, noSync: c.NoSync, shared: c.Shared, wrote: c.Wrote,
		records: c.Caches.records, rows: c.Caches.rows, scratch: &c.Caches.scratch, helpers: c.Caches.helpers}
	return t
}

// CacheStats counts the look-ups in a cache and what it holds.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
	Bytes, Limit int64 // of memory, in use and at most; both are zero if there is no cache
}

// scratch is the pooled memory of one operation. With it the hot paths allocate only the standard
// library's key set-up. The tables of an engine share it: with a pool for each, who goes from one
// store to the next would find memory that no cache of the processor has any more. It holds no key
// between two operations.
type scratch struct {
	key     dek.Key
	binding keyring.Binding // block id
	aad     []byte          // of the sealed block: version | store id | block id
	row     engine.Row      // what was found of a block; the record of one that is put
}

// borrow returns a scratch that is bound to a block.
func (t *Table) borrow(id []byte) *scratch {
	sc := t.scratch.Get().(*scratch)
	t.bind(sc, id)
	return sc
}

// bind binds a scratch to a block.
func (t *Table) bind(sc *scratch, id []byte) {
	store := t.keys.StoreID()
	sc.aad = append(sc.aad[:0], blockVersion)
	sc.aad = append(sc.aad, store[:]...)
	sc.aad = append(sc.aad, id...)
	// The DEK record is bound to what follows the store id.
	sc.binding.Set(sc.aad[1+len(store):])
}

// giveBack destroys the scratch's key and returns it to the pool.
func (t *Table) giveBack(sc *scratch) {
	sc.key.Destroy()
	t.scratch.Put(sc)
}

// WatchDEKs has watch told of the memory for DEKs of all operations that begin from now on: tests
// look in it for DEKs that were left behind. No operation may be under way.
func (t *Table) WatchDEKs(watch func(*dek.Key)) {
	t.scratch = &sync.Pool{New: func() any {
		sc := new(scratch)
		watch(&sc.key)
		return sc
	}}
}

// Helpers returns how many helpers seal for batches, in all tables of the engine.
func (t *Table) Helpers() int { return len(t.helpers) }
