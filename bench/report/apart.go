package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// apart are comparisons that are measured by themselves, because they need a server, or take long, and
// lie in a file of their own beside results/latest. The page has them too.
type apart struct {
	table   string // as the comment in docs/performance.md calls it
	file    string // in results
	command string // which makes it, in bench
	title   string
	chart   string // file of its chart
	caption string
	targets func() []target
}

func aparts() []apart {
	return []apart{
		{"postgres", "postgres.txt", "go test -run '^$' -bench 'Postgres(Put|Get|Batch|Scan|Raise)' .",
			"On PostgreSQL, beside plain pgx with one table (id, data): rate, in times of plain pgx's",
			"postgres.png", "The engine on PostgreSQL, in turns with a program that uses pgx and one table. Above the line at 1 blockseal is faster. The numbers beneath are connections.", postgresTargets},
		{"sealed", "sealed.txt", "see docs/performance.md, Sealed files",
			"Sealed files, a Pebble on them beside one on plain files: rate by processor time, in times of that on plain files",
			"sealed.png", "A Pebble on sealed files, in turns with one on plain files. Above the line at 1 sealed files are faster. The bound is what any file system that authenticates has to compute.", sealedTargets},
		{"tenants", "tenants.json", "go run ./tenants -out results/tenants.json",
			"Many stores in one DB",
			"tenants.png", "Get and Put over 1,000 stores of a DB, in turns with the same over one. Above the line at 1 many stores are faster.", tenantsTargets},
	}
}

// read returns what a file has. One that is not there has nothing.
func (c apart) read(dir string) (*results, error) {
	r := newResults()
	name := filepath.Join(dir, c.file)
	raw, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, nil
	case err != nil:
		return nil, err
	case strings.HasSuffix(name, ".json"):
		return r, r.parseTenants(name, raw)
	}
	return r, r.parse(name, raw)
}

// judge puts the targets of a file beside what it has.
func (c apart) judge(r *results) verdicts {
	out := verdicts{Title: c.title}
	for _, t := range c.targets() {
		out.Verdicts = append(out.Verdicts, t.judge(r))
	}
	return out
}

// markdown is the table of docs/performance.md. Where something has a bound, the bounds and the targets that
// they have replaced stand beside.
func (c apart) markdown(r *results) string {
	vs := c.judge(r).Verdicts
	bounded := slices.ContainsFunc(vs, func(v verdict) bool { return v.Bound != "" })
	var b strings.Builder
	if bounded {
		fmt.Fprintf(&b, "| %s | target | at first | measured | range | bound | |\n|---|---|---|---|---|---|---|\n", c.title)
	} else {
		fmt.Fprintf(&b, "| %s | target | measured | range | |\n|---|---|---|---|---|\n", c.title)
	}
	for _, v := range vs {
		if bounded {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", v.Label, v.Want, v.First, v.Measured, v.Range, v.Bound, v.Verdict)
		} else {
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", v.Label, v.Want, v.Measured, v.Range, v.Verdict)
		}
	}
	return b.String()
}

// draw makes the chart of the targets that have a tick.
func (c apart) draw(s *source) (panel, bool) {
	b := bars{style: textStyle(8, ink, false), from: 1, sets: []set{{label: "measured", color: colour(ours)}, {label: "bound", color: gray(150)}}}
	var names []string
	ok := false
	for _, t := range c.targets() {
		if t.tick == "" {
			continue
		}
		got, _ := t.measure(s.results)
		var most []float64
		if t.bound.measure != nil {
			most = t.bound.measure(s.results)
		}
		names = append(names, t.tick)
		for i, v := range [][]float64{got, most} {
			b.sets[i].values = append(b.sets[i].values, over(v))
			ok = ok || len(v) > 0
		}
		if len(got) == 0 {
			s.lacks(t.label, ours)
		}
	}
	if !ok {
		return panel{}, false
	}
	if !b.sets[1].any() {
		b.sets = b.sets[:1]
	}
	title, _, _ := strings.Cut(c.title, ":")
	title, _, _ = strings.Cut(title, ",")
	p := barPanel(title, "rate in times of the other's, higher is better", b, names, nil, "")
	p.plot.Add(level{1, gray(50)})
	p.keys = append(p.keys, key{label: "equally fast", color: gray(50), line: true})
	doubling(p.plot, b)
	return p, true
}

func (s set) any() bool {
	for _, v := range s.values {
		if v.n > 0 {
			return true
		}
	}
	return false
}

// metric is a target for a metric that a benchmark reports as the median of its rounds: on a machine that
// does much else a sum of times is that of its worst turns.
func metric(atMost bool, limit float64, tick, label, name, unit string) target {
	return target{label: label, tick: tick, atMost: atMost, limit: limit, measure: func(r *results) ([]float64, string) {
		return values(r.get(name, "", unit)), ""
	}}
}

func postgresTargets() (t []target) {
	for _, op := range []struct{ label, name string }{{"Put 4 KiB, with the floor's guard", "Put"}, {"Get 4 KiB", "Get"}, {"batch of 100 blocks of 4 KiB", "Batch"}} {
		for _, n := range []int{1, 8, 32} {
			connections := fmt.Sprintf("%d connections", n)
			if n == 1 {
				connections = "1 connection"
			}
			t = append(t, metric(false, 0.90, fmt.Sprintf("%s\n%d", op.name, n), op.label+", "+connections, fmt.Sprintf("Postgres%s/connections=%d", op.name, n), "pgx-rate"))
		}
	}
	return append(t, metric(false, 0.85, "scan\n", "scan, 4 KiB", "PostgresScan", "pgx-rate"),
		metric(true, 100, "", "raising the floor under 32 writers, median, ms", "PostgresRaise", "p50-ms"))
}

// tenantsTargets judge what bench/tenants has measured, by processor time where there is a choice.
func tenantsTargets() []target {
	many := func(tick, op string) target {
		t := metric(false, 0.95, tick, op+", over 1,000 stores: rate, in times of one store's", "Tenants/"+op, "rate")
		t.bound = bound{"a key for each store", 0.95, func(r *results) []float64 { return values(r.get("Tenants/"+op, "", "bound-rate")) }}
		return t
	}
	return []target{
		metric(false, 200, "", "stores created, one after the other, each durably, a second", "Tenants/create", "stores/s"),
		metric(false, 200, "", "the same, and closed", "Tenants/close", "stores/s"),
		metric(true, 1.2, "", "`OpenDB`, in times of that of a DB with one store", "Tenants/OpenDB", "ratio"),
		metric(true, 256, "", "bytes of memory of a store that is not open", "Tenants/memory", "closed-B"),
		metric(true, 64<<10, "", "bytes of memory of an open store", "Tenants/memory", "open-B"),
		many("Get 4 KiB\nhot", "Get 4 KiB, hot"),
		many("Put 4 KiB\nnot synced", "Put 4 KiB, not synced"),
		metric(true, 1<<20, "", "bytes that `Drop` of one of 1,000 stores writes beyond what that one had", "Tenants/drop", "beyond-B"),
	}
}

// parseTenants adds the measurements of bench/tenants, each round of them by itself.
func (r *results) parseTenants(name string, raw []byte) error {
	type took struct{ CPU float64 }
	var m struct {
		Create struct{ Create, Close []float64 } // ns
		OpenDB struct{ One, Many []took }
		Memory *struct{ Closed, Open float64 }
		Use    []struct {
			Op        string
			One, Many []took
			Bound     struct{ One, Many []took }
		}
		Drop []struct {
			Stores, Blocks int
			Written        []float64
		}
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(m.Create.Close) != len(m.Create.Create) || len(m.OpenDB.Many) != len(m.OpenDB.One) {
		return fmt.Errorf("read %s: it has more rounds of one side than of the other", name)
	}
	add := func(row, unit string, round int, v float64) {
		w := r.row(row, "", "")
		w.values[unit] = append(w.values[unit], sample{round, v})
	}
	for i, ns := range m.Create.Create {
		add("Tenants/create", "stores/s", i, 1e9/ns)
		add("Tenants/close", "stores/s", i, 1e9/(ns+m.Create.Close[i]))
	}
	for i, one := range m.OpenDB.One {
		add("Tenants/OpenDB", "ratio", i, m.OpenDB.Many[i].CPU/one.CPU)
	}
	if m.Memory != nil {
		add("Tenants/memory", "closed-B", 0, m.Memory.Closed)
		add("Tenants/memory", "open-B", 0, m.Memory.Open)
	}
	for _, u := range m.Use {
		if len(u.Many) != len(u.One) {
			return fmt.Errorf("read %s: %s has more rounds of one side than of the other", name, u.Op)
		}
		for i, one := range u.One {
			add("Tenants/"+u.Op, "rate", i, one.CPU/u.Many[i].CPU)
		}
		if len(u.Bound.Many) != len(u.Bound.One) {
			return fmt.Errorf("read %s: the bound of %s has more rounds of one side than of the other", name, u.Op)
		}
		for i, one := range u.Bound.One {
			add("Tenants/"+u.Op, "bound-rate", i, one.CPU/u.Bound.Many[i].CPU)
		}
	}
	for _, d := range m.Drop {
		if d.Stores != 1000 {
			continue
		}
		for _, written := range d.Written { // blocks of 4 KiB
			add("Tenants/drop", "beyond-B", 0, max(0, written-float64(d.Blocks<<12)))
		}
	}
	return nil
}
