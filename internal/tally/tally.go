// Package tally counts what a store was asked, and how that failed. It adds little to the hot
// paths, whose counters are spread over cache lines.
package tally

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// shards is the number of copies of the counters, so that cores do not fight for one cache line. It
// is a power of two.
const shards = 32

// shard has the counters of the hot paths: one addition for each operation, on a cache line that
// the core already has. It fills two cache lines.
type shard struct {
	gets, scanned, puts sizes
	misses, deletes     atomic.Uint64
	_                   [16]byte
}

// sizes counts things and their bytes with one atomic addition. A word has the count in its upper
// bits and the bytes in its lower ones, and is emptied into the sums when half of either is used.
type sizes struct {
	word atomic.Uint64

	mu       sync.Mutex // held while the word is emptied, so that no reader sees less than before
	n, bytes uint64
}

const (
	sizeBits = 40 // of the bytes; 8,192 goroutines can add 64 MiB each before they overflow
	sizeFull = 1<<63 | 1<<(sizeBits-1)
)

func (s *sizes) add(bytes int) {
	if s.word.Add(1<<sizeBits+uint64(bytes))&sizeFull != 0 {
		s.sums()
	}
}

// sums empties the word and returns the count and the bytes so far.
func (s *sizes) sums() (n, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	word := s.word.Swap(0)
	s.n += word >> sizeBits
	s.bytes += word & (1<<sizeBits - 1)
	return s.n, s.bytes
}

func (s *sizes) addTo(n, bytes *uint64) {
	a, b := s.sums()
	*n += a
	*bytes += b
}

// addMany counts n things at once.
func (s *sizes) addMany(n, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n += n
	s.bytes += bytes
}

// Counts is what a store counts. It is safe for concurrent use; the zero Counts is ready.
type Counts struct {
	shards  [shards]shard
	commits atomic.Uint64
	// failures counts failed operations by operation and kind. Failures are rare and need no
	// shards.
	failures [ops][kinds]atomic.Uint64
}

// shard chooses a shard by the address of the goroutine's stack: goroutines that run at the same
// time mostly get different ones. Any choice is correct.
func (c *Counts) shard() *shard {
	var here byte
	p := uintptr(unsafe.Pointer(&here))
	return &c.shards[(p>>11^p>>16)%shards]
}

// Op is an operation that can fail.
type Op uint8

const (
	Get Op = iota
	Scan
	Put
	Delete
	Commit
	Verify
	Has
	Rewrite
	ops
)

// OpNames returns the values of a metric's label, which are stable.
func OpNames() [ops]string {
	return [ops]string{"get", "scan", "put", "delete", "commit", "verify", "has", "rewrite"}
}

// kinds is the number of kinds; the last is "other".
const kinds = 9

// kindNames are the values of a metric's label, which are stable.
func kindNames() [kinds]string {
	return [kinds]string{"inaccessible", "corrupt", "version", "vault", "closed", "read_only", "stale", "canceled", "other"}
}

// Kind returns the kind of an error; empty for nil.
func Kind(err error) string {
	if err == nil {
		return ""
	}
	return kindNames()[kindOf(err)]
}

// kindOf returns the first kind that an error matches.
func kindOf(err error) int {
	of := [kinds - 1]func(error) bool{
		is(keyring.ErrInaccessible), is(keyring.ErrCorrupt), is(keyring.ErrVersion),
		func(err error) bool { return vault.Kind(err) != nil },
		is(keyring.ErrClosed), is(keyring.ErrReadOnly), is(row.ErrStale),
		func(err error) bool {
			return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		},
	}
	for i, match := range of {
		if match(err) {
			return i
		}
	}
	return kinds - 1
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// Fail counts err, if it is not nil, and returns it.
func (c *Counts) Fail(op Op, err error) error {
	if err != nil {
		c.failures[op][kindOf(err)].Add(1)
	}
	return err
}

// Got counts a Get that found n bytes, found no block, or failed.
func (c *Counts) Got(n int, err error) {
	switch {
	case err == nil:
		c.shard().gets.add(n)
	case errors.Is(err, row.ErrNotFound):
		c.shard().misses.Add(1)
	default:
		c.Fail(Get, err)
	}
}

// Scanned counts a block of n bytes that a scan yielded.
func (c *Counts) Scanned(n int) { c.shard().scanned.add(n) }

// Put counts a Put of n bytes, or its failure.
func (c *Counts) Put(n int, err error) {
	if c.Fail(Put, err) == nil {
		c.shard().puts.add(n)
	}
}

// Deleted counts a Delete, or its failure.
func (c *Counts) Deleted(err error) {
	if c.Fail(Delete, err) == nil {
		c.shard().deletes.Add(1)
	}
}

// Batch counts what a batch has in it, for Committed.
type Batch struct{ puts, deletes, bytes uint64 }

// Put counts a block of n bytes.
func (b *Batch) Put(n int) { b.puts++; b.bytes += uint64(n) }

// Delete counts a deletion.
func (b *Batch) Delete() { b.deletes++ }

// Committed counts the Commit of a batch, or its failure.
func (c *Counts) Committed(b Batch, err error) {
	if c.Fail(Commit, err) == nil {
		c.commits.Add(1)
		sh := c.shard()
		sh.puts.addMany(b.puts, b.bytes)
		sh.deletes.Add(b.deletes)
	}
}

// Sums is what was counted.
type Sums struct {
	Gets, ReadBytes, NotFound            uint64
	Scanned, ScannedBytes                uint64
	Puts, WrittenBytes, Deletes, Commits uint64
	Failures                             map[string]map[string]uint64 // by operation and kind
}

// Sums returns what was counted so far. It reads the counters one after the other.
func (c *Counts) Sums() Sums {
	var t Total
	t.Add(c)
	return t.Sums()
}

// Total is what several Counts have counted.
type Total struct {
	sums     Sums // without Failures
	failures [ops][kinds]uint64
}

// Add adds what was counted so far. It reads the counters one after the other.
func (t *Total) Add(c *Counts) {
	s := &t.sums
	s.Commits += c.commits.Load()
	for i := range c.shards {
		sh := &c.shards[i]
		sh.gets.addTo(&s.Gets, &s.ReadBytes)
		sh.scanned.addTo(&s.Scanned, &s.ScannedBytes)
		sh.puts.addTo(&s.Puts, &s.WrittenBytes)
		s.NotFound += sh.misses.Load()
		s.Deletes += sh.deletes.Load()
	}
	for op := range c.failures {
		for kind := range c.failures[op] {
			t.failures[op][kind] += c.failures[op][kind].Load()
		}
	}
}

// Sums returns the total.
func (t *Total) Sums() Sums {
	s := t.sums
	s.Failures = map[string]map[string]uint64{}
	for op, name := range OpNames() {
		kinds := map[string]uint64{}
		for i, kind := range kindNames() {
			kinds[kind] = t.failures[op][i]
		}
		s.Failures[name] = kinds
	}
	return s
}

// Corrupt returns how often something did not authenticate.
func (c *Counts) Corrupt() (n uint64) {
	const corrupt = 1 // of kindNames
	for op := range c.failures {
		n += c.failures[op][corrupt].Load()
	}
	return n
}
