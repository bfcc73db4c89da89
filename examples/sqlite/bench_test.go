package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/ncruces/go-sqlite3"
	sqlite "github.com/ncruces/go-sqlite3/vfs"
	"github.com/ncruces/go-sqlite3/vfs/adiantum"
	"github.com/ncruces/go-sqlite3/vfs/xts"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/keyring/sealfs"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// BenchmarkRows inserts 100,000 rows in transactions of 1,000, and reads them all through a page cache of
// 2 MB, on plain files, on sealed ones, on the bound of those that authenticate, and on the two encrypting
// VFS of the module, which do not. They take turns, round by round. It reports, of each, the median over the rounds of how often its
// processor time, and the time that passed, go into those of plain files: 1 is as fast, 0.5 takes
// twice as long.
//
//	go test . -run '^$' -bench Rows -benchtime 15x
func BenchmarkRows(b *testing.B) {
	v := vaulttest.New(nil)
	r, err := keyring.Create(b.Context(), new(keyring.MemStorage), kek.New(v, v.CreateKey("k").Versionless()), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	fs, err := sealfs.New(vfs.Default, r, nil)
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := NewVFS(fs)
	if err != nil {
		b.Fatal(err)
	}
	defer sealed.Close()
	sqlite.Register("bench-sealed", sealed)
	least, err := newBound()
	if err != nil {
		b.Fatal(err)
	}
	sqlite.Register("bench-bound", least)
	sqlite.Register("bench-xts", xts.Wrap(sqlite.Find(""), nil))
	sqlite.Register("bench-adiantum", adiantum.Wrap(sqlite.Find(""), nil))
	names := []string{"os", "bench-sealed", "bench-bound", "bench-xts", "bench-adiantum"}
	shown := map[string]string{"bench-sealed": "sealed", "bench-bound": "bound", "bench-xts": "xts", "bench-adiantum": "adiantum"}
	for _, mode := range []string{"wal", "delete"} {
		b.Run(mode, func(b *testing.B) {
			took := map[string][]float64{}
			for b.Loop() {
				plain := map[string][2]time.Duration{}
				for _, name := range names {
					for op, t := range rows(b, name, filepath.Join(b.TempDir(), "db"), mode) {
						if name == "os" {
							plain[op] = t
							continue
						}
						took[shown[name]+"-"+op+"-cpu"] = append(took[shown[name]+"-"+op+"-cpu"], float64(plain[op][0])/float64(t[0]))
						took[shown[name]+"-"+op] = append(took[shown[name]+"-"+op], float64(plain[op][1])/float64(t[1]))
					}
				}
			}
			for name, ratios := range took {
				slices.Sort(ratios)
				b.ReportMetric(ratios[len(ratios)/2], name)
			}
		})
	}
}

// rows returns how much processor time, and time that passes, inserting and selecting takes.
func rows(b *testing.B, vfsName, path, mode string) map[string][2]time.Duration {
	uri := URI(vfsName, path, "journal_mode("+mode+")", "cache_size(-2000)")
	if vfsName == "bench-xts" || vfsName == "bench-adiantum" {
		// 32 bytes for adiantum, 64 for AES-256 in XTS.
		uri = URI(vfsName, path, fmt.Sprintf("hexkey('%0*x')", map[string]int{"bench-xts": 128, "bench-adiantum": 64}[vfsName], 0xb10c5ea1), "journal_mode("+mode+")", "cache_size(-2000)")
	}
	db, err := sqlite3.Open(uri)
	if err != nil {
		b.Fatal(err)
	}
	measure := func(do func() error) [2]time.Duration {
		start, cpu := time.Now(), processorTime()
		if err := do(); err != nil {
			b.Fatal(vfsName, err)
		}
		return [2]time.Duration{processorTime() - cpu, time.Since(start)}
	}
	const n, batch = 100_000, 1000
	insert := measure(func() error {
		if err := db.Exec(`CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, amount INTEGER, note BLOB)`); err != nil {
			return err
		}
		for i := 0; i < n; i += batch {
			if err := db.Exec(fmt.Sprintf(`INSERT INTO t SELECT %d+i, 'customer '||i, i*7, randomblob(100) FROM %s`, i, series(batch))); err != nil {
				return err
			}
		}
		return db.Close()
	})
	if db, err = sqlite3.Open(uri); err != nil {
		b.Fatal(err)
	}
	selected := measure(func() error {
		got, err := query(db, `SELECT count(*) FROM t WHERE length(note) + amount > 0`)
		if err == nil && got != n {
			err = fmt.Errorf("%d rows of %d", got, n)
		}
		return err
	})
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return map[string][2]time.Duration{"insert": insert, "select": selected}
}
