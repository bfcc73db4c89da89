package pebble

import "github.com/blockseal/blockseal/internal/engine"

// Stats implements [engine.Meter].
func (d *DB) Stats() engine.Stats {
	if d.closed.Load() {
		return engine.Stats{}
	}
	m := d.p.Metrics()
	total := m.Total()
	st := engine.Stats{
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

// count returns one of Pebble's counts, which are signed and never negative.
func count(n int64) uint64 { return uint64(max(n, 0)) }
