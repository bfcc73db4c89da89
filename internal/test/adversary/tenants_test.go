package adversary

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// tenants is a DB with three stores: ada's, under a KEK of her own, and those of bob and bea, who have
// one KEK. All have blocks with the same ids.
type tenants struct {
	*rig
	dbOpts block.DBOptions
	keks   map[string]*kek.KEK
	keyIDs map[string]vault.KeyID
	ids    []string
}

func newTenants(t testing.TB) *tenants { return newTenantsBy(newRig(t)) }

func newTenantsBy(g *rig) *tenants {
	g.dir, g.opts.ManualRewrap = "db", true
	n := &tenants{rig: g, ids: many(), keks: map[string]*kek.KEK{}, keyIDs: map[string]vault.KeyID{}}
	n.dbOpts = block.DBOptions{Clock: g.clock, RecordCache: -1, RowCache: -1, Pebble: g.opts.Pebble}
	own, shared := g.vault.CreateKey("ada"), g.vault.CreateKey("shared")
	for name, key := range map[string]vault.KeyID{"ada": own, "bob": shared, "bea": shared} {
		n.keyIDs[name], n.keks[name] = key, kek.New(g.vault, key.Versionless())
	}
	n.do(func(db *block.DB) {
		for _, name := range n.names() {
			n.create(db, name)
		}
	})
	return n
}

// forEachWrappingOfTenants is forEachWrapping.
func forEachWrappingOfTenants(t *testing.T, f func(t *testing.T, n *tenants)) {
	forEachWrapping(t, func(t *testing.T, g *rig) { f(t, newTenantsBy(g)) })
}

func (n *tenants) names() []string { return slices.Sorted(maps.Keys(n.keks)) }

// has is what a store of a name has in a block.
func has(name, id string) []byte { return plain(name + "'s " + id) }

// do opens the DB, and closes it again.
func (n *tenants) do(f func(db *block.DB)) {
	n.t.Helper()
	db, err := block.OpenDB(n.ctx, n.dir, &n.dbOpts)
	require.NoError(n.t, err)
	f(db)
	require.NoError(n.t, db.Close())
}

// create makes and fills a store.
func (n *tenants) create(db *block.DB, name string) {
	n.t.Helper()
	s, err := db.Create(n.ctx, name, n.keks[name], &n.opts)
	require.NoError(n.t, err)
	n.write(s, name)
	require.NoError(n.t, s.Close())
}

func (n *tenants) write(s *block.Store, name string) {
	n.t.Helper()
	b := s.NewBatch()
	for _, id := range n.ids {
		require.NoError(n.t, b.Put(n.ctx, []byte(id), has(name, id)))
	}
	require.NoError(n.t, b.Commit(n.ctx))
}

func (n *tenants) open(db *block.DB, name string) (*block.Store, error) {
	return db.Open(n.ctx, name, n.keks[name], &n.opts)
}

// whole requires that a store has what it was given, all of it and nothing else.
func (n *tenants) whole(db *block.DB, names ...string) {
	n.t.Helper()
	for _, name := range names {
		s, err := n.open(db, name)
		require.NoError(n.t, err, name)
		require.NoError(n.t, n.reads(s, name), name)
		rep, err := s.Verify(n.ctx, nil)
		require.NoError(n.t, err, name)
		require.EqualValues(n.t, len(n.ids), rep.Blocks, name)
		require.NoError(n.t, s.Close())
	}
}

// reads returns the first error of reading a store's blocks. Whatever reads, it must be what was put.
func (n *tenants) reads(s *block.Store, name string) (err error) {
	n.t.Helper()
	for _, id := range n.ids {
		got, e := s.Get(n.ctx, []byte(id), nil)
		if e == nil {
			require.Equal(n.t, string(has(name, id)), string(got))
			continue
		}
		require.Nil(n.t, got)
		require.NotContains(n.t, e.Error(), canary)
		err = errors.Join(err, e)
	}
	return err
}

// number is the number of a store's partition, as the catalogue has it.
func number(records map[string]string, name string) uint32 {
	return binary.BigEndian.Uint32([]byte(records[entryKey(name)][2:6]))
}

// entry is a catalogue's entry of a store.
func entry(state byte, number uint32, name string) string {
	return string(binary.BigEndian.AppendUint32([]byte{1, state}, number)) + name
}

// partition returns what is in a store's partition, under keys without its number.
func partition(records map[string]string, number uint32) map[string]string {
	out := map[string]string{}
	for key, value := range records {
		if binary.BigEndian.Uint32([]byte(key[1:5])) == number {
			out[key[:1]+key[5:]] = value
		}
	}
	return out
}

// at returns the contents of a partition as they are in another one.
func at(number uint32, content map[string]string) map[string]string {
	out := map[string]string{}
	for key, value := range content {
		out[engineKey(key[0], number, key[1:])] = value
	}
	return out
}

// put replaces everything in the engine.
func (n *tenants) put(records map[string]string) {
	n.t.Helper()
	for key := range n.records() {
		if _, ok := records[key]; !ok {
			n.remove(key)
		}
	}
	n.set(records)
}

// pairs are two tenants: of two KEKs, and of one.
func pairs() [][2]string { return [][2]string{{"ada", "bob"}, {"bob", "bea"}} }

// A row of one tenant in the place of another one's, of the same id: its record, its block, or both.
func TestRowsExchangedBetweenTenants(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		good := n.records()
		for _, pair := range pairs() {
			for what, spaces := range map[string][]byte{"the record": {2}, "the block": {3}, "both": {2, 3}} {
				what := fmt.Sprint(pair, ", ", what)
				bad := maps.Clone(good)
				for _, space := range spaces {
					a, b := engineKey(space, number(good, pair[0]), "a"), engineKey(space, number(good, pair[1]), "a")
					bad[a], bad[b] = good[b], good[a]
				}
				n.set(bad)
				n.do(func(db *block.DB) {
					for _, name := range n.names() {
						if !slices.Contains(pair[:], name) {
							n.whole(db, name)
							continue
						}
						s, err := n.open(db, name)
						require.NoError(t, err, what)
						got, err := s.Get(n.ctx, []byte("a"), nil)
						refuses(t, got, err, "%s: %s", what, name)
						rep, err := s.Verify(n.ctx, nil)
						require.ErrorIs(t, err, block.ErrCorrupt)
						require.EqualValues(t, 1, rep.Damaged, what)
						require.EqualValues(t, len(n.ids)-1, rep.Blocks, what)
						require.NoError(t, s.Close())
					}
				})
				n.set(good)
			}
		}
		n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	})
}

// Each meta record of one tenant in the place of another one's: the store is refused, or has what
// it had.
func TestMetaRecordsExchangedBetweenTenants(t *testing.T) {
	n := newTenants(t)
	n.do(func(db *block.DB) { // so that there are more of them
		for _, name := range n.names() {
			s, err := n.open(db, name)
			require.NoError(t, err)
			_, err = s.Erase(n.ctx, nil)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
	})
	good := n.records()
	refused := map[string]bool{}
	for _, pair := range pairs() {
		one, two := partition(good, number(good, pair[0])), partition(good, number(good, pair[1]))
		for key := range one {
			if key[0] != 1 {
				continue
			}
			bad := maps.Clone(good)
			maps.Copy(bad, at(number(good, pair[0]), map[string]string{key: two[key]}))
			maps.Copy(bad, at(number(good, pair[1]), map[string]string{key: one[key]}))
			n.put(bad)
			n.do(func(db *block.DB) {
				for _, name := range pair {
					what := fmt.Sprintf("%v, %q: %s", pair, key[1:], name)
					s, err := n.open(db, name)
					if err != nil {
						require.True(t, damaged(err), "%s: %v", what, err)
						refused[key[1:]] = true
						continue
					}
					if st := s.State(); st.Status != keyring.Available {
						require.Equal(t, "instance", key[1:], what)
						require.NoError(t, s.Revalidate(n.ctx), what)
					}
					if key[1:] == "register" {
						require.ErrorIs(t, second(s.KeyUsage(n.ctx)), block.ErrIncomplete, what)
					}
					require.NoError(t, n.reads(s, name), what)
					require.NoError(t, s.Close())
				}
				for _, name := range n.names() {
					if !slices.Contains(pair[:], name) {
						n.whole(db, name)
					}
				}
			})
		}
	}
	require.Equal(t, map[string]bool{"keyring": true, "store": true, "name": true}, refused)
}

// Everything of one tenant in the place of another one's. What is found under a name says whose it
// is in clear, and where that was made to fit, by a tag.
func TestPartitionsExchangedBetweenTenants(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		good := n.records()
		for _, pair := range pairs() {
			one, two := partition(good, number(good, pair[0])), partition(good, number(good, pair[1]))
			exchanged := func(but ...string) map[string]string {
				a, b := maps.Clone(one), maps.Clone(two)
				for _, key := range but {
					a[key], b[key] = two[key], one[key]
				}
				out := maps.Clone(good)
				maps.Copy(out, at(number(good, pair[0]), b))
				maps.Copy(out, at(number(good, pair[1]), a))
				return out
			}
			n.put(exchanged())
			n.foreign(pair)
			n.vault.SetEnabled(n.keyIDs[pair[0]], false) // nor without an answer of the vault
			n.vault.SetEnabled(n.keyIDs[pair[1]], false)
			n.foreign(pair)
			n.vault.SetEnabled(n.keyIDs[pair[0]], true)
			n.vault.SetEnabled(n.keyIDs[pair[1]], true)

			want := block.ErrCorrupt // its name was not written by it
			if n.keyIDs[pair[0]] != n.keyIDs[pair[1]] {
				want = keyring.ErrWrongKEK
			}
			// With its own name, and with what says that it is no copy.
			for _, but := range [][]string{{"\x01name"}, {"\x01name", "\x01instance"}} {
				n.put(exchanged(but...))
				n.do(func(db *block.DB) {
					for _, name := range pair {
						s, err := n.open(db, name)
						if err == nil {
							require.Len(t, but, 1, "a copy waits, and is looked at later")
							require.Error(t, n.reads(s, name))
							err = s.Revalidate(n.ctx)
							require.ErrorIs(t, s.Put(n.ctx, []byte("a"), nil), block.ErrInaccessible)
							require.NoError(t, s.Close())
						}
						require.ErrorIs(t, err, want)
					}
				})
			}
			n.put(good)
		}
		n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	})
}

// foreign requires that two stores that are found under each other's names are refused by all that is
// done to a store, and that nothing changes.
func (n *tenants) foreign(pair [2]string) {
	n.t.Helper()
	before := n.records()
	n.do(func(db *block.DB) {
		for _, name := range pair {
			for what, err := range map[string]error{
				"Open": second(n.open(db, name)), "Export": second(db.Export(n.ctx, name, new(bytes.Buffer))), "Drop": second(db.Drop(n.ctx, name)),
			} {
				require.ErrorIs(n.t, err, block.ErrForeign, "%s %s", what, name)
			}
		}
		listed := map[string]error{}
		for in, err := range db.Stores(n.ctx) {
			listed[in.Name] = err
		}
		for _, name := range n.names() {
			if slices.Contains(pair[:], name) {
				require.ErrorIs(n.t, listed[name], block.ErrForeign)
			} else {
				require.NoError(n.t, listed[name])
			}
		}
	})
	require.Equal(n.t, before, n.records())
}

// A tenant's partition put back to what it was is not noticed, as that of a store alone is not; an
// anchor of that tenant's notices. The others' anchors have nothing to say of it.
func TestOneTenantRolledBack(t *testing.T) {
	n := newTenants(t)
	anchors := map[string]keyring.Anchor{}
	for _, name := range n.names() {
		anchors[name] = keyring.FileAnchor(t.TempDir() + "/anchor")
	}
	open := func(db *block.DB, name string) (*block.Store, error) {
		o := n.opts
		o.Keyring.Anchor = anchors[name]
		return db.Open(n.ctx, name, n.keks[name], &o)
	}
	old := n.records()
	n.do(func(db *block.DB) {
		for _, name := range n.names() {
			s, err := open(db, name)
			require.NoError(t, err)
			require.NoError(t, s.Put(n.ctx, []byte("later"), has(name, "later")))
			require.NoError(t, s.RotateEpoch(n.ctx, nil))
			require.NoError(t, s.Close())
		}
	})
	now := n.records()
	of := number(old, "ada")
	bad := maps.Clone(now)
	for key := range at(of, partition(now, of)) {
		delete(bad, key)
	}
	maps.Copy(bad, at(of, partition(old, of)))
	n.put(bad)
	n.do(func(db *block.DB) {
		_, err := open(db, "ada")
		require.ErrorIs(t, err, keyring.ErrUnexpected)
		for _, name := range []string{"bob", "bea"} {
			s, err := open(db, name)
			require.NoError(t, err)
			require.NoError(t, n.reads(s, name))
			require.NoError(t, s.Close())
		}
		n.whole(db, "ada") // without an anchor it is a store as any other
	})
}
