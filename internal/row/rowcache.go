package row

import (
	"hash/maphash"
	"slices"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// rowCache keeps sealed blocks with their DEK records, which saves a Get of a hot block both
// look-ups. Each Get opens and authenticates the row, as if the engine had returned it. It holds no
// secret, and is safe for concurrent use; a nil one is empty.
//
// A row must never be older than what the engine would return. So each write of a block is
// announced before it is applied, which removes the row, and reported afterwards. A reader may add
// what it read only if, since before it looked, no write of the row's shard was announced or under
// way. RotateEpoch and Rekey announce nothing: an old row opens to the same bytes, or does not
// open. docs/adr/0007-row-cache.md has the argument.
//
// Rows are found by a 64-bit hash of the block's id. A row of another id with the same hash does
// not authenticate.
type rowCache struct {
	seed   maphash.Seed
	limit  int // bytes of a shard
	shards [rowShards]rowShard
}

const (
	rowShards = 64
	// rowOverhead is about the size of a row besides its bytes: the struct, and its places in the
	// map and in the ring.
	rowOverhead = 128
)

type rowShard struct {
	mu    sync.Mutex
	rows  map[uint64]*row
	ring  []*row // in no order; hand goes round it and evicts rows that were not used since
	hand  int
	bytes int

	underWay int    // writes announced and not reported
	writes   uint64 // writes announced

	// seen has the hashes that were missed lately, by their low bits. A block is kept when it is
	// missed again, so that a walk over all blocks does not replace the rows in use.
	seen []uint32

	hits, misses uint64
	_            [16]byte // fills the cache line
}

// row is immutable but for at and used.
type row struct {
	data []byte // record | sealed block
	hash uint64
	salt uint64 // of its table
	at   int    // index in the ring
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

// ticket is the right to add a block that is read from now on, if nobody writes it meanwhile. The
// zero ticket grants nothing.
type ticket struct {
	hash   uint64
	salt   uint64
	writes uint64
	valid  bool
}

func (c *rowCache) hash(salt uint64, id []byte) uint64 { return maphash.Bytes(c.seed, id) ^ salt }

func (c *rowCache) shard(hash uint64) *rowShard { return &c.shards[hash>>58%rowShards] }

// get returns a block's row, or nil and a ticket.
func (c *rowCache) get(salt uint64, id []byte) (*row, ticket) {
	if c == nil {
		return nil, ticket{}
	}
	hash := c.hash(salt, id)
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
	return nil, ticket{hash, salt, s.writes, again && s.underWay == 0}
}

// add keeps a block that was read from the engine after get returned the ticket.
func (c *rowCache) add(t ticket, record, sealed []byte) {
	size := len(record) + len(sealed)
	if !t.valid || len(record) != keyring.RecordSize || size+rowOverhead > c.limit {
		return
	}
	// This runs outside the lock, for nothing if a write came in between.
	data := append(append(make([]byte, 0, size), record...), sealed...)
	s := c.shard(t.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writes != t.writes || s.rows[t.hash] != nil {
		return
	}
	for s.bytes+size+rowOverhead > c.limit {
		s.evict()
	}
	r := &row{data: data, hash: t.hash, salt: t.salt, at: len(s.ring)}
	s.rows[t.hash] = r
	s.ring = append(s.ring, r)
	s.bytes += size + rowOverhead
}

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

func (c *rowCache) drop(r *row) {
	s := c.shard(r.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows[r.hash] == r {
		s.remove(r)
	}
}

// clear removes all rows, and what is being read is not added any more.
func (c *rowCache) clear() {
	if c == nil {
		return
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.writes++
		for len(s.ring) > 0 {
			s.remove(s.ring[0])
		}
		s.hand = 0
		s.mu.Unlock()
	}
}

// announce removes the row of a block that is about to be written. report follows with the hash
// that it returns, when the write was applied or has failed.
func (c *rowCache) announce(salt uint64, id []byte) uint64 {
	if c == nil {
		return 0
	}
	hash := c.hash(salt, id)
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.underWay++
	s.writes++
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

// announceAll is announce for a write of any number of blocks of one table, and reported reports it.
// Meanwhile no table adds rows.
func (c *rowCache) announceAll(salt uint64) (reported func()) {
	if c == nil {
		return func() {}
	}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.underWay++
		s.writes++
		for _, r := range slices.Clone(s.ring) {
			if r.salt == salt {
				s.remove(r)
			}
		}
		s.mu.Unlock()
	}
	return func() {
		for i := range c.shards {
			s := &c.shards[i]
			s.mu.Lock()
			s.underWay--
			s.mu.Unlock()
		}
	}
}

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
