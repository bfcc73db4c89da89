package row

import (
	"hash/maphash"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// recordCache holds wrapped DEK records, so that reading a block costs one look-up
// in the engine and not two. It holds nothing secret.
//
// A record is found by a 64-bit hash of the block's id, and the id itself is not
// kept: if two ids share a hash, or a record is stale, the record does not
// authenticate for the block (its AAD has the id, and its DEK does not open the
// block), and the reader takes the record from the engine instead. So the cache
// is never trusted, needs no pointers that the garbage collector would follow,
// and cannot serve a wrong block. It is safe for concurrent use.
type recordCache struct {
	seed    maphash.Seed
	buckets []bucket
	locks   [256]cacheLock
}

// cacheLock guards some buckets, and counts what is looked for in them and what they
// hold.
type cacheLock struct {
	sync.Mutex
	hits, misses uint64
	held         int
}

// stats returns what the cache was asked, and holds.
func (c *recordCache) stats() (t CacheStats) {
	if c == nil {
		return t
	}
	for i := range c.locks {
		l := &c.locks[i]
		l.Lock()
		t.Hits, t.Misses, t.Entries = t.Hits+l.hits, t.Misses+l.misses, t.Entries+l.held
		l.Unlock()
	}
	t.Bytes = int64(len(c.buckets)) * bucketSize // all of it from the beginning
	t.Limit = t.Bytes
	return t
}

// ways is how many records share a bucket.
const ways = 4

// bucket holds records of ByKeyring; those of ByKEK are not cached, because the
// vault call behind them costs a thousand times what the look-up does.
type bucket struct {
	hash   [ways]uint64 // 0: free
	record [ways][keyring.RecordSize]byte
	next   uint8 // the way that is replaced next
}

const bucketSize = ways*(8+keyring.RecordSize) + 8

func newRecordCache(bytes int64) *recordCache {
	n := bytes / bucketSize
	if n <= 0 {
		return nil
	}
	return &recordCache{seed: maphash.MakeSeed(), buckets: make([]bucket, n)}
}

// slot is where a block's record is kept.
type slot struct {
	hash   uint64
	bucket int
}

func (c *recordCache) slot(id []byte) slot {
	h := maphash.Bytes(c.seed, id) | 1 // never 0
	// The high bits choose the bucket by multiplication, which is as even as the
	// remainder and costs less.
	return slot{h, int((h >> 32) * uint64(len(c.buckets)) >> 32)}
}

func (c *recordCache) lock(s slot) *cacheLock {
	m := &c.locks[s.bucket%len(c.locks)]
	m.Lock()
	return m
}

// get appends the record of a block to dst and reports whether it has one.
func (c *recordCache) get(dst, id []byte) ([]byte, bool) {
	if c == nil {
		return dst, false
	}
	s := c.slot(id)
	l := c.lock(s)
	defer l.Unlock()
	b := &c.buckets[s.bucket]
	for i := range b.hash {
		if b.hash[i] == s.hash {
			l.hits++
			return append(dst, b.record[i][:]...), true
		}
	}
	l.misses++
	return dst, false
}

// put remembers the record of a block, in place of an older one.
func (c *recordCache) put(id, record []byte) { c.set(id, record, true) }

// replace is put of a block that the cache has a record of, and else does nothing: what
// goes over all blocks does not push out the records of those that are read.
func (c *recordCache) replace(id, record []byte) { c.set(id, record, false) }

func (c *recordCache) set(id, record []byte, add bool) {
	if c == nil {
		return
	}
	if len(record) != keyring.RecordSize {
		c.drop(id)
		return
	}
	s := c.slot(id)
	l := c.lock(s)
	defer l.Unlock()
	b := &c.buckets[s.bucket]
	way := -1
	for i := range b.hash {
		if b.hash[i] == s.hash {
			way = i
			break
		}
		if add && b.hash[i] == 0 && way < 0 {
			way = i
		}
	}
	if way < 0 {
		if !add {
			return
		}
		way = int(b.next) % ways
		b.next++
	}
	if b.hash[way] == 0 {
		l.held++
	}
	b.hash[way] = s.hash
	copy(b.record[way][:], record)
}

// drop forgets the record of a block.
func (c *recordCache) drop(id []byte) {
	if c == nil {
		return
	}
	s := c.slot(id)
	l := c.lock(s)
	defer l.Unlock()
	b := &c.buckets[s.bucket]
	for i := range b.hash {
		if b.hash[i] == s.hash {
			b.hash[i] = 0
			l.held--
		}
	}
}
