package main

import (
	"fmt"
	"strings"
)

// sealedTitle heads what is measured of sealed files (results/sealed.txt): by processor time, because what
// is computed is the difference, and both sides wait for the same disk.
const sealedTitle = "Sealed files: rate by processor time, in times of the same on plain files"

// sealedTarget is a target with the metric of the bound beside it: what plain files reach with AES-256-GCM of
// exactly the bytes that the engine asks for, and nothing else. bound is empty where there is none.
type sealedTarget struct {
	target
	bound string // its unit, of the same benchmark
	wall  string // that of the time that passes
}

// sealedRate is a target for a row of BenchmarkFilesRatio or BenchmarkFilesLoad.
func sealedRate(limit float64, label, name string) sealedTarget {
	return sealedTarget{sealedMetric(limit, label, name, "cpu"), "bound-cpu", "wall"}
}

// sealedMetric is a target for a metric of a benchmark.
func sealedMetric(limit float64, label, name, unit string) target {
	return target{label: label, limit: limit, name: name, measure: func(r *results) ([]float64, string) {
		return values(r.get(name, "", unit)), ""
	}}
}

func sealedTargets() (t []sealedTarget) {
	for _, put := range []struct{ label, size string }{{"200 B", "200"}, {"4 KiB", "4096"}} {
		for _, batch := range []string{"1", "16"} {
			t = append(t, sealedRate(0.95, fmt.Sprintf("Put %s, synced, batch of %s", put.label, batch), fmt.Sprintf("FilesRatio/put/size=%s,batch=%s", put.size, batch)))
		}
	}
	loads := []struct{ label, name string }{{"4 KiB", "size=4096"}, {"400 B, compressed", "size=400,compressed"}, {"4 KiB in blob files", "size=4096,blob"}}
	for _, load := range loads {
		t = append(t, sealedRate(1, "bulk load, "+load.label, "FilesLoad/"+load.name))
	}
	t = append(t,
		sealedRate(0.98, "Get 4 KiB, all in the block cache", "FilesRatio/get/cache/size=4096"),
		sealedRate(0.85, "Get 4 KiB from files", "FilesRatio/get/files/size=4096"),
		sealedRate(0.85, "Get 4 KiB from files, index blocks in the block cache", "FilesRatio/get/index/size=4096"),
		sealedRate(0.85, "Get 400 B, compressed, from files", "FilesRatio/get/files/size=400,compressed"),
		sealedRate(0.75, "Get 4 KiB from blob files", "FilesRatio/get/files/size=4096,blob"),
		sealedRate(0.75, "Get 4 KiB from blob files, index blocks in the block cache", "FilesRatio/get/index/size=4096,blob"),
		sealedRate(0.90, "scan 4 KiB from files", "FilesRatio/scan/files/size=4096"),
		sealedRate(0.90, "scan 400 B, compressed, from files", "FilesRatio/scan/files/size=400,compressed"))
	for _, mode := range []struct{ label, name string }{{"WAL", "wal"}, {"rollback journal", "delete"}} {
		for _, op := range []string{"insert", "select"} {
			t = append(t, sealedTarget{sealedMetric(0.85, fmt.Sprintf("SQLite: %s, %s", op, mode.label), "Rows/"+mode.name, "sealed-"+op+"-cpu"), "", "sealed-" + op})
		}
	}
	for _, load := range loads {
		size := sealedMetric(1.01, "bytes of tables and blob files, "+load.label, "FilesLoad/"+load.name, "bytes/plain-byte")
		size.atMost = true
		t = append(t, sealedTarget{target: size})
	}
	return t
}

// sealedTable is the table of docs/performance.md, in Markdown.
func sealedTable(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | target | bound | measured | range | by the time that passes | |\n|---|---|---|---|---|---|---|\n", sealedTitle)
	for _, t := range sealedTargets() {
		v := t.judge(r)
		// Where the bound does not meet the target either, what is left to do is the way to the bound.
		if bound := over(values(r.get(t.name, "", t.bound))); bound.n > 0 {
			v.Least = short(bound.median)
			if got, _ := t.measure(r); v.Verdict == notMet && bound.median < t.limit {
				v.Verdict = fmt.Sprintf("not met, nor by the bound: %.2f of it", over(got).median/bound.median)
			}
		}
		wall := ""
		if s := over(values(r.get(t.name, "", t.wall))); s.n > 0 {
			wall = short(s.median)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", v.Label, v.Want, v.Least, v.Measured, v.Range, wall, v.Verdict)
	}
	return b.String()
}

// sealedReadsTable says what is read of the disk for a value, on sealed files and on plain ones.
func sealedReadsTable(r *results) string {
	var b strings.Builder
	b.WriteString("| for a value | reads, sealed | plain | bytes, sealed | plain |\n|---|---|---|---|---|\n")
	for _, t := range sealedTargets() {
		cells := make([]string, 0, 4)
		for _, unit := range []string{"reads/value", "plain-reads/value", "read-B/value", "plain-read-B/value"} {
			s := over(values(r.get(t.name, "", unit)))
			if s.n == 0 {
				break
			}
			format := "%.2f"
			if strings.HasSuffix(unit, "B/value") {
				format = "%.0f"
			}
			cells = append(cells, fmt.Sprintf(format, s.median))
		}
		if len(cells) == cap(cells) {
			fmt.Fprintf(&b, "| %s | %s |\n", t.label, strings.Join(cells, " | "))
		}
	}
	return b.String()
}
