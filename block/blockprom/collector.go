// Package blockprom exports a store's statistics to Prometheus.
//
//	prometheus.MustRegister(blockprom.New(store, nil))
//
// docs/metrics.md lists the metrics. A program that does not import this package links none of its
// code; but Pebble, beneath every store, imports Prometheus's client (docs/dependencies.md).
package blockprom

import (
	"maps"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// Options configure [New]. Nil means the defaults.
type Options struct {
	// Labels are added to every metric as they are: they tell a copy from its original, which has
	// the same id, or tenants' stores apart. A label "store" replaces the store's id. Registering
	// the collector fails if a name is no label name or a metric has it already.
	Labels prometheus.Labels
}

// New returns the metrics of a store for Prometheus: what [block.Store.Stats] returns, under names
// that start with blockseal_, each with the store's id as the label store.
//
// Collecting costs some microseconds, waits for neither vault nor disk, works in every state, and
// may be done concurrently. If a metric cannot be made, the scrape has an error; nothing panics.
// Unregister the collector when the store is closed; a store that is opened anew has a collector of
// its own.
func New(s *block.Store, opts *Options) prometheus.Collector {
	labels := prometheus.Labels{"store": s.StoreID().String()}
	if opts != nil {
		maps.Copy(labels, opts.Labels)
	}
	return &collector{s: s, m: newMetrics(labels)}
}

type collector struct {
	s *block.Store
	m *metrics
}

// Describe implements [prometheus.Collector].
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.m.all {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.Stats()
	e := emitter{ch}
	c.access(e, st)
	c.vault(e, st.Keys)
	c.blocks(e, st)
	c.work(e, st)
	if st.State.Status != keyring.Closed {
		c.m.sendEngine(e, st.Engine)
	}
}

// emitter sends metrics. If one cannot be made, as with a label that is not UTF-8, it sends the
// error, which the registry returns to the scraper.
type emitter struct{ ch chan<- prometheus.Metric }

func (e emitter) send(d *prometheus.Desc, m prometheus.Metric, err error) {
	if err != nil {
		m = prometheus.NewInvalidMetric(d, err)
	}
	e.ch <- m
}

func (e emitter) value(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels []string) {
	m, err := prometheus.NewConstMetric(d, kind, v, labels...)
	e.send(d, m, err)
}

func (e emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	e.value(d, prometheus.GaugeValue, v, labels)
}

func (e emitter) count(d *prometheus.Desc, v uint64, labels ...string) {
	e.value(d, prometheus.CounterValue, float64(v), labels)
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// access sends state, lease, key and epoch.
func (c *collector) access(e emitter, st block.Stats) {
	m := c.m
	for _, s := range []keyring.Status{keyring.Available, keyring.Degraded, keyring.Inaccessible, keyring.Closed} {
		e.gauge(m.state, yes(st.State.Status == s), strings.ToLower(s.String()))
	}
	e.gauge(m.stateSince, seconds(st.State.Since))
	e.gauge(m.leaseLeft, st.Keys.LeaseLeft.Seconds())
	e.gauge(m.lease, st.Keys.Lease.Seconds())
	// A time that is not known sends no metric: zero would be 1970 and set off every alert about
	// old things.
	if t := st.State.LastCheck; !t.IsZero() {
		e.gauge(m.lastCheck, seconds(t))
	}
	if t := st.State.LastSuccess; !t.IsZero() {
		e.gauge(m.lastSuccess, seconds(t))
	}
	k := st.State.KEK
	e.gauge(m.kekInfo, 1, k.Vault, k.Name, k.Version)
	if t := st.Keys.KEKCreated; !t.IsZero() {
		e.gauge(m.kekCreated, seconds(t))
	}
	if t := st.State.KEKExpires; !t.IsZero() {
		e.gauge(m.kekExpires, seconds(t))
	}
	e.gauge(m.generation, float64(st.State.Generation))
	e.gauge(m.epochs, float64(st.State.Epochs))
	if ep := st.Keys.Epoch; ep.ID != 0 {
		e.gauge(m.epoch, float64(ep.ID))
		e.gauge(m.epochCreated, seconds(ep.Created))
		e.gauge(m.epochDEKs, float64(ep.DEKs))
		e.gauge(m.epochMaxDEKs, float64(ep.MaxDEKs))
	}
	e.count(m.eventsDropped, st.State.DroppedEvents)
}

// vault sends what the keyring asked its vault.
func (c *collector) vault(e emitter, st keyring.Stats) {
	m := c.m
	m.sendCalls(e, st.Calls, st.Checks)
	e.gauge(m.vaultInFlight, float64(st.InFlight))
	e.gauge(m.vaultStuck, float64(st.Stuck))
	e.count(m.dekLookups, st.DEKHits, "hit")
	e.count(m.dekLookups, st.DEKMisses, "miss")
	e.gauge(m.deks, float64(st.DEKs))
}

// sendCalls sends calls to vaults, and checks.
func (m *metrics) sendCalls(e emitter, calls []keyring.CallStats, checks keyring.CheckCounts) {
	for _, call := range calls {
		op := string(call.Operation)
		for outcome, n := range call.Outcomes {
			e.count(m.vaultCalls, n, op, outcome)
		}
		e.count(m.vaultNotMade, call.NotMade, op)
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, b := range call.Latency.Bounds {
			sum += call.Latency.Counts[i]
			buckets[b.Seconds()] = sum
		}
		h, err := prometheus.NewConstHistogram(m.vaultLatency, call.Latency.Count, call.Latency.Sum.Seconds(), buckets, op)
		e.send(m.vaultLatency, h, err)
	}
	for result, n := range map[string]uint64{"ok": checks.OK, "denied": checks.Denied, "unanswered": checks.Unanswered, "other": checks.Other} {
		e.count(m.checks, n, result)
	}
}

// blocks sends what the program did.
func (c *collector) blocks(e emitter, st block.Stats) {
	m := c.m
	m.sendBlocks(e, st)
	for kind, n := range st.OpenFailures() {
		e.count(m.openFailures, n, kind)
	}
	m.sendCaches(e, st.RecordCache, st.Rows)
}

// sendBlocks sends what was done to blocks.
func (m *metrics) sendBlocks(e emitter, st block.Stats) {
	e.count(m.gets, st.Gets, "found")
	e.count(m.gets, st.NotFound, "not_found")
	e.count(m.readBytes, st.ReadBytes, "get")
	e.count(m.readBytes, st.ScannedBytes, "scan")
	e.count(m.scanned, st.Scanned)
	e.count(m.puts, st.Puts)
	e.count(m.writtenBytes, st.WrittenBytes)
	e.count(m.deletes, st.Deletes)
	e.count(m.commits, st.Commits)
	for op, kinds := range st.Failures {
		for kind, n := range kinds {
			e.count(m.failures, n, op, kind)
		}
	}
}

// sendCaches sends the caches of DEK records and of sealed blocks.
func (m *metrics) sendCaches(e emitter, records, rows block.CacheStats) {
	for name, cache := range map[string]block.CacheStats{"dek_record": records, "row": rows} {
		e.count(m.cacheLookups, cache.Hits, name, "hit")
		e.count(m.cacheLookups, cache.Misses, name, "miss")
		e.gauge(m.cacheEntries, float64(cache.Entries), name)
		e.gauge(m.cacheBytes, float64(cache.Bytes), name)
		e.gauge(m.cacheLimit, float64(cache.Limit), name)
	}
}

// work sends long operations.
func (c *collector) work(e emitter, st block.Stats) {
	m := c.m
	running := map[string]block.Work{}
	for _, w := range st.Running {
		running[w.Name] = w
	}
	for _, name := range block.WorkNames() {
		w, ok := running[name]
		e.gauge(m.workRunning, yes(ok), name)
		if !ok {
			continue
		}
		e.gauge(m.workDone, float64(w.Done), name)
		if f, known := w.Fraction(); known {
			e.gauge(m.workRatio, f, name)
		}
	}
	for _, w := range st.Last {
		e.gauge(m.workEnded, seconds(w.Ended), w.Name)
		e.gauge(m.workFailed, yes(w.Err != nil), w.Name)
	}
}
