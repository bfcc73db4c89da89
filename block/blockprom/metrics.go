package blockprom

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has the descriptions of a store's metrics. Names and labels are stable; docs/metrics.md
// lists them.
type metrics struct {
	all    []*prometheus.Desc
	prefix string // of the names
	labels prometheus.Labels

	state, stateSince, leaseLeft, lease, lastCheck, lastSuccess               *prometheus.Desc
	kekInfo, kekCreated, kekExpires, generation                               *prometheus.Desc
	epochs, epoch, epochCreated, epochDEKs, epochMaxDEKs                      *prometheus.Desc
	eventsDropped                                                             *prometheus.Desc
	vaultCalls, vaultNotMade, vaultLatency, vaultInFlight, vaultStuck, checks *prometheus.Desc
	dekLookups, deks                                                          *prometheus.Desc
	gets, readBytes, scanned, puts, writtenBytes                              *prometheus.Desc
	deletes, commits, failures, openFailures                                  *prometheus.Desc
	cacheLookups, cacheEntries, cacheBytes, cacheLimit                        *prometheus.Desc
	workRunning, workDone, workRatio, workEnded, workFailed                   *prometheus.Desc
	engineDisk, engineWAL, engineWALWritten, engineMemTable                   *prometheus.Desc
	engineCache, engineLookups, engineFlushes, engineCompactions              *prometheus.Desc
	engineCompactionsFailed, engineCompactionTime, engineDebt                 *prometheus.Desc
	engineCompacting, engineWritten, engineReadAmp                            *prometheus.Desc
	engineBlobFiles, engineBlobBytes, engineTombstones                        *prometheus.Desc
	engineObsolete, engineSnapshots, engineTables, engineTableBytes           *prometheus.Desc
}

func (m *metrics) desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(m.prefix+name, help, labels, m.labels)
	m.all = append(m.all, d)
	return d
}

func newMetrics(labels prometheus.Labels) *metrics {
	m := &metrics{prefix: "blockseal_", labels: labels}
	m.describeAccess()
	m.describeBlocks()
	m.describeEngine()
	return m
}

func (m *metrics) describeAccess() {
	m.state = m.desc("state", "1 for the state that the store is in, 0 for the others.", "state")
	m.stateSince = m.desc("state_since_timestamp_seconds", "When the state began.")
	m.leaseLeft = m.desc("lease_remaining_seconds", "How long the keys may still be used without another successful unwrap; 0 when the store is locked.")
	m.lease = m.desc("lease_seconds", "The length of the lease, as configured.")
	m.lastCheck = m.desc("last_check_timestamp_seconds", "When the last check of access ended.")
	m.lastSuccess = m.desc("last_success_timestamp_seconds", "When the unwrap was sent that last renewed the lease.")
	m.kekInfo = m.desc("kek_info", "Always 1; the labels name the KEK version that wraps the keyring.", "vault", "key", "version")
	m.kekCreated = m.desc("kek_created_timestamp_seconds", "When the KEK version was made, if the vault says.")
	m.kekExpires = m.desc("kek_expiry_timestamp_seconds", "When the KEK version expires, if it does.")
	m.generation = m.desc("keyring_generation", "The generation of the keyring document.")
	m.epochs = m.desc("epochs", "How many epochs the keyring holds; 0 when the store is locked.")
	m.epoch = m.desc("epoch", "The id of the current epoch.")
	m.epochCreated = m.desc("epoch_created_timestamp_seconds", "When the current epoch began.")
	m.epochDEKs = m.desc("epoch_deks", "A bound on how many DEKs the current epoch has wrapped.")
	m.epochMaxDEKs = m.desc("epoch_deks_limit", "How many DEKs an epoch wraps before the next begins.")
	m.eventsDropped = m.desc("events_dropped_total", "Events that were lost because OnEvent or the logger did not keep up.")

	m.describeCalls()
	m.dekLookups = m.desc("dek_cache_lookups_total", "Look-ups of DEKs that the vault opened (ByKEK).", "result")
	m.deks = m.desc("dek_cache_entries", "DEKs that the vault opened (ByKEK) and that are in memory.")
}

func (m *metrics) describeCalls() {
	m.vaultCalls = m.desc("vault_calls_total", "Calls to the vault that have ended.", "operation", "outcome")
	m.vaultNotMade = m.desc("vault_calls_not_made_total", "Calls to the vault that were not made because too many were stuck.", "operation")
	m.vaultLatency = m.desc("vault_call_duration_seconds", "How long calls to the vault took, whatever their outcome.", "operation")
	m.vaultInFlight = m.desc("vault_calls_in_flight", "Calls to the vault that have not ended.")
	m.vaultStuck = m.desc("vault_calls_stuck", "Calls that were given up and that the vault's client still has.")
	m.checks = m.desc("checks_total", "Checks of access, by what came of them.", "result")
}

func (m *metrics) describeBlocks() {
	m.describeCounts()
	m.describeCaches()
	m.openFailures = m.desc("open_failures_total", "Blocks that could not be read or opened: get, scan, verify and rewrite of blockseal_failures_total together.", "kind")
	m.describeWork()
}

func (m *metrics) describeCounts() {
	m.gets = m.desc("gets_total", "Gets that were answered.", "result")
	m.readBytes = m.desc("read_bytes_total", "Plaintext bytes that were read.", "by")
	m.scanned = m.desc("scanned_blocks_total", "Blocks that scans came by.")
	m.puts = m.desc("puts_total", "Blocks that were put, alone or in a batch.")
	m.writtenBytes = m.desc("written_bytes_total", "Plaintext bytes that were put.")
	m.deletes = m.desc("deletes_total", "Deletions, alone or in a batch.")
	m.commits = m.desc("commits_total", "Batches that were committed.")
	m.failures = m.desc("failures_total", "Operations that failed.", "operation", "kind")
}

func (m *metrics) describeWork() {
	m.workRunning = m.desc("work_running", "1 while a long operation is under way.", "work")
	m.workDone = m.desc("work_done_records", "Records that the long operation has done.", "work")
	m.workRatio = m.desc("work_progress_ratio", "How much of the long operation is done, from 0 to 1.", "work")
	m.workEnded = m.desc("work_ended_timestamp_seconds", "When a long operation of the kind last ended.", "work")
	m.workFailed = m.desc("work_failed", "1 if the last long operation of the kind did not do all it had to.", "work")
}

func (m *metrics) describeCaches() {
	m.cacheLookups = m.desc("cache_lookups_total", "Look-ups in the store's caches, of DEK records and of sealed blocks.", "cache", "result")
	m.cacheEntries = m.desc("cache_entries", "DEK records, or sealed blocks, in the store's caches.", "cache")
	m.cacheBytes = m.desc("cache_bytes", "Memory that the store's caches take.", "cache")
	m.cacheLimit = m.desc("cache_limit_bytes", "The most memory that the store's caches may take.", "cache")
}

func (m *metrics) describeEngine() {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return m.desc("engine_"+name, help, labels...)
	}
	m.engineDisk = d("disk_bytes", "Bytes of all files of the storage engine.")
	m.engineWAL = d("wal_bytes", "Bytes of the log that are still needed.")
	m.engineWALWritten = d("wal_written_bytes_total", "Bytes written to the log.")
	m.engineMemTable = d("memtable_bytes", "Bytes of memory in memtables.")
	m.engineCache = d("block_cache_bytes", "Bytes in Pebble's cache of sealed blocks.")
	m.engineLookups = d("lookups_total", "Look-ups in Pebble's block cache and in its filters.", "in", "result")
	m.engineFlushes = d("flushes_total", "Memtables written out.")
	m.engineCompactions = d("compactions_total", "Compactions.")
	m.engineCompactionsFailed = d("compactions_failed_total", "Compactions that failed.")
	m.engineCompactionTime = d("compaction_seconds_total", "Time spent in compactions.")
	m.engineDebt = d("compaction_debt_bytes", "Bytes to be compacted until the tree is at rest.")
	m.engineCompacting = d("compactions_running", "Compactions under way.")
	m.engineWritten = d("written_bytes_total", "Bytes written to tables and blob files.", "by")
	m.engineReadAmp = d("read_amplification", "Tables that a look-up may have to go through.")
	m.engineBlobFiles = d("blob_files", "Blob files.")
	m.engineBlobBytes = d("blob_bytes", "Bytes in blob files.")
	m.engineTombstones = d("tombstones", "Deletions that compactions have not yet removed.")
	m.engineObsolete = d("obsolete_bytes", "Bytes of files that are about to be removed.")
	m.engineSnapshots = d("snapshots", "Open snapshots of the engine.")
	m.engineTables = d("tables", "Tables in a level.", "level")
	m.engineTableBytes = d("table_bytes", "Bytes of the tables in a level.", "level")
}

// seconds returns a time as Prometheus has it.
func seconds(t time.Time) float64 { return float64(t.UnixNano()) / 1e9 }
