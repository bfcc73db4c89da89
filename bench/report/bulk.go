package main

import "fmt"

// bulkTargets are all measured in turns with what they are compared with.
func bulkTargets() (t []target) {
	for _, n := range []struct {
		size, batch int
		limit       float64
	}{{4096, 16, 0.90}, {4096, 64, 0.95}, {65536, 16, 0.95}} {
		t = append(t, atLeast(n.limit, fmt.Sprintf("lent batch of %d blocks of %s, synced, rate in times of plain Pebble's", n.batch, size(n.size)),
			fmt.Sprintf("PutLent/size=%d/batch=%d", n.size, n.batch), "pebble").besideLeast("promised").boundBy("promised", 0.95))
	}
	for _, n := range []int{4096, 65536} {
		t = append(t, atLeast(0.80, fmt.Sprintf("load of blocks of %s, rate in times of plain Pebble's", size(n)), fmt.Sprintf("Load/size=%d", n), "pebble"))
	}
	for _, order := range []string{"forward", "reverse"} {
		t = append(t, atLeast(0.95, "scan, 4 KiB, "+order+", rate in times of as many goroutines' that only open", "ScanBound/size=4096/order="+order, "bound").boundBy("promised", 0.95))
	}
	for _, order := range []string{"forward", "reverse"} {
		t = append(t, atMost(1, "scan that stops after 10 blocks, "+order+", time in times of 10 Gets'", "ScanStart/order="+order, "gets", seconds))
	}
	for _, op := range []struct{ label, unit string }{{"Get", "get"}, {"Put", "put"}} {
		for _, q := range []string{"p99", "p99.9"} {
			unit := op.unit + "-" + q + "-times"
			t = append(t, target{label: fmt.Sprintf("%s 4 KiB among 8 goroutines' beside 1 GiB of heap, %s in times of plain Pebble's", op.label, q), atMost: true, limit: 1.3,
				measure: func(r *results) ([]float64, string) { return values(r.get("Mixed/size=4096", ours, unit)), "" },
				bound:   bound{label("kept"), 0.95, func(r *results) []float64 { return values(r.get("Mixed/size=4096", "kept", unit)) }}})
		}
	}
	return t
}
