package blockprom

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// countWithin bounds how long a scrape waits for the catalogue to be read.
const countWithin = 5 * time.Second

// NewDB returns the metrics of a DB for Prometheus: what [block.DB.Stats] returns, under names that
// start with blockseal_db_, each with the DB's instance as the label db. A label "db" in
// Options.Labels replaces that.
//
// How many series there are does not depend on how many stores there are: they are summed up, and
// at most [block.MaxTroubles] of those that need a person have their names in the label name of
// blockseal_db_store_trouble. A name is any UTF-8. A store of its own has all metrics by [New], as
// long as it is open.
//
// Collecting takes some microseconds for each open store, reads the catalogue every 10 seconds at
// the most, and may be done concurrently. Unregister the collector when the DB is closed.
func NewDB(d *block.DB, opts *Options) prometheus.Collector {
	st, _ := d.Stats(context.Background()) // an error is told at each scrape
	labels := prometheus.Labels{"db": st.Instance}
	if opts != nil {
		maps.Copy(labels, opts.Labels)
	}
	c := &dbCollector{d: d, m: &metrics{prefix: "blockseal_db_", labels: labels}}
	c.describe()
	return c
}

type dbCollector struct {
	d *block.DB
	m *metrics

	stores, opening, waiting, openLimit, counted, troubles, trouble *prometheus.Desc
	files                                                           filesDescs
}

// filesDescs are of the KEK of the engine's files, where those are sealed.
type filesDescs struct {
	state, open, since, lease, check, success, kek, expires, generation, epoch *prometheus.Desc
}

func (c *dbCollector) describe() {
	m := c.m
	c.stores = m.desc("stores", "Stores by state; those that are not open are in state not_open, and those that are being dropped in state dropping.", "state")
	c.openLimit = m.desc("open_stores_limit", "How many stores Acquire keeps open at once.")
	c.opening = m.desc("opening_stores", "Stores that are being opened.")
	c.waiting = m.desc("waiting_stores", "Stores that wait for their turn to be opened.")
	c.counted = m.desc("counted_timestamp_seconds", "When the stores were counted last.")
	c.troubles = m.desc("troubles", "Stores that need a person, by what is wrong.", "kind")
	c.trouble = m.desc("store_trouble", "Always 1; the labels name some of the stores that need a person, and what is wrong.", "name", "kind")
	c.files = filesDescs{
		state:      m.desc("file_kek_state", "1 for the state that access to the KEK of the engine's files is in, 0 for the others.", "state"),
		open:       m.desc("files_open", "1 while the engine is open, 0 while it is closed for want of the KEK of its files."),
		since:      m.desc("file_kek_state_since_timestamp_seconds", "When that state began."),
		lease:      m.desc("file_kek_lease_end_timestamp_seconds", "When the files are closed unless an unwrap succeeds before; not there while they are."),
		check:      m.desc("file_kek_last_check_timestamp_seconds", "When the last check of access to the KEK of the files ended."),
		success:    m.desc("file_kek_last_success_timestamp_seconds", "When the unwrap was sent that last renewed the lease."),
		kek:        m.desc("file_kek_info", "Always 1; the labels name the KEK version that wraps the keyring of the files.", "vault", "key", "version"),
		expires:    m.desc("file_kek_expiry_timestamp_seconds", "When that KEK version expires, if it does."),
		generation: m.desc("file_keyring_generation", "The generation of the keyring document of the files."),
		epoch:      m.desc("file_keyring_epoch", "The id of the current epoch of the files; 0 while they are closed."),
	}
	m.describeCalls()
	m.describeCounts()
	m.describeCaches()
	m.describeEngine()
}

// sendFiles sends what is known of the KEK of the files. A time that is not known sends no metric.
func (c *dbCollector) sendFiles(e emitter, f *block.FilesStats) {
	if f == nil {
		return
	}
	st := f.State
	for _, s := range []keyring.Status{keyring.Available, keyring.Degraded, keyring.Inaccessible} {
		e.gauge(c.files.state, yes(st.Status == s), strings.ToLower(s.String()))
	}
	e.gauge(c.files.open, yes(f.Open))
	e.gauge(c.files.kek, 1, st.KEK.Vault, st.KEK.Name, st.KEK.Version)
	e.gauge(c.files.generation, float64(st.Generation))
	e.gauge(c.files.epoch, float64(st.Epoch))
	for d, t := range map[*prometheus.Desc]time.Time{
		c.files.since: st.Since, c.files.lease: st.LeaseEnd, c.files.check: st.LastCheck, c.files.success: st.LastSuccess, c.files.expires: st.KEKExpires,
	} {
		if !t.IsZero() {
			e.gauge(d, seconds(t))
		}
	}
}

// Describe implements [prometheus.Collector].
func (c *dbCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.m.all {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *dbCollector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), countWithin)
	defer cancel()
	// If the stores cannot be counted, the time when they were says so: an error would take all
	// other metrics of the process with it.
	st, _ := c.d.Stats(ctx)
	e := emitter{ch}
	c.summary(e, st)
	c.sendFiles(e, st.Files)
	m := c.m
	m.sendCalls(e, st.Calls, st.Checks)
	e.gauge(m.vaultInFlight, float64(st.InFlight))
	e.gauge(m.vaultStuck, float64(st.Stuck))
	m.sendBlocks(e, block.Stats{
		Gets: st.Gets, NotFound: st.NotFound, ReadBytes: st.ReadBytes, Scanned: st.Scanned, ScannedBytes: st.ScannedBytes,
		Puts: st.Puts, WrittenBytes: st.WrittenBytes, Deletes: st.Deletes, Commits: st.Commits, Failures: st.Failures,
	})
	m.sendCaches(e, st.RecordCache, st.Rows)
	if !st.Closed {
		m.sendEngine(e, st.Engine)
	}
}

// summary sends how many stores are in which state, and what is wrong with some.
func (c *dbCollector) summary(e emitter, st block.DBStats) {
	for state, n := range st.States {
		e.gauge(c.stores, float64(n), state)
	}
	e.gauge(c.stores, float64(max(0, st.Stores-st.Open)), "not_open")
	e.gauge(c.stores, float64(st.Dropping), "dropping")
	e.gauge(c.openLimit, float64(st.MaxOpen))
	e.gauge(c.opening, float64(st.Opening))
	e.gauge(c.waiting, float64(st.Waiting))
	if !st.Counted.IsZero() {
		e.gauge(c.counted, seconds(st.Counted))
	}
	for kind, n := range st.TroubleCounts {
		e.gauge(c.troubles, float64(n), string(kind))
	}
	type series struct {
		name string
		kind block.TroubleKind
	}
	sent := map[series]bool{} // entries of the catalogue that cannot be read have no names
	for _, t := range st.Troubles {
		if s := (series{t.Store, t.Kind}); !sent[s] {
			sent[s] = true
			e.gauge(c.trouble, 1, t.Store, string(t.Kind))
		}
	}
}
