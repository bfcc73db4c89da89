package blockprom

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/block"
)

// sendEngine sends Pebble's own metrics.
func (m *metrics) sendEngine(e emitter, st block.EngineStats) {
	e.gauge(m.engineDisk, float64(st.DiskBytes))
	e.gauge(m.engineWAL, float64(st.WALBytes))
	e.count(m.engineWALWritten, st.WALWritten)
	e.gauge(m.engineMemTable, float64(st.MemTableBytes))
	e.gauge(m.engineCache, float64(st.CacheBytes))
	e.count(m.engineLookups, st.CacheHits, "block", "hit")
	e.count(m.engineLookups, st.CacheMisses, "block", "miss")
	e.count(m.engineLookups, st.FilterHits, "filter", "hit")
	e.count(m.engineLookups, st.FilterMisses, "filter", "miss")
	e.count(m.engineFlushes, st.Flushes)
	e.count(m.engineCompactions, st.Compactions)
	e.count(m.engineCompactionsFailed, st.FailedCompactions)
	e.value(m.engineCompactionTime, prometheus.CounterValue, st.CompactionTime.Seconds(), nil)
	e.gauge(m.engineDebt, float64(st.CompactionDebt))
	e.gauge(m.engineCompacting, float64(st.CompactionsRunning))
	e.count(m.engineWritten, st.FlushedBytes, "flush")
	e.count(m.engineWritten, st.CompactedBytes, "compaction")
	e.gauge(m.engineReadAmp, float64(st.ReadAmplification))
	e.gauge(m.engineBlobFiles, float64(st.BlobFiles))
	e.gauge(m.engineBlobBytes, float64(st.BlobBytes))
	e.gauge(m.engineTombstones, float64(st.Tombstones))
	e.gauge(m.engineObsolete, float64(st.ObsoleteBytes))
	e.gauge(m.engineSnapshots, float64(st.Snapshots))
	for i := range st.LevelTables {
		level := strconv.Itoa(i)
		e.gauge(m.engineTables, float64(st.LevelTables[i]), level)
		e.gauge(m.engineTableBytes, float64(st.LevelBytes[i]), level)
	}
}
