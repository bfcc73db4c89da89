package main

import (
	"fmt"
	"strings"
)

// sealedTargets are for what is measured of sealed files (results/sealed.txt): by processor time, because
// what is computed is the difference, and both sides wait for the same disk. The bound is what plain files
// reach with AES-256-GCM of exactly the bytes that the engine asks for, and nothing else.
func sealedTargets() (t []target) {
	beside := func(row target, name, unit string) {
		row.name = name
		row.bound = bound{"what authenticates", 0.95, func(r *results) []float64 { return values(r.get(name, "", unit)) }}
		t = append(t, row)
	}
	rate := func(limit float64, tick, label, name string) {
		beside(metric(false, limit, tick, label, name, "cpu"), name, "bound-cpu")
	}
	for _, put := range []struct{ label, size string }{{"200 B", "200"}, {"4 KiB", "4096"}} {
		for _, batch := range []string{"1", "16"} {
			rate(0.95, fmt.Sprintf("Put\n%s\n%s", put.label, batch), fmt.Sprintf("Put %s, synced, batch of %s", put.label, batch), fmt.Sprintf("FilesRatio/put/size=%s,batch=%s", put.size, batch))
		}
	}
	loads := []struct{ label, name string }{{"4 KiB", "size=4096"}, {"400 B, compressed", "size=400,compressed"}, {"4 KiB in blob files", "size=4096,blob"}}
	for _, load := range loads {
		rate(1, "", "bulk load, "+load.label, "FilesLoad/"+load.name)
	}
	rate(0.98, "Get\ncached", "Get 4 KiB, all in the block cache", "FilesRatio/get/cache/size=4096")
	rate(0.85, "Get\n4 KiB", "Get 4 KiB from files", "FilesRatio/get/files/size=4096")
	rate(0.85, "", "Get 4 KiB from files, index blocks in the block cache", "FilesRatio/get/index/size=4096")
	rate(0.85, "Get\n400 B", "Get 400 B, compressed, from files", "FilesRatio/get/files/size=400,compressed")
	rate(0.75, "Get\nblobs", "Get 4 KiB from blob files", "FilesRatio/get/files/size=4096,blob")
	rate(0.75, "", "Get 4 KiB from blob files, index blocks in the block cache", "FilesRatio/get/index/size=4096,blob")
	rate(0.90, "scan\n4 KiB", "scan 4 KiB from files", "FilesRatio/scan/files/size=4096")
	rate(0.90, "scan\n400 B", "scan 400 B, compressed, from files", "FilesRatio/scan/files/size=400,compressed")
	for _, mode := range []struct{ label, name string }{{"WAL", "wal"}, {"rollback journal", "delete"}} {
		for _, op := range []string{"insert", "select"} {
			name := "Rows/" + mode.name
			beside(metric(false, 0.85, "", fmt.Sprintf("SQLite: %s, %s", op, mode.label), name, "sealed-"+op+"-cpu"), name, "bound-"+op+"-cpu")
		}
	}
	for _, load := range loads {
		t = append(t, metric(true, 1.01, "", "bytes of tables and blob files, "+load.label, "FilesLoad/"+load.name, "bytes/plain-byte"))
	}
	return t
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
