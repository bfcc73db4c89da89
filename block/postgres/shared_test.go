package postgres_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// What one DB makes and writes the other has, from then on.
func TestTwoDBsAreOne(t *testing.T) {
	g := newRig(t)
	one, two := g.db(), g.db()
	a := g.create(one, "store")
	b := g.open(two, "store")
	require.Equal(t, a.StoreID(), b.StoreID())
	require.Equal(t, a.Instance(), b.Instance())
	require.Equal(t, keyring.Available, status(b), "it is no copy")
	_, err := two.Create(g.ctx, "store", g.kek, &g.store)
	require.ErrorIs(t, err, block.ErrExists, "it is open in this one")
	_, err = g.db().Create(g.ctx, "store", g.kek, &g.store)
	require.ErrorIs(t, err, block.ErrExists)
	_, err = two.Open(g.ctx, "another", g.kek, &g.store)
	require.ErrorIs(t, err, block.ErrNoStore)

	for i := range 20 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		put(t, from, "id", fmt.Sprint("version ", i))
		requireData(t, to, "id", fmt.Sprint("version ", i))
	}
	require.NoError(t, a.Delete(g.ctx, []byte("id")))
	_, err = b.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	batch := b.NewBatch()
	for i := range 50 {
		require.NoError(t, batch.Put(g.ctx, fmt.Appendf(nil, "of the batch %02d", i), []byte(strconv.Itoa(i))))
	}
	snap := a.Snapshot()
	require.NoError(t, batch.Commit(g.ctx))
	n := 0
	for bl, err := range a.Blocks(g.ctx, block.Range{}) {
		require.NoError(t, err)
		require.Equal(t, strconv.Itoa(n), string(bl.Data))
		n++
	}
	require.Equal(t, 50, n)
	_, err = snap.Get(g.ctx, []byte("of the batch 00"), nil)
	require.ErrorIs(t, err, block.ErrNotFound, "a snapshot is of one moment, whoever writes")
	require.NoError(t, snap.Close())
	require.EqualValues(t, 50, requireWhole(t, a).Blocks)

	var names []string
	for in, err := range two.Stores(g.ctx) {
		require.NoError(t, err)
		require.Equal(t, a.StoreID(), in.ID)
		names = append(names, in.Name)
	}
	require.Equal(t, []string{"store"}, names)
	s, release, err := g.db().Acquire(g.ctx, "store")
	require.NoError(t, err)
	requireData(t, s, "of the batch 07", "7")
	release()
}

// Of those who replace what they have read, in several processes, each adds one.
func TestPutIfHasOneWinner(t *testing.T) {
	const each = 15
	g := newRig(t)
	a, b := g.two()
	put(t, a, "count", "0")
	var all sync.WaitGroup
	for _, s := range []*block.Store{a, b, a, b} {
		all.Go(func() {
			for n := 0; n < each; {
				old, err := s.Get(g.ctx, []byte("count"), nil)
				if err == nil {
					was, _ := strconv.Atoi(string(old))
					err = s.PutIf(g.ctx, []byte("count"), old, []byte(strconv.Itoa(was+1)))
				}
				switch {
				case err == nil:
					n++
				case !errors.Is(err, block.ErrChanged):
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	requireData(t, a, "count", strconv.Itoa(4*each))
}

// A block in one process's cache that another process has written or deleted is served by neither
// as it was, from the moment at which the write was acknowledged: the cached row is served only if the
// server has its DEK record, which is no other version's.
func TestCachedBlockIsNeverStale(t *testing.T) {
	g := newRig(t)
	a, b := g.two()
	for i := range 30 {
		want := fmt.Sprint("version ", i)
		put(t, a, "hot", want)
		hits := b.Stats().Rows.Hits
		for range 4 {
			requireData(t, b, "hot", want)
		}
		require.Greater(t, b.Stats().Rows.Hits, hits, "it was in the cache")
	}
	require.NoError(t, a.RotateEpoch(g.ctx, nil))
	requireData(t, b, "hot", "version 29")
	require.NoError(t, a.Rekey(g.ctx, block.Range{}, nil))
	requireData(t, b, "hot", "version 29")
	require.NoError(t, a.Delete(g.ctx, []byte("hot")))
	_, err := b.Get(g.ctx, []byte("hot"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)

	// While somebody writes: what was acknowledged before a Get is the least that it finds.
	var acknowledged atomic.Int64
	done := make(chan struct{})
	put(t, a, "hot", "0")
	go func() {
		defer close(done)
		for n := range 300 {
			if err := a.Put(g.ctx, []byte("hot"), []byte(strconv.Itoa(n))); err != nil {
				t.Error(err)
				return
			}
			acknowledged.Store(int64(n))
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		least := acknowledged.Load()
		got, err := b.Get(g.ctx, []byte("hot"), nil)
		require.NoError(t, err)
		n, err := strconv.ParseInt(string(got), 10, 64)
		require.NoError(t, err)
		require.GreaterOrEqual(t, n, least)
	}
}

// Of those who make a store of one name at once, one does, and the others are told that it is there, or is being
// made. Who is told that it is there opens it.
func TestCreatedByTwoAtOnce(t *testing.T) {
	g := newRig(t)
	dbs := []*block.DB{g.db(), g.db(), g.db()}
	for i := range 8 {
		name := fmt.Sprint("store ", i)
		made := make([]*block.Store, len(dbs))
		var all sync.WaitGroup
		for n, db := range dbs {
			all.Go(func() {
				s, err := db.Create(g.ctx, name, g.kek, &g.store)
				made[n] = s
				if errors.Is(err, block.ErrExists) {
					_, err = db.Open(g.ctx, name, g.kek, &g.store)
				} else if errors.Is(err, block.ErrLocked) {
					return
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		var winner *block.Store
		for _, s := range made {
			if s != nil {
				require.Nil(t, winner, "two were made")
				winner = s
			}
		}
		require.NotNil(t, winner)
		put(t, winner, "id", name)
		other := g.open(g.db(), name)
		requireData(t, other, "id", name)
		require.Equal(t, winner.StoreID(), other.StoreID())
	}
	require.EqualValues(t, 8, ask[int](g, `select count(*) from meta where name = 'keyring'`), "of those that lost nothing is left")
	require.EqualValues(t, 8, ask[int](g, `select count(distinct part) from meta where part between 0 and 4294967294`))
}

// Who is told that a store exists, whose creation has saved its document and has not returned, finds it: the
// entry says from then on that the store is there, so that another process, which has looked before there was a
// document, does not take the name away.
func TestStoreThatIsToldOfStays(t *testing.T) {
	g := newRig(t)
	put(t, g.create(g.db(), "store"), "id", "data")
	const entries = `meta where part = 4294967295 and encode(name, 'escape') like 'store/%'`
	creating := `with changed as (update ` + strings.Replace(entries, " where", " set value = set_byte(value, 1, 1), revision = revision + 1 where", 1) + ` returning 1) select count(*) from changed`
	require.Equal(t, 1, ask[int](g, creating))
	_, err := g.db().Create(g.ctx, "store", g.kek, &g.store)
	require.ErrorIs(t, err, block.ErrExists)
	require.Equal(t, 2, ask[int](g, `select get_byte(value, 1) from `+entries))
	requireData(t, g.open(g.db(), "store"), "id", "data")
}

// A creation that waits for its vault is not removed by another process that opens the schema, and
// gives way to one that overtakes it.
func TestCreationThatWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		meanwhile func(g *rig, db *block.DB)
		is        error
	}{
		"somebody opens the schema": {func(g *rig, db *block.DB) {
			_, err := db.Open(g.ctx, "store", g.kek, &g.store)
			require.ErrorIs(g.t, err, block.ErrNoStore)
			_, err = db.Drop(g.ctx, "store")
			require.ErrorIs(g.t, err, block.ErrNoStore)
		}, nil},
		"somebody makes it": {func(g *rig, db *block.DB) { put(g.t, g.create(db, "store"), "id", "of the other") }, block.ErrExists},
		"somebody is making it": {func(g *rig, db *block.DB) {
			let := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Hang: true, Nth: 1})
			made := make(chan error, 1)
			go func() {
				_, err := db.Create(g.ctx, "store", g.kek, &g.store)
				made <- err
			}()
			require.Eventually(g.t, func() bool { return g.vault.Waiting() == 2 }, long, short)
			g.t.Cleanup(func() {
				let()
				require.NoError(g.t, <-made, "which is its store then")
			})
		}, block.ErrLocked},
		"somebody makes and drops it": {func(g *rig, db *block.DB) {
			g.create(db, "store")
			_, err := db.Drop(g.ctx, "store")
			require.NoError(g.t, err)
		}, block.ErrNoStore},
		"somebody fails to make it": {func(g *rig, db *block.DB) {
			remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Err: vault.ErrAccessDenied})
			defer remove()
			_, err := db.Create(g.ctx, "store", g.kek, &g.store)
			require.ErrorIs(g.t, err, vault.ErrAccessDenied)
		}, block.ErrNoStore},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			first := g.db()
			let := g.vault.Inject(vaulttest.Fault{Op: vault.OpWrapKey, Hang: true, Nth: 1})
			defer let()
			type result struct {
				s   *block.Store
				err error
			}
			got := make(chan result, 1)
			go func() {
				s, err := first.Create(g.ctx, "store", g.kek, &g.store)
				got <- result{s, err}
			}()
			require.Eventually(t, func() bool { return g.vault.Waiting() == 1 }, long, short)
			tt.meanwhile(g, g.db())
			let()
			r := <-got
			if tt.is != nil {
				require.ErrorIs(t, r.err, tt.is)
				require.LessOrEqual(t, ask[int](g, `select count(*) from meta where name = 'keyring'`), 1)
			} else {
				require.NoError(t, r.err)
				put(t, r.s, "id", "of the first")
				requireData(t, g.open(g.db(), "store"), "id", "of the first")
			}
			if errors.Is(tt.is, block.ErrNoStore) {
				put(t, g.create(g.db(), "store"), "id", "anew")
			}
		})
	}
}
