package row

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
)

// Common is what the tables of all partitions of an engine share: its caches, the memory of their operations,
// and what is so of each of them. A table finds its rows in the caches by a hash that is mixed with one of its partition's
// number, so that two tables rarely meet, and where they do the row does not authenticate. It is safe
// for concurrent use.
type Common struct {
	Engine
	seed    maphash.Seed
	records *recordCache
	rows    *rowCache
	scratch sync.Pool // of *scratch
	helpers chan struct{}
}

// Engine says what tables have to know of their engine.
type Engine struct {
	Shared bool // other processes have the rows too, and the document; see engine.Sharer
	// Ready, if not nil, refuses reads with its error, also of what is in a cache: the engine does so for
	// its own part.
	Ready func() error
}

// NewCommon returns what the tables of an engine share, with caches of the given sizes in bytes; one that is
// not positive is no cache.
func NewCommon(e Engine, records, rows int64) *Common {
	c := &Common{Engine: e, seed: maphash.MakeSeed(), records: newRecordCache(records), rows: newRowCache(rows), helpers: make(chan struct{}, helperRoom())}
	c.scratch.New = func() any { return new(scratch) }
	return c
}

// salt is what a partition's hashes are mixed with. It is the same whenever the partition is opened
// again, so that what is in the caches then is found, and is true: nobody else has written it.
func (c *Common) salt(partition uint32) uint64 {
	var number [4]byte
	binary.BigEndian.PutUint32(number[:], partition)
	return maphash.Bytes(c.seed, number[:])
}

// Stats returns the counters of the record cache and of the row cache.
func (c *Common) Stats() (records, rows CacheStats) { return c.records.stats(), c.rows.stats() }

// Clear forgets the rows, because the engine was closed without a word on what it has made durable: they
// may be none that it has when it is opened again. Nobody reads the engine meanwhile. DEK records stay:
// they are trusted by nobody.
func (c *Common) Clear() { c.rows.clear() }
