package blockprom

import (
	"context"
	"maps"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/block"
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
	m.describeCalls()
	m.describeCounts()
	m.describeCaches()
	m.describeEngine()
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
