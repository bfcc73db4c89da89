package block

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/blockseal/blockseal/vault"
)

// countShards is how many copies of the counters there are, so that cores do not
// fight for one cache line. A power of two.
const countShards = 32

// countShard is what is counted on the hot paths: one addition for each operation, on
// a cache line that the core has already. It fills two cache lines.
type countShard struct {
	gets, scanned, puts sizes
	misses, deletes     atomic.Uint64
	_                   [16]byte
}

// sizes counts things and their bytes with one atomic addition: a word holds both,
// the count above and the bytes below, until half of either is full, and is then
// emptied into the sums.
type sizes struct {
	word atomic.Uint64

	mu       sync.Mutex // what empties the word holds it, so that no reader sees less than before
	n, bytes uint64
}

const (
	sizeBits = 40 // of the bytes; 8,192 goroutines can add 64 MiB each before they run over
	sizeFull = 1<<63 | 1<<(sizeBits-1)
)

func (s *sizes) add(bytes int) {
	if s.word.Add(1<<sizeBits+uint64(bytes))&sizeFull != 0 {
		s.sums()
	}
}

// sums empties the word, and returns how many things there were, and their bytes.
func (s *sizes) sums() (n, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	word := s.word.Swap(0)
	s.n += word >> sizeBits
	s.bytes += word & (1<<sizeBits - 1)
	return s.n, s.bytes
}

// addTo adds them to n and bytes.
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

// counts is what a store counts.
type counts struct {
	shards  [countShards]countShard
	commits atomic.Uint64
	// failures counts operations that failed, by operation and kind. Failures need
	// no shards.
	failures [failureOps][failureKinds]atomic.Uint64
}

// shard chooses the counters by where the goroutine's stack is: goroutines that run
// at the same time mostly have different ones. Any choice is correct.
func (c *counts) shard() *countShard {
	var here byte
	p := uintptr(unsafe.Pointer(&here))
	return &c.shards[(p>>11^p>>16)%countShards]
}

// failureOp is an operation that can fail.
type failureOp uint8

const (
	failedGet failureOp = iota
	failedScan
	failedPut
	failedDelete
	failedCommit
	failedVerify
	failedHas
	failedRewrite
	failureOps
)

// failureOpNames are stable: they are values of a metric's label.
func failureOpNames() [failureOps]string {
	return [failureOps]string{"get", "scan", "put", "delete", "commit", "verify", "has", "rewrite"}
}

// failureKinds is how many kinds there are; the last is "other".
const failureKinds = 9

// failureKindNames are stable: they are values of a metric's label.
func failureKindNames() [failureKinds]string {
	return [failureKinds]string{"inaccessible", "corrupt", "version", "vault", "closed", "read_only", "stale", "canceled", "other"}
}

// FailureKind returns the kind under which [Stats].Failures counts an error of a store:
// "inaccessible", "corrupt", "version", "vault", "closed", "read_only", "stale",
// "canceled" or, for every other error, "other". The kind can be shown where an error's
// text, which may name a block, must not be. It is empty for nil.
func FailureKind(err error) string {
	if err == nil {
		return ""
	}
	return failureKindNames()[failureKindOf(err)]
}

// failureKindOf classifies an error, the first kind that it matches.
func failureKindOf(err error) int {
	of := [failureKinds - 1]func(error) bool{
		is(ErrInaccessible), is(ErrCorrupt), is(ErrVersion),
		func(err error) bool { return vault.Kind(err) != nil },
		is(ErrClosed), is(ErrReadOnly), is(ErrStale),
		func(err error) bool {
			return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		},
	}
	for i, match := range of {
		if match(err) {
			return i
		}
	}
	return failureKinds - 1
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// fail counts a failure, if there is one, and passes it on.
func (c *counts) fail(op failureOp, err error) error {
	if err != nil {
		c.failures[op][failureKindOf(err)].Add(1)
	}
	return err
}

// get counts a Get that found n bytes, or none, or failed.
func (c *counts) get(n int, err error) {
	switch {
	case err == nil:
		c.shard().gets.add(n)
	case errors.Is(err, ErrNotFound):
		c.shard().misses.Add(1)
	default:
		c.fail(failedGet, err)
	}
}

// scan counts a block of n bytes that a scan came by.
func (c *counts) scan(n int) { c.shard().scanned.add(n) }

// put counts a Put of n bytes.
func (c *counts) put(n int, err error) {
	if c.fail(failedPut, err) == nil {
		c.shard().puts.add(n)
	}
}

// deleted counts a Delete.
func (c *counts) deleted(err error) {
	if c.fail(failedDelete, err) == nil {
		c.shard().deletes.Add(1)
	}
}

// tally is what a batch has in it, which counts when it is committed.
type tally struct{ puts, deletes, bytes uint64 }

func (t *tally) put(n int) { t.puts++; t.bytes += uint64(n) }

// commit counts the Commit of a batch.
func (c *counts) commit(t tally, err error) {
	if c.fail(failedCommit, err) == nil {
		c.commits.Add(1)
		sh := c.shard()
		sh.puts.addMany(t.puts, t.bytes)
		sh.deletes.Add(t.deletes)
	}
}
