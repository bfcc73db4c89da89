package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/blockseal/blockseal/vault/audit"
)

// auditCollector is the metrics of an audit log.
type auditCollector struct{ log *audit.Log }

func auditDescs() [3]*prometheus.Desc {
	return [3]*prometheus.Desc{
		prometheus.NewDesc("blockseal_audit_records", "The sequence number of the last record that was written.", nil, nil),
		prometheus.NewDesc("blockseal_audit_pending_records", "Records that wait in memory for the log to become writable.", nil, nil),
		prometheus.NewDesc("blockseal_audit_lost_records_total", "Records that were lost.", nil, nil),
	}
}

// Describe implements [prometheus.Collector].
func (c auditCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range auditDescs() {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c auditCollector) Collect(ch chan<- prometheus.Metric) {
	st, d := c.log.Stats(), auditDescs()
	ch <- prometheus.MustNewConstMetric(d[0], prometheus.GaugeValue, float64(st.Head.Seq))
	ch <- prometheus.MustNewConstMetric(d[1], prometheus.GaugeValue, float64(st.Pending))
	ch <- prometheus.MustNewConstMetric(d[2], prometheus.CounterValue, float64(st.Lost))
}
