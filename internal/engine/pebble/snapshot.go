package pebble

import (
	"io"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Snapshot is the engine at one moment. It is safe for concurrent use.
type Snapshot struct {
	s      *pebble.Snapshot
	guard  *guard
	counts *snapshots
}

// snapshots counts snapshots: a flush or compaction keeps what an open one sees; see purge.
type snapshots struct {
	begun atomic.Uint64
	open  atomic.Int64
}

// NewSnapshot returns the engine as it is now. The caller closes it once.
func (d *DB) NewSnapshot() *Snapshot {
	// It is counted first, so that none exists uncounted.
	d.snapshots.open.Add(1)
	d.snapshots.begun.Add(1)
	return &Snapshot{d.p.NewSnapshot(), d.guard, &d.snapshots}
}

// mark returns a function that reports whether no snapshot was open since.
func (s *snapshots) mark() (calm func() bool) {
	// In this order: a snapshot that begins in between is in both.
	begun := s.begun.Load()
	open := s.open.Load()
	return func() bool { return open == 0 && s.begun.Load() == begun }
}

// Get implements [Reader].
func (s *Snapshot) Get(key []byte) (v []byte, c io.Closer, err error) {
	defer s.guard.read(&err)
	v, c, err = s.s.Get(key)
	return v, c, translate(err)
}

// NewIter implements [Reader].
func (s *Snapshot) NewIter(lower, upper []byte) (*Iter, error) {
	it, err := s.s.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	return newIter(s.guard, it, err)
}

// Close releases the snapshot.
func (s *Snapshot) Close() error {
	defer s.counts.open.Add(-1)
	return translate(s.s.Close())
}
