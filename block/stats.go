package block

import (
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
)

// Stats is a store at one moment: its access, what it has done since Open, and what
// it holds. Counters are read one after the other while the store goes on, so that
// two of them may differ by what happened in between. It has no secrets.
type Stats struct {
	Time     time.Time // when it was taken, by the keyring's clock
	StoreID  keyring.StoreID
	Instance string // as Store.Instance

	// State is as Store.State returns it: status, cause, since when, last check, KEK
	// version, epoch, dropped events. Keys is what the keyring has counted, and how
	// much of the lease is left.
	State keyring.State
	Keys  keyring.Stats
	// KEKAge is how long ago the KEK version that wraps the keyring was made, and
	// KEKLeft how long it is until it expires, negative after that. Zero: not known,
	// or never.
	KEKAge, KEKLeft time.Duration

	// Blocks and plaintext bytes that were read by Get, of the store and of
	// snapshots, and Gets that found no block.
	Gets, ReadBytes, NotFound uint64
	// Blocks and plaintext bytes that scans came by.
	Scanned, ScannedBytes uint64
	// Blocks and plaintext bytes that were put, deletions, alone or in a batch, and
	// batches that were committed.
	Puts, WrittenBytes, Deletes, Commits uint64
	// Failures counts operations that failed, by operation ("get", "has", "scan",
	// "put", "delete", "commit"; "verify": blocks that it found damaged; "rewrite":
	// rotations and rekeyings that one stopped) and kind ("inaccessible", "corrupt",
	// "version", "vault", "closed", "read_only", "stale", "canceled", "other").
	// Arguments that cannot be right are not counted.
	Failures map[string]map[string]uint64

	// RecordCache is the cache of wrapped DEK records, Rows that of sealed blocks.
	RecordCache, Rows CacheStats

	// Running is the long operations that are under way, and Last how the last of
	// each name ended, the latest first.
	Running, Last []Work

	// Engine is a part of what the storage engine says about itself. It is zero when
	// the store is closed.
	Engine EngineStats
}

// OpenFailures is how many blocks could not be opened, by kind: those of Failures
// that are about reading ("get", "scan", "verify", "rewrite").
func (s Stats) OpenFailures() map[string]uint64 {
	out := map[string]uint64{}
	for _, op := range []tally.Op{tally.Get, tally.Scan, tally.Verify, tally.Rewrite} {
		for kind, n := range s.Failures[tally.OpNames()[op]] {
			out[kind] += n
		}
	}
	return out
}

// FailureKind returns the kind under which [Stats].Failures counts an error of a store:
// "inaccessible", "corrupt", "version", "vault", "closed", "read_only", "stale",
// "canceled" or, for every other error, "other". The kind can be shown where an error's
// text, which may name a block, must not be. It is empty for nil.
func FailureKind(err error) string { return tally.Kind(err) }

// CacheStats is what a cache was asked, and holds.
type CacheStats struct {
	Hits, Misses uint64
	Entries      int
	// Bytes is the memory that it takes, and Limit the most that it may: the cache of
	// DEK records has all of its memory from the beginning. Zero: there is none.
	Bytes, Limit int64
}

// EngineStats is a part of Pebble's metrics: what an operator looks at. Sizes are in
// bytes; counts of what happened are since Open.
type EngineStats struct {
	DiskBytes     uint64 // all files
	WALBytes      uint64 // of the log that is still needed
	WALWritten    uint64 // to the log
	MemTableBytes uint64

	CacheBytes, CacheHits, CacheMisses uint64 // of Pebble's cache of sealed blocks
	FilterHits, FilterMisses           uint64 // of the filters: a hit saved a look into a table

	Flushes, Compactions, FailedCompactions uint64
	CompactionTime                          time.Duration
	CompactionDebt                          uint64 // what is to be compacted until the tree is at rest
	CompactionsRunning                      int
	FlushedBytes, CompactedBytes            uint64 // written, tables and blob files

	ReadAmplification int // tables that a look-up may have to go through
	BlobFiles         uint64
	BlobBytes         uint64
	Tombstones        uint64 // deletions that compactions have not yet removed
	ObsoleteBytes     uint64 // of files that are about to be removed
	Snapshots         int    // open ones

	LevelTables, LevelBytes []uint64 // of each level of the tree, from 0
}

// Stats returns the store's statistics. It waits for neither vault nor disk, and
// works in every state, also after Close. It takes some microseconds.
func (s *Store) Stats() Stats {
	n := s.counts.Sums()
	st := Stats{
		Time: s.keys.For(inner.Block{}).Now(), StoreID: s.StoreID(), Instance: s.Instance(), State: s.State(), Keys: s.keys.Stats(),
		Gets: n.Gets, ReadBytes: n.ReadBytes, NotFound: n.NotFound, Scanned: n.Scanned, ScannedBytes: n.ScannedBytes,
		Puts: n.Puts, WrittenBytes: n.WrittenBytes, Deletes: n.Deletes, Commits: n.Commits, Failures: n.Failures,
	}
	if !st.Keys.KEKCreated.IsZero() {
		st.KEKAge = max(0, st.Time.Sub(st.Keys.KEKCreated))
	}
	if !st.State.KEKExpires.IsZero() {
		st.KEKLeft = st.State.KEKExpires.Sub(st.Time)
	}
	records, rows := s.table.Caches()
	st.RecordCache, st.Rows = CacheStats(records), CacheStats(rows)
	st.Running, st.Last = s.works()

	if s.use.Begin() == nil {
		defer s.use.End()
		if db, ok := s.db.(engine.Meter); ok {
			st.Engine = EngineStats(db.Stats())
		}
	}
	return st
}
