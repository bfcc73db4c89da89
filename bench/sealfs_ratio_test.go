package bench

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// rounds does each of ops in turns, so many of each in a round. The first is on sealed files, the second on
// plain ones, the third is the bound, see metered. It reports the medians over the rounds of how often what the
// first takes goes into what the second takes: of processor time (cpu) and of the time that passes (wall), and
// of the third bound-cpu and bound-wall. 1 is as fast, 0.5 takes twice as long. On a machine that others use
// too the first says more of what is computed. The rounds begin with each of them by turns.
func rounds(b *testing.B, turn int, ops [3]func() error) {
	var cpu, wall [3][]float64
	for i := 0; b.Loop(); i++ {
		var c, w [3]time.Duration
		for turns := range ops {
			k := (turns + i) % len(ops)
			start, computed := time.Now(), processorTime()
			for range turn {
				if err := ops[k](); err != nil {
					b.Fatal(err)
				}
			}
			c[k], w[k] = processorTime()-computed, time.Since(start)
		}
		for k := range ops {
			cpu[k] = append(cpu[k], float64(c[1])/float64(c[k]))
			wall[k] = append(wall[k], float64(w[1])/float64(w[k]))
		}
	}
	for k, name := range [3]string{0: "", 2: "bound-"} {
		if k == 1 {
			continue
		}
		slices.Sort(cpu[k])
		slices.Sort(wall[k])
		b.ReportMetric(cpu[k][len(cpu[k])/2], name+"cpu")
		b.ReportMetric(wall[k][len(wall[k])/2], name+"wall")
	}
}

// fileReads are the reads that are measured, by what a block cache of a size has of 80 MB of values.
var fileReads = []struct {
	name  string
	cache int64
	scan  bool
	of    []filesCase
}{
	{"get/files", 1 << 20, false, []filesCase{{size: 4096}, {size: 400, compress: true}, {size: 4096, blobs: true}}},
	{"get/index", 4 << 20, false, []filesCase{{size: 4096}, {size: 4096, blobs: true}}}, // it has the index blocks, and little else
	{"get/cache", 512 << 20, false, []filesCase{{size: 4096}}},                          // it has everything
	{"scan/files", 1 << 20, true, []filesCase{{size: 4096}, {size: 400, compress: true}}},
}

// BenchmarkFilesRatio is what docs/performance.md has of a Pebble on sealed files, but for loads. Of reads it
// says as well how often the disk is read for a value, and how many bytes are, on sealed files and on plain ones.
func BenchmarkFilesRatio(b *testing.B) {
	const n = 20_000
	full, all := map[filesCase]*filesTrio{}, b
	for _, r := range fileReads {
		for _, c := range r.of {
			b.Run(r.name+"/"+c.String(), func(b *testing.B) {
				trio := full[c]
				if trio == nil {
					trio = newFilesTrio(all)
					for i := range trio.dirs {
						if err := trio.fill(b, c, i, n); err != nil {
							b.Fatal(err)
						}
					}
					full[c] = trio
				}
				var ops [3]func() error
				dbs := trio.open(b, c, r.cache)
				for i, db := range dbs {
					for k := range n { // tables are open then, and a cache has what it can hold
						if err := c.get(db, k); err != nil {
							b.Fatal(err)
						}
					}
					if ops[i] = c.gets(db, n); r.scan {
						ops[i] = scanOn(b, db)
					}
				}
				const values = 2000
				turn := values
				if r.scan {
					turn = values / valuesOfScan
				}
				for _, m := range trio.meters {
					m.reads.Store(0)
					m.size.Store(0)
				}
				rounds(b, turn, ops)
				for i, name := range []string{"", "plain-"} {
					b.ReportMetric(float64(trio.meters[i].reads.Load())/float64(b.N*values), name+"reads/value")
					b.ReportMetric(float64(trio.meters[i].size.Load())/float64(b.N*values), name+"read-B/value")
				}
			})
		}
	}
	for _, size := range []int{200, 4096} {
		for _, batch := range []int{1, 16} {
			c := filesCase{size: size}
			b.Run(fmt.Sprintf("put/%v,batch=%d", c, batch), func(b *testing.B) {
				var ops [3]func() error
				for k, db := range newFilesTrio(b).open(b, c, 64<<20) {
					i, v := 0, c.value(0)
					ops[k] = func() error {
						w := db.NewBatch()
						for range batch {
							i++
							if err := w.Set(valueKey(i%100_000), v, nil); err != nil {
								return err
							}
						}
						return w.Commit(pebble.Sync)
					}
				}
				rounds(b, 16, ops)
			})
		}
	}
}

// get reads a value.
func (c filesCase) get(db *pebble.DB, i int) error {
	v, closer, err := db.Get(valueKey(i))
	if err != nil {
		return err
	}
	if len(v) != c.size {
		return fmt.Errorf("%d bytes", len(v))
	}
	return closer.Close()
}

// gets returns what reads one of n values of a database, the same ones each time.
func (c filesCase) gets(db *pebble.DB, n int) func() error {
	rng := rand.New(rand.NewPCG(1, 2))
	return func() error { return c.get(db, rng.IntN(n)) }
}

const valuesOfScan = 100

// scanOn returns what reads so many values more, from the start again at the end.
func scanOn(b *testing.B, db *pebble.DB) func() error {
	it, err := db.NewIter(nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { it.Close() })
	valid := it.First()
	return func() error {
		for range valuesOfScan {
			if !valid {
				valid = it.First()
			}
			if _, err := it.ValueAndErr(); err != nil {
				return err
			}
			valid = it.Next()
		}
		return it.Error()
	}
}
