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
	// What a Get of a row in the cache looks at comes first, and together; see block.Store.
	store  keyring.StoreID
	salt   uint64 // of the ids in the caches, which tables share
	common *Common

	Part   engine.Partition
	keys   *keyring.Keyring
	use    *Use
	wrote  func()
	judged atomic.Uint64 // the floor's revision that was last known before the document was looked at; see judge
	noSync bool
}

// Config configures a Table.
type Config struct {
	Part   engine.Partition
	Number uint32 // of the partition
	Keys   *keyring.Keyring
	Use    *Use
	Common *Common // nil: no caches, and an engine that is not shared
	NoSync bool    // commits need not be durable
	Wrote  func()  // is called after each write that was applied
}

// New returns the table of a store that has a keyring.
func New(c Config) *Table {
	t := new(Table)
	t.Init(c)
	return t
}

// Init makes a zero Table that of a store which has a keyring. So a store has its table in its own memory.
func (t *Table) Init(c Config) {
	if c.Common == nil {
		c.Common = NewCommon(Engine{}, 0, 0)
	}
	t.store, t.salt, t.common = c.Keys.StoreID(), c.Common.salt(c.Number), c.Common
	t.Part, t.keys, t.use, t.wrote, t.noSync = c.Part, c.Keys, c.Use, c.Wrote, c.NoSync
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
	sc := t.common.scratch.Get().(*scratch)
	t.bind(sc, id)
	return sc
}

// bind binds a scratch to a block.
func (t *Table) bind(sc *scratch, id []byte) {
	sc.aad = append(sc.aad[:0], blockVersion)
	sc.aad = append(sc.aad, t.store[:]...)
	sc.aad = append(sc.aad, id...)
	// The DEK record is bound to what follows the store id.
	sc.binding.Set(sc.aad[1+len(t.store):])
}

// giveBack destroys the scratch's key and returns it to the pool.
func (t *Table) giveBack(sc *scratch) {
	sc.key.Destroy()
	t.common.scratch.Put(sc)
}

// WatchDEKs has watch told of the memory for DEKs of all operations that begin from now on: tests
// look in it for DEKs that were left behind. No operation may be under way.
func (t *Table) WatchDEKs(watch func(*dek.Key)) {
	t.common.scratch = sync.Pool{New: func() any {
		sc := new(scratch)
		watch(&sc.key)
		return sc
	}}
}

// Helpers returns how many helpers seal for batches, in all tables of the engine.
func (t *Table) Helpers() int { return len(t.common.helpers) }
