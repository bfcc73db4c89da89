package row

import (
	"encoding/binary"
	"sync"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/keyring"
)

// Table is the rows of one store. It is safe for concurrent use. Every use of the engine
// happens inside a hold of the keyring, or while a [Use] keeps the engine open, so that who
// closes the store, having ended both, finds the engine at rest.
type Table struct {
	Part engine.Partition

	use     *Use
	keys    *keyring.Keyring
	number  uint32 // of the partition, which each block is bound to
	noSync  bool
	changed func()
	records *recordCache
	rows    *rowCache
	scratch sync.Pool
}

// Config is what a Table is made of.
type Config struct {
	Part   engine.Partition
	Number uint32 // of the partition
	Keys   *keyring.Keyring
	Use    *Use
	// RecordCache and RowCache are the caches' memory in bytes; none, if they are not positive.
	RecordCache, RowCache int64
	NoSync                bool   // what is committed need not be durable
	Changed               func() // is called after each change that was applied
}

// New returns the table of a store whose keyring is there.
func New(c Config) *Table {
	t := &Table{Part: c.Part, number: c.Number, keys: c.Keys, use: c.Use, noSync: c.NoSync, changed: c.Changed,
		records: newRecordCache(c.RecordCache), rows: newRowCache(c.RowCache)}
	t.scratch.New = func() any { return new(scratch) }
	return t
}

// Bind is [Bind] for the table's own partition.
func (t *Table) Bind(b *keyring.Binding, id []byte) { Bind(b, t.number, id) }

// Caches returns what the caches of DEK records and of sealed blocks were asked, and hold.
func (t *Table) Caches() (records, rows CacheStats) { return t.records.stats(), t.rows.stats() }

// CacheStats is what a cache was asked, and holds.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
	Bytes, Limit int64 // of memory: that it takes, and may at the most; zero: there is no cache
}

// scratch is the memory of one operation, pooled, so that the hot paths allocate
// nothing but what the standard library's key set-up does.
type scratch struct {
	key     dek.Key
	binding keyring.Binding // partition | block id
	aad     []byte          // of the sealed block: version | store id | partition | block id
	row     engine.Row      // what was found of a block, and the record of one that is put
}

// take returns a scratch that is bound to a block.
func (t *Table) take(id []byte) *scratch {
	sc := t.scratch.Get().(*scratch)
	store := t.keys.StoreID()
	sc.aad = append(sc.aad[:0], blockVersion)
	sc.aad = append(sc.aad, store[:]...)
	sc.aad = binary.BigEndian.AppendUint32(sc.aad, t.number)
	sc.aad = append(sc.aad, id...)
	// What follows the store id is what the DEK record is bound to as well.
	sc.binding.Set(sc.aad[1+len(store):])
	return sc
}

// give returns a scratch with its key destroyed.
func (t *Table) give(sc *scratch) {
	sc.key.Destroy()
	t.scratch.Put(sc)
}

// WatchDEKs has the operations that begin from now on use memory of which watch is told, when
// it is made: for tests that look for DEKs which were left behind. No operation may be under way.
func (t *Table) WatchDEKs(watch func(*dek.Key)) {
	t.scratch = sync.Pool{New: func() any {
		sc := new(scratch)
		watch(&sc.key)
		return sc
	}}
}
