package main

import (
	"fmt"
	"strings"
	"time"
)

// table is one of docs/scale.md, in Markdown, by its name.
type table struct{ name, text string }

func allTables(seed uint64) []table {
	return []table{
		{"checks", checksTable(seed)}, {"restart", restartTable(seed)}, {"document", documentTable(seed)},
		{"reservations", reservationsTable(seed)}, {"floor", floorTable(seed)}, {"petabyte", petabyteTable()},
	}
}

func tables(seed uint64) string {
	var b strings.Builder
	for _, t := range allTables(seed) {
		fmt.Fprintf(&b, "%s\n\n%s\n", t.name, t.text)
	}
	return b.String()
}

// rows writes a table.
func rows(head string, lines ...string) string {
	return "| " + head + " |\n|" + strings.Repeat("---|", strings.Count(head, "|")+1) + "\n" + strings.Join(lines, "\n") + "\n"
}

func percent(f float64) string { return fmt.Sprintf("%.0f%%", 100*f) }

// took writes a duration in two digits or so.
func took(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 10*time.Minute:
		return fmt.Sprintf("%.1f min", d.Minutes())
	case d < time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f hours", d.Hours())
	}
	return fmt.Sprintf("%.1f days", d.Hours()/24)
}

func checksTable(seed uint64) string {
	var lines []string
	for _, c := range []struct {
		processes, stores int
		every             time.Duration
	}{{100, 1, checkEvery}, {1000, 1, checkEvery}, {1000, 4, checkEvery}, {1000, 8, checkEvery}, {1000, 8, 5 * time.Minute}, {1000, 20, 5 * time.Minute}} {
		of := func(limit int) string {
			r := checks(seed, c.processes, c.stores, limit, c.every)
			return fmt.Sprintf("%d | %s | %d", r.most, percent(r.failed), r.ended)
		}
		lines = append(lines, fmt.Sprintf("| %d | %d | %s | %s | %s |", c.processes, c.stores, took(c.every), of(limitSoftware), of(limitHSM)))
	}
	return rows("processes | stores open in each, under keys of one vault | a check each | software keys: calls in 10 s, at the most | checks without an answer | leases that ended in an hour | keys in an HSM: calls in 10 s | checks without an answer | leases that ended", lines...)
}

func restartTable(seed uint64) string {
	var lines []string
	for _, c := range []struct{ processes, stores, budget int }{{100, 1, 0}, {1000, 1, 0}, {1000, 8, 0}, {1000, 8, 10}, {100, 100, 0}, {100, 100, 40}} {
		r := restart(seed, c.processes, c.stores, limitSoftware, c.budget)
		budget := "none"
		if c.budget > 0 {
			budget = fmt.Sprint(c.budget)
		}
		lines = append(lines, fmt.Sprintf("| %d | %d | %s | %s | %s | %s |", c.processes, c.stores, budget, took(r.half), took(r.all), percent(r.throttled)))
	}
	return rows("processes | stores that each opens | budget of each, calls in 10 s | half are open after | all are | calls that were throttled", lines...)
}

func documentTable(seed uint64) string {
	var lines []string
	for _, c := range []struct {
		processes, cores int
		ask              time.Duration
		size             string
	}{{64, 2, askSmall, "1 KiB"}, {400, 2, askSmall, "1 KiB"}, {1000, 2, askSmall, "1 KiB"}, {1000, 32, askSmall, "1 KiB"}, {1000, 32, askLarge, "64 KiB"}} {
		of := func(backoff bool) string {
			r := contend(seed, c.processes, c.cores, c.ask, backoff)
			return fmt.Sprintf("%s | %.1f | %d | %d", took(r.all), r.lost, r.inARow, r.failed)
		}
		lines = append(lines, fmt.Sprintf("| %d | %d | %s | %s | %s |", c.processes, c.cores, c.size, of(false), of(true)))
	}
	return rows("processes | cores of the server | document | at once: all have swapped after | lost swaps, each | in a row, at the most | writes that fail | with pauses: all have after | lost swaps, each | in a row, at the most | writes that fail", lines...)
}

func reservationsTable(seed uint64) string {
	var lines []string
	for _, c := range []struct {
		processes int
		rate      float64
	}{{10, 100}, {64, 100}, {100, 100}, {1000, 10}, {1000, 100}} {
		of := func(growing bool) string {
			r := reserve(seed, c.processes, c.rate, growing)
			full := "never"
			if r.full > 0 {
				full = took(r.full)
			}
			return fmt.Sprintf("%d | %s | %.2f", r.epochs, full, r.saves)
		}
		lines = append(lines, fmt.Sprintf("| %d | %.0f | %s | %s |", c.processes, c.rate, of(false), of(true)))
	}
	return rows("processes | writes a second of each | a 64th each: epochs begun in a day | no room for more after | saves a second | growing slices: epochs begun in a day | no room for more after | saves a second", lines...)
}

func floorTable(seed uint64) string {
	var lines []string
	for _, c := range []struct{ writers, cores int }{{32, 2}, {256, 2}, {256, 32}, {1000, 32}, {4000, 32}} {
		r := raise(seed, c.writers, c.cores)
		lines = append(lines, fmt.Sprintf("| %d | %d | %s | %s | %s |", r.writers, r.cores, took(r.put), took(r.median), took(r.most)))
	}
	return rows("writers at once | cores of the server | a put, median | a raise, median | at the most of 100", lines...)
}

func petabyteTable() string {
	var lines []string
	for _, block := range []int{4 << 10, 64 << 10, 1 << 20} {
		sp := petabyteOf(block)
		lines = append(lines, fmt.Sprintf("| %d KiB | %.1f billion | %.2f%% | %d | %s | %s |", block>>10, sp.blocks/1e9, 100*sp.overhead, sp.servers, took(sp.epoch), took(sp.rekey)))
	}
	return rows("blocks of | blocks | records and rows, of the petabyte | servers of 32 TiB, half full | RotateEpoch, all servers at once | Rekey, all servers at once", lines...)
}
