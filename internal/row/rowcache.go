package row

import (
	"hash/maphash"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// rowCache holds sealed blocks, each with its DEK record, as they are in the engine,
// so that reading a hot block costs no look-up there. It holds nothing secret: a row
// is opened and authenticated by each Get, as if the engine had returned it.
//
// A row must never be older than what the engine would return. Every change of a
// block is therefore announced before it is applied, which removes the row, and
// reported afterwards; and a reader may add what it read from the engine only if no
// change of the row's shard was announced since before it looked, and none was under
// way then. What replaces a record or a DEK and leaves the plaintext as it is
// (RotateEpoch, Rekey) is not announced: an old row opens to the same bytes, or no
// longer opens, and then the engine is asked.
//
// Rows are found by a 64-bit hash of the block's id. Where two ids share one, the
// row does not authenticate for the other.
//
// A rowCache is safe for concurrent use; a nil one is empty.
type rowCache struct {
	seed   maphash.Seed
	limit  int // of a shard, in bytes
	shards [rowShards]rowShard
}

const (
	rowShards = 64
	// rowOverhead is about what a row takes besides its bytes: itself, its place in
	// the map and in the ring.
	rowOverhead = 128
)

type rowShard struct {
	mu    sync.Mutex
	rows  map[uint64]*row
	ring  []*row // in no order; hand goes round, and evicts what was not used since
	hand  int
	bytes int

	underWay int    // changes announced and not yet reported
	changes  uint64 // announced so far

	// seen remembers the hashes that were missed lately, by their low bits. A block
	// is kept when it is missed again, so that a walk over all of them does not
	// replace the rows that are in use.
	seen []uint32

	hits, misses uint64
	_            [16]byte // to the end of a cache line
}

// row is immutable but for the fields that say where it is, and used.
type row struct {
	data []byte // record | sealed block
	hash uint64
	at   int // in the ring
	used bool
}

func (r *row) record() []byte { return r.data[:keyring.RecordSize] }
func (r *row) sealed() []byte { return r.data[keyring.RecordSize:] }

func newRowCache(bytes int64) *rowCache {
	c := &rowCache{seed: maphash.MakeSeed(), limit: int(bytes / rowShards)}
	if c.limit <= rowOverhead {
		return nil
	}
	n := 64
	for n < c.limit/1024 {
		n *= 2
	}
	for i := range c.shards {
		c.shards[i].rows = map[uint64]*row{}
		c.shards[i].seen = make([]uint32, n)
	}
	return c
}

// ticket is the right to add a block that is read from the engine from now on, if
// nothing changes it meanwhile. The zero ticket is none.
type ticket struct {
	hash    uint64
	changes uint64
	valid   bool
}

func (c *rowCache) hash(id []byte) uint64 { return maphash.Bytes(c.seed, id) }

func (c *rowCache) shard(hash uint64) *rowShard { return &c.shards[hash>>58%rowShards] }

// get returns the row of a block, or nil and a ticket.
func (c *rowCache) get(id []byte) (*row, ticket) {
	if c == nil {
		return nil, ticket{}
	}
	hash := c.hash(id)
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.rows[hash]; r != nil {
		r.used = true
		s.hits++
		return r, ticket{}
	}
	s.misses++
	seen := &s.seen[hash%uint64(len(s.seen))]
	again := *seen == uint32(hash>>24)
	*seen = uint32(hash >> 24)
	return nil, ticket{hash, s.changes, again && s.underWay == 0}
}

// add keeps a block that was read from the engine after the ticket was drawn.
func (c *rowCache) add(t ticket, record, sealed []byte) {
	size := len(record) + len(sealed)
	if !t.valid || len(record) != keyring.RecordSize || size+rowOverhead > c.limit {
		return
	}
	// Outside the lock, and for nothing if a change came in between.
	data := append(append(make([]byte, 0, size), record...), sealed...)
	s := c.shard(t.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != t.changes || s.rows[t.hash] != nil {
		return
	}
	for s.bytes+size+rowOverhead > c.limit {
		s.evict()
	}
	r := &row{data: data, hash: t.hash, at: len(s.ring)}
	s.rows[t.hash] = r
	s.ring = append(s.ring, r)
	s.bytes += size + rowOverhead
}

// evict removes one row that was not used since the hand passed it before.
func (s *rowShard) evict() {
	for {
		if s.hand >= len(s.ring) {
			s.hand = 0
		}
		r := s.ring[s.hand]
		if !r.used {
			s.remove(r)
			return
		}
		r.used = false
		s.hand++
	}
}

func (s *rowShard) remove(r *row) {
	delete(s.rows, r.hash)
	s.bytes -= len(r.data) + rowOverhead
	last := s.ring[len(s.ring)-1]
	s.ring[r.at], last.at = last, r.at
	s.ring[len(s.ring)-1] = nil
	s.ring = s.ring[:len(s.ring)-1]
}

// drop removes a row that did not open.
func (c *rowCache) drop(r *row) {
	s := c.shard(r.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows[r.hash] == r {
		s.remove(r)
	}
}

// announce says that a block is about to be changed. What it returns is for report,
// after the change was applied or has failed.
func (c *rowCache) announce(id []byte) uint64 {
	if c == nil {
		return 0
	}
	hash := c.hash(id)
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay++
	s.changes++
	if r := s.rows[hash]; r != nil {
		s.remove(r)
	}
	return hash
}

func (c *rowCache) report(hash uint64) {
	if c == nil {
		return
	}
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay--
}

// stats returns what the cache was asked, and holds.
func (c *rowCache) stats() (t CacheStats) {
	if c == nil {
		return t
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		t.Hits += s.hits
		t.Misses += s.misses
		t.Entries += len(s.rows)
		t.Bytes += int64(s.bytes)
		s.mu.Unlock()
	}
	t.Limit = int64(c.limit) * rowShards
	return t
}
