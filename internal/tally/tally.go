// Package tally counts what a store was asked, and how that failed. It adds little to the hot
// paths, whose counters are spread over cache lines.
package tally

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/internal/spread"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// line has the counters of the hot paths: one addition for each operation, on a cache line that
// the core already has. It fills one.
type line struct {
	sizes           [kindsOfSize]atomic.Uint64 // a word for each; see Counts.add
	misses, deletes atomic.Uint64
	_               [24]byte
}

// What has a count and bytes.
const (
	gets = iota
	scanned
	puts
	kindsOfSize
)

// A word has a count in its upper bits and bytes in its lower ones, so that one addition counts both. It is
// emptied into the sums when half of either is used.
const (
	sizeBits = 40 // of the bytes; 8,192 goroutines can add 64 MiB each before they overflow
	sizeFull = 1<<63 | 1<<(sizeBits-1)
)

// Room is memory for the Counts of several stores.
type Room = spread.Room[line]

// NewRoom returns a Room.
func NewRoom() *Room {
	return spread.NewRoom(func(l *line) {
		for i := range l.sizes {
			l.sizes[i].Store(0)
		}
		l.misses.Store(0)
		l.deletes.Store(0)
	})
}

// Counts is what a store counts. It is safe for concurrent use once it was begun.
type Counts struct {
	lines spread.Lines[line]
	*cold
}

// cold is what is counted rarely.
type cold struct {
	commits atomic.Uint64

	mu   sync.Mutex // held while words are emptied, so that no reader sees less than before
	sums [kindsOfSize]sum

	// failures counts failed operations by operation and kind. Failures are rare and have no lines.
	failures [ops][kinds]atomic.Uint64
}

type sum struct{ n, bytes uint64 }

// Begin makes the zero Counts ready. Their lines are in the room, or with nil in memory of their own.
func (c *Counts) Begin(r *Room) {
	c.cold = new(cold)
	if r == nil {
		c.lines = spread.New[line]()
		return
	}
	c.lines = spread.Take(r, c)
}

// add counts one of what has a size.
func (c *Counts) add(of int, bytes int) {
	if c.lines.Mine().sizes[of].Add(1<<sizeBits+uint64(bytes))&sizeFull != 0 {
		c.empty()
	}
	runtime.KeepAlive(c)
}

// addMany counts n at once.
func (c *Counts) addMany(of int, n, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sums[of].n += n
	c.sums[of].bytes += bytes
}

// empty empties all words into the sums, and returns these.
func (c *Counts) empty() [kindsOfSize]sum {
	c.mu.Lock()
	defer c.mu.Unlock()
	for l := range c.lines.All() {
		for of := range l.sizes {
			word := l.sizes[of].Swap(0)
			c.sums[of].n += word >> sizeBits
			c.sums[of].bytes += word & (1<<sizeBits - 1)
		}
	}
	return c.sums
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
		c.add(gets, n)
	case errors.Is(err, row.ErrNotFound):
		c.lines.Mine().misses.Add(1)
		runtime.KeepAlive(c)
	default:
		c.Fail(Get, err)
	}
}

// Scanned counts a block of n bytes that a scan yielded.
func (c *Counts) Scanned(n int) { c.add(scanned, n) }

// Put counts a Put of n bytes, or its failure.
func (c *Counts) Put(n int, err error) {
	if c.Fail(Put, err) == nil {
		c.add(puts, n)
	}
}

// Deleted counts a Delete, or its failure.
func (c *Counts) Deleted(err error) {
	if c.Fail(Delete, err) == nil {
		c.lines.Mine().deletes.Add(1)
		runtime.KeepAlive(c)
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
		c.addMany(puts, b.puts, b.bytes)
		c.lines.Mine().deletes.Add(b.deletes)
		runtime.KeepAlive(c)
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
	sums := c.empty()
	s.Gets, s.ReadBytes = s.Gets+sums[gets].n, s.ReadBytes+sums[gets].bytes
	s.Scanned, s.ScannedBytes = s.Scanned+sums[scanned].n, s.ScannedBytes+sums[scanned].bytes
	s.Puts, s.WrittenBytes = s.Puts+sums[puts].n, s.WrittenBytes+sums[puts].bytes
	for l := range c.lines.All() {
		s.NotFound += l.misses.Load()
		s.Deletes += l.deletes.Load()
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
