package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/seed"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// rig is a database on a file system that can crash.
type rig struct {
	t   testing.TB
	ctx context.Context
	v   *vaulttest.Vault
	k   *kek.KEK
	fs  *vfs.MemFS
	s   *block.Store
	db  *DB

	keyring keyring.Options
}

func newRig(t testing.TB) *rig { return newRigWith(t, keyring.Options{}) }

func newRigWith(t testing.TB, o keyring.Options) *rig {
	v := vaulttest.New(nil)
	g := &rig{t: t, ctx: context.Background(), v: v, k: kek.New(v, v.CreateKey("k").Versionless()), fs: vfs.NewCrashableMem(), keyring: o}
	g.open()
	t.Cleanup(func() {
		_, err := g.s.Verify(g.ctx, nil)
		require.NoError(t, err)
		require.NoError(t, g.s.Close())
	})
	return g
}

func (g *rig) open() {
	var err error
	g.s, err = block.Open(g.ctx, "db", g.k, &block.Options{Pebble: block.PebbleOptions{FS: g.fs, MemTable: 1 << 20, BlockCache: 1 << 20}, RowCache: 1 << 20, RecordCache: 1 << 20,
		Keyring: g.keyring, ManualRewrap: true, VaultRate: 1 << 30})
	require.NoError(g.t, err)
	g.db, err = OpenDB(g.ctx, sealed{g.s})
	require.NoError(g.t, err)
}

// crash goes on with what is on the disk if the machine stops now.
func (g *rig) crash() {
	clone := g.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, 2))})
	require.NoError(g.t, g.s.Close())
	g.fs = clone
	g.open()
}

// things is a table whose rows begin with a colour.
var things = Table{Name: "things", Indexes: []Index{{Name: "colour", Of: func(row []byte) []byte {
	if len(row) < 3 {
		return nil
	}
	return row[:3]
}}}}

// check compares the table and its index with a map.
func (g *rig) check(want map[string]string) {
	g.t.Helper()
	require.NoError(g.t, g.db.View(g.ctx, func(tx *Tx) error {
		keys := slices.Sorted(maps.Keys(want))
		var got []string
		err := tx.Scan(things, nil, func(key, row []byte) bool {
			got = append(got, string(key))
			require.Equal(g.t, want[string(key)], string(row))
			return true
		})
		require.Equal(g.t, keys, got)
		byColour := map[string][]string{}
		for _, key := range keys {
			if row := want[key]; len(row) >= 3 {
				byColour[row[:3]] = append(byColour[row[:3]], key)
			}
			row, err := tx.Get(things, []byte(key))
			require.NoError(g.t, err)
			require.Equal(g.t, want[key], string(row))
		}
		for _, colour := range []string{"red", "blu", "r\x00d"} {
			var got []string
			require.NoError(g.t, tx.Lookup(things, "colour", []byte(colour), func(key, _ []byte) bool {
				got = append(got, string(key))
				return true
			}))
			require.Equal(g.t, byColour[colour], got, colour)
		}
		return err
	}))
}

// Whatever transactions do, abort, and crash, the tables and indexes are those of a
// map to which the committed ones were applied.
func TestAgainstAMap(t *testing.T) {
	seed.Rapid(t)
	rapid.Check(t, func(rt *rapid.T) {
		g := newRig(t)
		want := map[string]string{}
		key := rapid.Custom(func(rt *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 300).Draw(rt, "key")) })
		row := rapid.Custom(func(rt *rapid.T) string {
			colour := rapid.SampledFrom([]string{"red", "blu", "r\x00d", ""}).Draw(rt, "colour")
			return colour + string(bytes.Repeat([]byte{'x'}, rapid.IntRange(0, 600).Draw(rt, "size")))
		})
		abort := errors.New("abort")
		for range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0:
				g.crash()
			default:
				next := maps.Clone(want)
				fails := rapid.IntRange(0, 4).Draw(rt, "fails") == 0
				err := g.db.Update(g.ctx, func(tx *Tx) error {
					for range rapid.IntRange(0, 60).Draw(rt, "changes") {
						k := key.Draw(rt, "k")
						if rapid.IntRange(0, 2).Draw(rt, "delete") == 0 {
							delete(next, k)
							require.NoError(t, tx.Delete(things, []byte(k)))
						} else {
							r := row.Draw(rt, "r")
							next[k] = r
							require.NoError(t, tx.Put(things, []byte(k), []byte(r)))
						}
					}
					if fails {
						return abort
					}
					return nil
				})
				if fails {
					require.ErrorIs(t, err, abort)
				} else {
					require.NoError(t, err)
					want = next
				}
			}
			g.check(want)
		}
	})
}

// Rows grow and shrink a tree of several levels, and deleting all leaves no pages
// but the roots.
func TestManyRows(t *testing.T) {
	g := newRig(t)
	const n = 5000
	want := map[string]string{}
	id := func(i int) string { return string(binary.BigEndian.AppendUint32(nil, uint32(i*2654435761))) }
	for i := 0; i < n; i += 500 {
		require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error {
			for j := i; j < i+500; j++ {
				want[id(j)] = fmt.Sprintf("red %d", j)
				require.NoError(t, tx.Put(things, []byte(id(j)), []byte(want[id(j)])))
			}
			return nil
		}))
	}
	g.check(want)
	g.crash()
	g.check(want)
	for i := range n {
		if i%500 == 0 {
			require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error {
				for j := i; j < i+500; j++ {
					delete(want, id(j))
					require.NoError(t, tx.Delete(things, []byte(id(j))))
				}
				return nil
			}))
		}
	}
	g.check(want)
	pages := 0
	for _, err := range g.s.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		pages++
	}
	require.LessOrEqual(t, pages, 2+2*8, "the first page, the catalog, and what is left of two trees")
}

func TestViewsSeeOneMoment(t *testing.T) {
	g := newRig(t)
	set := func(n uint64) error {
		return g.db.Update(g.ctx, func(tx *Tx) error {
			for _, key := range []string{"a", "b", "c"} {
				if err := tx.Put(things, []byte(key), binary.BigEndian.AppendUint64(nil, n)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	require.NoError(t, set(0))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				var rows []uint64
				if err := g.db.View(g.ctx, func(tx *Tx) error {
					return tx.Scan(things, nil, func(_, row []byte) bool {
						rows = append(rows, binary.BigEndian.Uint64(row))
						return true
					})
				}); err != nil || len(rows) != 3 || rows[0] != rows[1] || rows[1] != rows[2] || rows[0] < last {
					t.Errorf("a view of %v after %d: %v", rows, last, err)
					return
				}
				last = rows[0]
			}
		})
	}
	for n := range uint64(300) {
		require.NoError(t, set(n))
	}
	close(stop)
	wg.Wait()
}

func TestRefusals(t *testing.T) {
	g := newRig(t)
	require.ErrorIs(t, g.db.View(g.ctx, func(tx *Tx) error { return tx.Put(things, []byte("k"), []byte("row")) }), errReadOnly)
	require.ErrorContains(t, g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(things, []byte("k"), make([]byte, MaxEntry)) }), "the most is 1024")
	require.NoError(t, g.db.View(g.ctx, func(tx *Tx) error {
		row, err := tx.Get(Table{Name: "no such table"}, []byte("k"))
		require.Nil(t, row)
		return err
	}))
	for _, page := range [][]byte{nil, {0}, {2, 0}, {0, 1}, {0, 1, 9, 'k'}, {1, 1, 5, 1, 'k'}, {0, 0, 0}} {
		_, err := decode(page)
		require.ErrorIs(t, err, errPage, page)
	}
}

// The rest of the catalog is for names with a slash.
func TestNamesWithASlash(t *testing.T) {
	g := newRig(t)
	key, row := []byte("k"), []byte("red")
	require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(things, key, row) }))
	index := Table{Name: "things/colour"}
	for name, f := range map[string]func(tx *Tx) error{
		"get":             func(tx *Tx) error { _, err := tx.Get(index, key); return err },
		"put":             func(tx *Tx) error { return tx.Put(index, key, row) },
		"delete":          func(tx *Tx) error { return tx.Delete(index, key) },
		"scan":            func(tx *Tx) error { return tx.Scan(index, nil, func(_, _ []byte) bool { return true }) },
		"lookup":          func(tx *Tx) error { return tx.Lookup(index, "colour", row, func(_, _ []byte) bool { return true }) },
		"lookup in index": func(tx *Tx) error { return tx.Lookup(things, "a/b", row, func(_, _ []byte) bool { return true }) },
		"index": func(tx *Tx) error {
			return tx.Put(Table{Name: "things", Indexes: []Index{{Name: "a/b", Of: things.Indexes[0].Of}}}, key, row)
		},
	} {
		require.ErrorContains(t, g.db.Update(g.ctx, f), "has a slash", name)
	}
	g.check(map[string]string{"k": "red"})
}

// Who handles the error of a row and commits finds it and the indexes as they were.
func TestRefusedRowChangesNothing(t *testing.T) {
	g := newRig(t)
	both := things
	both.Indexes = append(slices.Clip(both.Indexes), Index{Name: "all", Of: func(row []byte) []byte { return row }})
	require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(both, []byte("k"), []byte("red")) }))
	require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error {
		row := append([]byte("blu"), make([]byte, MaxEntry/4)...)
		require.ErrorContains(t, tx.Put(both, []byte("k"), row), "index things/all: a value of 259 bytes, the most is 256")
		require.ErrorContains(t, tx.Put(both, []byte("new"), row), "the most is 256")
		return nil
	}))
	g.check(map[string]string{"k": "red"})
}

// A change that the store fails in its middle is not committed.
func TestHalfAChangeIsNotCommitted(t *testing.T) {
	g := newRig(t)
	both := things
	both.Indexes = append(slices.Clip(both.Indexes), Index{Name: "all", Of: func(row []byte) []byte { return row }})
	require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(both, []byte("k"), []byte("red")) }))
	err := g.db.Update(g.ctx, func(tx *Tx) error {
		// Of the three trees, the last index alone is not in the transaction yet.
		require.NoError(t, tx.Lookup(both, "colour", []byte("red"), func(_, _ []byte) bool { return true }))
		g.v.Revoke()
		require.Error(t, g.s.Revalidate(g.ctx))
		require.ErrorIs(t, tx.Put(both, []byte("k"), []byte("blu")), block.ErrInaccessible)
		g.v.Restore()
		require.NoError(t, g.s.Revalidate(g.ctx))
		return nil
	})
	require.ErrorIs(t, err, block.ErrInaccessible)
	g.check(map[string]string{"k": "red"})
}

// With DEKs that are wrapped ByKEK, a transaction that was sealed in part when the KEK
// changed is committed all the same.
func TestTheKEKChangesInATransaction(t *testing.T) {
	g := newRigWith(t, keyring.Options{Wrapping: keyring.ByKEK})
	stale := func() uint64 { return g.s.Stats().Failures["commit"]["stale"] }
	was := stale()
	g.v.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Nth: 2, MutateWrapped: func(*vault.Wrapped) {
		g.v.Rotate("k")
		require.NoError(t, g.s.RotateKEK(g.ctx))
		require.NoError(t, g.s.RewrapDEKs(g.ctx, nil))
	}})
	require.NoError(t, g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(things, []byte("k"), []byte("red")) }))
	require.Equal(t, was+1, stale(), "one batch was refused")
	g.check(map[string]string{"k": "red"})
}

// Without the key nothing is read or written, and nothing is lost.
func TestWithoutTheKey(t *testing.T) {
	g := newRig(t)
	want := map[string]string{"a": "red"}
	put := func(key, row string) error {
		return g.db.Update(g.ctx, func(tx *Tx) error { return tx.Put(things, []byte(key), []byte(row)) })
	}
	require.NoError(t, put("a", "red"))
	g.v.Revoke()
	require.Error(t, g.s.Revalidate(g.ctx))
	require.ErrorIs(t, put("b", "blu"), block.ErrInaccessible)
	require.ErrorIs(t, g.db.View(g.ctx, func(*Tx) error { return nil }), block.ErrInaccessible)
	g.v.Restore()
	require.NoError(t, g.s.Revalidate(g.ctx))
	g.check(want)
	require.NoError(t, put("b", "blu"))
}

func FuzzPage(f *testing.F) {
	n := &node{keys: [][]byte{[]byte("a"), []byte("b")}, values: [][]byte{nil, []byte("x")}}
	f.Add(n.encode())
	f.Add((&node{keys: [][]byte{[]byte("a")}, kids: []pageID{7, 1 << 40}}).encode())
	f.Fuzz(func(t *testing.T, page []byte) {
		n, err := decode(page)
		if err != nil {
			return
		}
		again, err := decode(n.encode())
		require.NoError(t, err)
		require.Equal(t, n.encode(), again.encode())
	})
}
