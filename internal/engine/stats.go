package engine

import "time"

// Stats is a part of Pebble's metrics: what an operator looks at. Sizes are in
// bytes; counts of what happened are since the engine was opened.
type Stats struct {
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

// Stats returns the engine's statistics.
func (d *DB) Stats() Stats {
	m := d.p.Metrics()
	total := m.Total()
	st := Stats{
		DiskBytes: m.DiskSpaceUsage(), WALBytes: m.WAL.Size, WALWritten: m.WAL.BytesWritten, MemTableBytes: m.MemTable.Size,
		CacheBytes: count(m.BlockCache.Size), CacheHits: count(m.BlockCache.Hits), CacheMisses: count(m.BlockCache.Misses),
		FilterHits: count(m.Filter.Hits), FilterMisses: count(m.Filter.Misses),
		Flushes: count(m.Flush.Count), Compactions: count(m.Compact.Count), FailedCompactions: count(m.Compact.FailedCount),
		CompactionTime: m.Compact.Duration, CompactionDebt: m.Compact.EstimatedDebt, CompactionsRunning: int(m.Compact.NumInProgress),
		FlushedBytes:      total.TableBytesFlushed + total.BlobBytesFlushed,
		CompactedBytes:    total.TableBytesCompacted + total.BlobBytesCompacted,
		ReadAmplification: m.ReadAmp(), BlobFiles: m.BlobFiles.LiveCount, BlobBytes: m.BlobFiles.LiveSize,
		Tombstones: m.Keys.TombstoneCount, ObsoleteBytes: m.Table.ObsoleteSize + m.BlobFiles.ObsoleteSize, Snapshots: m.Snapshots.Count,
	}
	for _, l := range m.Levels {
		st.LevelTables = append(st.LevelTables, count(l.TablesCount))
		st.LevelBytes = append(st.LevelBytes, count(l.TablesSize))
	}
	return st
}

// count makes a count of Pebble's, which are signed and never negative, unsigned.
func count(n int64) uint64 { return uint64(max(n, 0)) }
