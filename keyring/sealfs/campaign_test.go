package sealfs_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/keyring/sealfs"
)

var (
	crashes = flag.Int("crashes", 30, "how many crashes of the machine TestModel looks at")
)

// model is a database and what has to be in it.
type model struct {
	t   *testing.T
	g   *rig
	rng *rand.Rand
	mem *vfs.MemFS
	fs  *sealfs.FS
	db  *pebble.DB
	has map[string]uint64 // key, and the seed of its value
}

func (m *model) open() {
	var err error
	m.fs = m.g.over(m.mem)
	m.db, err = pebble.Open("db", pebbleOptions(m.fs))
	require.NoError(m.t, err)
}

func (m *model) value(seed uint64) []byte { return content(seed, int(seed*37%1500)) }

// check compares the whole database, or a checkpoint, with a model.
func (m *model) check(db *pebble.DB, has map[string]uint64) {
	m.t.Helper()
	it, err := db.NewIter(nil)
	require.NoError(m.t, err)
	got := 0
	for it.First(); it.Valid(); it.Next() {
		seed, ok := has[string(it.Key())]
		require.True(m.t, ok, "%s was deleted", it.Key())
		v, err := it.ValueAndErr()
		require.NoError(m.t, err)
		require.True(m.t, bytes.Equal(m.value(seed), v), "%s", it.Key())
		got++
	}
	require.NoError(m.t, it.Error())
	require.NoError(m.t, it.Close())
	require.Equal(m.t, len(has), got, "writes that were acknowledged are missing")
}

// Random writes, batches, flushes, compactions, checkpoints, rotations of the epoch, restarts and crashes
// of the machine, with none, half or all kept of what was not synced: what was acknowledged is there, in
// checkpoints what was there then, and nothing else.
func TestModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed.Of(t), 1))
	g := newRig(t, nil)
	m := &model{t: t, g: g, rng: rng, mem: vfs.NewCrashableMem(), has: map[string]uint64{}}
	m.open()
	copies := map[string]map[string]uint64{}
	ops, rotations := 0, 0
	for crash := 0; crash < *crashes; ops++ {
		switch p := rng.IntN(1000); {
		case p < 850:
			b := m.db.NewBatch()
			next := maps.Clone(m.has)
			for range 1 + rng.IntN(4) {
				key := fmt.Sprintf("%04d", rng.IntN(400))
				if rng.IntN(4) == 0 {
					require.NoError(t, b.Delete([]byte(key), nil))
					delete(next, key)
				} else {
					seed := rng.Uint64N(1 << 16)
					require.NoError(t, b.Set([]byte(key), m.value(seed), nil))
					next[key] = seed
				}
			}
			require.NoError(t, b.Commit(pebble.Sync))
			m.has = next
		case p < 870:
			require.NoError(t, m.db.Flush())
		case p < 880:
			require.NoError(t, m.db.Compact(t.Context(), []byte("0"), []byte("9"), true))
		case p < 890:
			name := fmt.Sprintf("copy %d", ops)
			require.NoError(t, m.db.Checkpoint(name, pebble.WithFlushedWAL()))
			copies[name] = maps.Clone(m.has)
		case p < 900:
			dirs := append([]string{"db"}, slices.Sorted(maps.Keys(copies))...)
			_, err := m.fs.RotateEpoch(t.Context(), dirs...)
			require.NoError(t, err)
			rotations++
		case p < 910:
			require.NoError(t, m.db.Close())
			m.open()
		case p < 920:
			for name, has := range copies {
				db, err := pebble.Open(name, pebbleOptions(m.fs))
				require.NoError(t, err)
				m.check(db, has)
				require.NoError(t, db.Close())
				require.NoError(t, m.fs.RemoveAll(name))
				delete(copies, name)
				break
			}
		case p < 960:
			it := fmt.Sprintf("%04d", rng.IntN(400))
			v, closer, err := m.db.Get([]byte(it))
			if seed, ok := m.has[it]; !ok {
				require.ErrorIs(t, err, pebble.ErrNotFound)
			} else {
				require.NoError(t, err)
				require.True(t, bytes.Equal(m.value(seed), v))
				require.NoError(t, closer.Close())
			}
		default:
			crash++
			crashed := m.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[crash%3], RNG: rng})
			require.NoError(t, m.db.Close())
			m.mem = crashed
			copies = map[string]map[string]uint64{} // nobody synced the directory above
			m.open()
			m.check(m.db, m.has)
		}
	}
	m.check(m.db, m.has)
	require.NoError(t, m.db.Close())
	t.Logf("%d operations, %d crashes, %d rotations", ops, *crashes, rotations)
	require.Positive(t, rotations)
}

// Nothing of what is written is on the disk in clear, neither values nor keys nor what Pebble says of
// itself; of the plain files each of that is found.
func TestNothingInClear(t *testing.T) {
	secrets := []string{"a value that nobody may read", "the id of a customer", "pebble.internal", "leveldb.BytewiseComparator", "[Options]"}
	found := map[string]map[string]bool{}
	for _, kind := range []string{"plain", "sealed"} {
		mem := vfs.NewMem()
		var fs vfs.FS = mem
		if kind == "sealed" {
			fs = newRig(t, nil).over(mem)
		}
		opts := pebbleOptions(fs)
		for i := range opts.Levels {
			opts.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		}
		opts.Comparer = pebble.DefaultComparer
		db, err := pebble.Open("db", opts)
		require.NoError(t, err)
		for round := range 3 {
			for i := range 100 {
				require.NoError(t, db.Set(fmt.Appendf(nil, "%s %d", secrets[1], i), bytes.Repeat([]byte(secrets[0]+fmt.Sprint(round)), 1+i%50), pebble.Sync))
			}
			require.NoError(t, db.Compact(t.Context(), []byte("a"), []byte("z"), false))
		}
		require.NoError(t, db.Set([]byte(secrets[1]), []byte(secrets[0]), pebble.Sync))
		require.NoError(t, db.Checkpoint("db/copy"))
		write(t, fs, "db/pages.tmp", []byte(secrets[0]))
		if s, ok := fs.(*sealfs.FS); ok {
			writePages(t, s, "db/pages", 64, []byte(strings.Join(secrets, " ")))
		} else {
			write(t, fs, "db/pages", []byte(strings.Join(secrets, " ")))
		}
		require.NoError(t, db.Close())
		found[kind] = map[string]bool{}
		files := 0
		var look func(dir string)
		look = func(dir string) {
			names, err := mem.List(dir)
			require.NoError(t, err)
			for _, name := range names {
				path := mem.PathJoin(dir, name)
				fi, err := mem.Stat(path)
				require.NoError(t, err)
				if fi.IsDir() {
					look(path)
					continue
				}
				files++
				b := raw(t, mem, path)
				for _, s := range secrets {
					if bytes.Contains(b, []byte(s)) {
						found[kind][s] = true
						require.Equal(t, "plain", kind, "%s has %q in clear", path, s)
					}
				}
			}
		}
		look("db")
		require.Greater(t, files, 10)
	}
	for _, s := range []string{secrets[0], secrets[1], secrets[3], secrets[4]} {
		require.True(t, found["plain"][s], "the search would not find %q", s)
	}
	require.Empty(t, found["sealed"])
}
