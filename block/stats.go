package block

import (
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/engine"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/tally"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Stats is a store at one moment: its access, what it has done since Open, and what it holds. Its
// counters are read one after the other while the store serves, so that two of them may differ by
// what happened in between. It has no secrets.
type Stats struct {
	Time     time.Time       `json:"time"` // by the keyring's clock
	StoreID  keyring.StoreID `json:"storeID"`
	Instance string          `json:"instance"` // as Store.Instance
	// Shared says that other processes may have the store open as well. Then State, Keys and what is
	// counted are this process's alone: each has a lease and checks of its own.
	Shared bool `json:"shared"`

	// State is Store.State: status, cause, since when, last check, KEK version, epoch, dropped
	// events. Keys is what the keyring has counted, and how much of the lease is left.
	State keyring.State `json:"state"`
	Keys  keyring.Stats `json:"keys"`
	// KEKAge is the age of the KEK version that wraps the keyring, and KEKLeft the time to its
	// expiry, negative after that. Zero: not known, or never.
	KEKAge  time.Duration `json:"kekAge"`
	KEKLeft time.Duration `json:"kekLeft"`

	// Blocks and plaintext bytes that Get has read, from the store and from snapshots, and Gets
	// that found no block.
	Gets      uint64 `json:"gets"`
	ReadBytes uint64 `json:"readBytes"`
	NotFound  uint64 `json:"notFound"`
	// Blocks and plaintext bytes that scans have yielded.
	Scanned      uint64 `json:"scanned"`
	ScannedBytes uint64 `json:"scannedBytes"`
	// Blocks and plaintext bytes that were put, and deletions, alone or in a batch; and batches
	// that were committed.
	Puts         uint64 `json:"puts"`
	WrittenBytes uint64 `json:"writtenBytes"`
	Deletes      uint64 `json:"deletes"`
	Commits      uint64 `json:"commits"`
	// Failures counts operations that failed, by operation ("get", "has", "scan", "put", "delete",
	// "commit"; "verify": blocks that it found damaged; "rewrite": rotations and rekeyings that
	// damage stopped) and kind ("inaccessible", "corrupt", "version", "vault", "closed",
	// "read_only", "stale", "canceled", "other"). Invalid arguments are not counted.
	Failures map[string]map[string]uint64 `json:"failures"`

	// RecordCache is the cache of wrapped DEK records, Rows that of sealed blocks.
	RecordCache CacheStats `json:"recordCache"`
	Rows        CacheStats `json:"rows"`

	// Running has the long operations that are under way, and Last the last of each name that has
	// ended, the latest first.
	Running []Work `json:"running"`
	Last    []Work `json:"last"`

	// Engine is a part of the storage engine's metrics. It is zero when the store is closed.
	Engine EngineStats `json:"engine"`
}

// OpenFailures is the number of blocks that could not be opened, by kind: the Failures of reading
// ("get", "scan", "verify", "rewrite").
func (s Stats) OpenFailures() map[string]uint64 {
	out := map[string]uint64{}
	for _, op := range []tally.Op{tally.Get, tally.Scan, tally.Verify, tally.Rewrite} {
		for kind, n := range s.Failures[tally.OpNames()[op]] {
			out[kind] += n
		}
	}
	return out
}

// FailureKind returns the kind under which [Stats].Failures counts a store's error: "inaccessible",
// "corrupt", "version", "vault", "closed", "read_only", "stale", "canceled" or, for every other
// error, "other"; it is empty for nil. A kind can be shown where an error's text, which may name a
// block, must not be.
func FailureKind(err error) string { return tally.Kind(err) }

// CacheStats counts the look-ups in a cache and what it holds.
type CacheStats struct {
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Entries int    `json:"entries"`
	// Bytes is the memory in use, and Limit the most that may be: the cache of DEK records has all
	// of its memory from the beginning. Both are zero if there is no cache.
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit"`
}

// EngineStats is a part of Pebble's metrics, for operators. Sizes are in bytes; counts of events
// begin at Open.
type EngineStats struct {
	DiskBytes     uint64 `json:"diskBytes"`  // all files
	WALBytes      uint64 `json:"walBytes"`   // of the log that is still needed
	WALWritten    uint64 `json:"walWritten"` // to the log
	MemTableBytes uint64 `json:"memTableBytes"`

	CacheBytes   uint64 `json:"cacheBytes"` // of Pebble's cache of sealed blocks
	CacheHits    uint64 `json:"cacheHits"`
	CacheMisses  uint64 `json:"cacheMisses"`
	FilterHits   uint64 `json:"filterHits"` // of the filters: a hit saves a look into a table
	FilterMisses uint64 `json:"filterMisses"`

	Flushes            uint64        `json:"flushes"`
	Compactions        uint64        `json:"compactions"`
	FailedCompactions  uint64        `json:"failedCompactions"`
	CompactionTime     time.Duration `json:"compactionTime"`
	CompactionDebt     uint64        `json:"compactionDebt"` // bytes to compact until the tree is at rest
	CompactionsRunning int           `json:"compactionsRunning"`
	FlushedBytes       uint64        `json:"flushedBytes"` // written, tables and blob files
	CompactedBytes     uint64        `json:"compactedBytes"`

	ReadAmplification int    `json:"readAmplification"` // tables that a look-up may have to read
	BlobFiles         uint64 `json:"blobFiles"`
	BlobBytes         uint64 `json:"blobBytes"`
	Tombstones        uint64 `json:"tombstones"`    // deletions that compactions have not yet removed
	ObsoleteBytes     uint64 `json:"obsoleteBytes"` // of files that are about to be removed
	Snapshots         int    `json:"snapshots"`     // open ones

	LevelTables []uint64 `json:"levelTables"` // of each level of the tree, from 0
	LevelBytes  []uint64 `json:"levelBytes"`
}

// Stats returns the store's statistics. It waits for neither vault nor disk, and works in every
// state, also after Close. It lasts some microseconds.
func (s *Store) Stats() Stats {
	n := s.counts.Sums()
	st := Stats{
		Time: s.keys.For(inner.Block{}).Now(), StoreID: s.StoreID(), Instance: s.Instance(), Shared: s.db.shared, State: s.State(), Keys: s.keys.Stats(),
		Gets: n.Gets, ReadBytes: n.ReadBytes, NotFound: n.NotFound, Scanned: n.Scanned, ScannedBytes: n.ScannedBytes,
		Puts: n.Puts, WrittenBytes: n.WrittenBytes, Deletes: n.Deletes, Commits: n.Commits, Failures: n.Failures,
	}
	if !st.Keys.KEKCreated.IsZero() {
		st.KEKAge = max(0, st.Time.Sub(st.Keys.KEKCreated))
	}
	if !st.State.KEKExpires.IsZero() {
		st.KEKLeft = st.State.KEKExpires.Sub(st.Time)
	}
	records, rows := s.db.common.Stats()
	st.RecordCache, st.Rows = CacheStats(records), CacheStats(rows)
	st.Running, st.Last = s.works()

	if s.use.Begin() == nil {
		defer s.use.End()
		if db, ok := s.db.engine.(engine.Meter); ok {
			st.Engine = EngineStats(db.Stats())
		}
	}
	return st
}

// recentEvents is the number of events that a store keeps for people who look at it.
const recentEvents = 64

// RecentEvent is an event that the store remembers. Consecutive checks with the same result are one
// RecentEvent.
type RecentEvent struct {
	keyring.Event           // the latest of them
	First         time.Time `json:"first,omitzero"` // when the first was
	Times         int       `json:"times"`          // how many there were, 1 or more
}

// recent is a ring of the latest events. It is safe for concurrent use.
type recent struct {
	mu   sync.Mutex
	ring [recentEvents]RecentEvent
	n    int // number of events ever added; the latest is at n-1
}

func (r *recent) add(e keyring.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n > 0 {
		if last := &r.ring[(r.n-1)%recentEvents]; sameCheck(last.Event, e) {
			last.Event = e
			last.Times++
			return
		}
	}
	r.ring[r.n%recentEvents] = RecentEvent{Event: e, First: e.Time, Times: 1}
	r.n++
}

// sameCheck reports whether two events are checks with the same result.
func sameCheck(a, b keyring.Event) bool {
	if a.Kind != b.Kind || a.Key != b.Key || (a.Kind != keyring.CheckSucceeded && a.Kind != keyring.CheckFailed) {
		return false
	}
	return sameReason(a.Err, b.Err)
}

// sameReason reports whether two errors say the same to people.
func sameReason(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	// The texts differ where they name the request, as Key Vault's do.
	kind := vault.Kind(a)
	return a.Error() == b.Error() || kind != nil && kind == vault.Kind(b)
}

// events returns the events in the ring, the latest first.
func (r *recent) events() []RecentEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []RecentEvent
	for i := max(0, r.n-recentEvents); i < r.n; i++ {
		out = append(out, r.ring[i%recentEvents])
	}
	slices.Reverse(out)
	return out
}

// RecentEvents returns the latest events, at most 64, the latest first. It is for people who look
// at a store; a program sets Options.Keyring.OnEvent.
func (s *Store) RecentEvents() []RecentEvent { return s.recent.events() }

// MarshalJSON implements [json.Marshaler].
func (e RecentEvent) MarshalJSON() ([]byte, error) {
	type plain keyring.Event // without its MarshalJSON
	return json.Marshal(struct {
		plain
		Err   string    `json:"error,omitempty"`
		First time.Time `json:"first"`
		Times int       `json:"times"`
	}{plain(e.Event), errorText(e.Err), e.First, e.Times})
}
