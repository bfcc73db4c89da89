package row

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
)

// Caches is what the tables of all partitions of an engine share: its caches, and the memory of their
// operations. A table finds its rows in the caches by a hash that is mixed with one of its partition's
// number, so that two tables rarely meet, and where they do the row does not authenticate. It is safe
// for concurrent use.
type Caches struct {
	seed    maphash.Seed
	records *recordCache
	rows    *rowCache
	scratch sync.Pool // of *scratch
	helpers chan struct{}
}

// NewCaches returns caches of the given sizes in bytes; one that is not positive is no cache.
func NewCaches(records, rows int64) *Caches {
	c := &Caches{seed: maphash.MakeSeed(), records: newRecordCache(records), rows: newRowCache(rows), helpers: make(chan struct{}, helperRoom())}
	c.scratch.New = func() any { return new(scratch) }
	return c
}

// salt is what a partition's hashes are mixed with. It is the same whenever the partition is opened
// again, so that what is in the caches then is found, and is true: nobody else has written it.
func (c *Caches) salt(partition uint32) uint64 {
	var number [4]byte
	binary.BigEndian.PutUint32(number[:], partition)
	return maphash.Bytes(c.seed, number[:])
}

// Stats returns the counters of the record cache and of the row cache.
func (c *Caches) Stats() (records, rows CacheStats) { return c.records.stats(), c.rows.stats() }

// Clear forgets the rows, because the engine was closed without a word on what it has made durable: they
// may be none that it has when it is opened again. Nobody reads the engine meanwhile. DEK records stay:
// they are trusted by nobody.
func (c *Caches) Clear() { c.rows.clear() }
