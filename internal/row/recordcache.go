package row

import (
	"hash/maphash"
	"sync"

	"github.com/blockseal/blockseal/keyring"
)

// recordCache keeps wrapped DEK records, which saves a reader one of two look-ups. It is never
// trusted: a record is found by a 64-bit hash of its block's id, and a wrong or stale one does not
// authenticate, so that the reader asks the engine (docs/adr/0004-record-cache.md). It holds no
// secret and no pointers, and is safe for concurrent use.
type recordCache struct {
	seed    maphash.Seed
	buckets []bucket
	locks   [256]cacheLock
}

// cacheLock guards some buckets and has their counters.
type cacheLock struct {
	sync.Mutex
	hits, misses uint64
	held         int
}

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

// bucket holds records of ByKeyring only: the vault call behind one of ByKEK costs a thousand times
// the look-up.
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

type slot struct {
	hash   uint64
	bucket int
}

func (c *recordCache) slot(salt uint64, id []byte) slot {
	h := (maphash.Bytes(c.seed, id) ^ salt) | 1 // never 0
	// Multiplication by the high bits spreads as evenly as a remainder, and costs less.
	return slot{h, int((h >> 32) * uint64(len(c.buckets)) >> 32)}
}

func (c *recordCache) lock(s slot) *cacheLock {
	m := &c.locks[s.bucket%len(c.locks)]
	m.Lock()
	return m
}

// get appends a block's record to dst and reports whether the cache has one.
func (c *recordCache) get(salt uint64, dst, id []byte) ([]byte, bool) {
	if c == nil {
		return dst, false
	}
	s := c.slot(salt, id)
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

// put stores a block's record, in place of an older one.
func (c *recordCache) put(salt uint64, id, record []byte) { c.set(salt, id, record, true) }

// replace is put for a block that the cache has a record of, and else does nothing: an operation
// over all blocks does not push out the records of those that are read.
func (c *recordCache) replace(salt uint64, id, record []byte) { c.set(salt, id, record, false) }

func (c *recordCache) set(salt uint64, id, record []byte, add bool) {
	if c == nil {
		return
	}
	if len(record) != keyring.RecordSize {
		c.drop(salt, id)
		return
	}
	s := c.slot(salt, id)
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

// drop removes a block's record.
func (c *recordCache) drop(salt uint64, id []byte) {
	if c == nil {
		return
	}
	s := c.slot(salt, id)
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
