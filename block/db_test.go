package block_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// dbRig is a DB whose stores have each a KEK of their own, all in one vault.
type dbRig struct {
	t     *testing.T
	ctx   context.Context
	vault *vaulttest.Vault
	clock *vaulttest.Clock
	opts  block.DBOptions
	store block.Options
	db    *block.DB

	mu   sync.Mutex
	keks map[string]*kek.KEK
}

func newDBRig(t *testing.T) *dbRig {
	g := &dbRig{t: t, ctx: t.Context(), clock: vaulttest.NewClock(start), keks: map[string]*kek.KEK{}}
	g.vault = vaulttest.New(&vaulttest.Options{Clock: g.clock})
	g.store = block.Options{ManualRewrap: true, Keyring: keyring.Options{Clock: g.clock}}
	g.opts = block.DBOptions{Clock: g.clock, RecordCache: 1 << 16, RowCache: 1 << 16,
		Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
		Resolve: func(_ context.Context, name string) (*kek.KEK, *block.Options, error) {
			return g.kek(name), &g.store, nil
		}}
	g.openDB()
	return g
}

func (g *dbRig) openDB() {
	g.t.Helper()
	db, err := block.OpenDB(g.ctx, "db", &g.opts)
	require.NoError(g.t, err)
	g.db = db
	g.t.Cleanup(func() { require.NoError(g.t, db.Close()) })
}

func (g *dbRig) reopen() {
	g.t.Helper()
	require.NoError(g.t, g.db.Close())
	g.openDB()
}

func (g *dbRig) kek(name string) *kek.KEK {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keks[name] == nil {
		g.keks[name] = kek.New(g.vault, g.vault.CreateKey(fmt.Sprint("customer-", len(g.keks))).Versionless())
	}
	return g.keks[name]
}

func (g *dbRig) create(name string) *block.Store {
	g.t.Helper()
	s, err := g.db.Create(g.ctx, name, g.kek(name), &g.store)
	require.NoError(g.t, err)
	return s
}

// names returns the names of the stores, and that each is whole.
func (g *dbRig) names() (names []string) {
	g.t.Helper()
	for in, err := range g.db.Stores(g.ctx) {
		require.NoError(g.t, err)
		require.NotZero(g.t, in.ID)
		require.NotZero(g.t, in.Generation)
		require.Equal(g.t, g.kek(in.Name).ID(), in.KEK.Versionless())
		names = append(names, in.Name)
	}
	return names
}

func (g *dbRig) acquire(name string) (*block.Store, func()) {
	g.t.Helper()
	s, release, err := g.db.Acquire(g.ctx, name)
	require.NoError(g.t, err)
	return s, release
}

func requireData(t *testing.T, s *block.Store, id, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), []byte(id), nil)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

// Stores with the same ids of blocks have nothing in common.
func TestStoresOfADB(t *testing.T) {
	g := newDBRig(t)
	require.Empty(t, g.names())
	stores := map[string]*block.Store{}
	for _, name := range []string{"a", "b", "a/b", "a\x00", "é", "e\u0301", strings.Repeat("x", 255)} {
		stores[name] = g.create(name)
		require.NoError(t, stores[name].Put(g.ctx, []byte("id"), []byte("of "+name)))
	}
	_, err := g.db.Create(g.ctx, "a", g.kek("a"), nil)
	require.ErrorIs(t, err, block.ErrExists)
	for _, bad := range []string{"", strings.Repeat("x", 256), "\xff"} {
		_, err := g.db.Create(g.ctx, bad, g.kek("a"), nil)
		require.ErrorIs(t, err, block.ErrName)
		_, err = g.db.Open(g.ctx, bad, g.kek("a"), nil)
		require.ErrorIs(t, err, block.ErrName)
		_, _, err = g.db.Acquire(g.ctx, bad)
		require.ErrorIs(t, err, block.ErrName)
		_, err = g.db.Drop(g.ctx, bad)
		require.ErrorIs(t, err, block.ErrName)
	}
	for range 3 {
		for name, s := range stores {
			requireData(t, s, "id", "of "+name)
		}
	}
	require.NoError(t, stores["a"].Delete(g.ctx, []byte("id")))
	_, err = stores["a"].Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	requireData(t, stores["b"], "id", "of b")
	require.NoError(t, stores["b"].RotateEpoch(g.ctx, nil))
	require.NoError(t, stores["b"].Rekey(g.ctx, block.Range{}, nil))
	_, err = stores["b"].Erase(g.ctx, nil)
	require.NoError(t, err)
	require.Len(t, g.names(), len(stores))

	g.reopen()
	require.Len(t, g.names(), len(stores))
	_, err = g.db.Create(g.ctx, "a", g.kek("a"), nil)
	require.ErrorIs(t, err, block.ErrExists)
	_, err = g.db.Open(g.ctx, "c", g.kek("a"), nil)
	require.ErrorIs(t, err, block.ErrNoStore)
	_, _, err = g.db.Acquire(g.ctx, "c")
	require.ErrorIs(t, err, block.ErrNoStore)
	for name := range stores {
		s, release := g.acquire(name)
		if name != "a" {
			requireData(t, s, "id", "of "+name)
		}
		rep, err := s.Verify(g.ctx, nil)
		require.NoError(t, err)
		require.Empty(t, rep.Problems)
		release()
	}
}

// One customer's no is nobody else's.
func TestRevokedStoreOfADB(t *testing.T) {
	g := newDBRig(t)
	a, b := g.create("a"), g.create("b")
	require.NoError(t, a.Put(g.ctx, []byte("id"), []byte("1")))
	require.NoError(t, b.Put(g.ctx, []byte("id"), []byte("2")))
	g.vault.SetEnabled(g.kek("a").ID(), false)
	require.ErrorIs(t, a.Revalidate(g.ctx), vault.ErrKeyDisabled)
	_, err := a.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	requireData(t, b, "id", "2")
	require.NoError(t, b.Put(g.ctx, []byte("id"), []byte("3")))

	g.reopen()
	a, release := g.acquire("a")
	_, err = a.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrInaccessible)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	release()
	b, release = g.acquire("b")
	requireData(t, b, "id", "3")
	release()
	g.vault.SetEnabled(g.kek("a").ID(), true)
	a, release = g.acquire("a")
	require.NoError(t, a.Revalidate(g.ctx))
	requireData(t, a, "id", "1")
	release()
}

// A vault that refuses leaves nothing of a store that was to be made.
func TestCreateInADBWithoutAccess(t *testing.T) {
	g := newDBRig(t)
	g.vault.SetEnabled(g.kek("a").ID(), false)
	_, err := g.db.Create(g.ctx, "a", g.kek("a"), &g.store)
	require.ErrorIs(t, err, vault.ErrKeyDisabled)
	require.Empty(t, g.names())
	_, _, err = g.db.Acquire(g.ctx, "a")
	require.ErrorIs(t, err, block.ErrNoStore)
	g.vault.SetEnabled(g.kek("a").ID(), true)
	require.NoError(t, g.create("a").Put(g.ctx, []byte("id"), nil))
}

// A directory that Open made is a DB with a store, and the other way round.
func TestDBOfOneStore(t *testing.T) {
	g := newDBRig(t)
	o := g.store
	o.Pebble = g.opts.Pebble
	s, err := block.Open(g.ctx, "one", g.kek(block.DefaultName), &o)
	require.NoError(t, err)
	require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("1")))
	require.NoError(t, s.Close())

	db, err := block.OpenDB(g.ctx, "one", &g.opts)
	require.NoError(t, err)
	var names []string
	for in, err := range db.Stores(g.ctx) {
		require.NoError(t, err)
		require.Equal(t, s.StoreID(), in.ID)
		names = append(names, in.Name)
	}
	require.Equal(t, []string{block.DefaultName}, names)
	one, release, err := db.Acquire(g.ctx, block.DefaultName)
	require.NoError(t, err)
	requireData(t, one, "id", "1")
	release()
	two, err := db.Create(g.ctx, "two", g.kek("two"), &o)
	require.NoError(t, err)
	require.NoError(t, two.Put(g.ctx, []byte("id"), []byte("2")))
	_, err = block.Open(g.ctx, "one", g.kek("two"), &o)
	require.ErrorIs(t, err, block.ErrLocked)
	require.NoError(t, db.Close())
	_, err = two.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrClosed)

	_, err = block.Open(g.ctx, "one", g.kek("two"), &o)
	require.ErrorIs(t, err, block.ErrNoStore, "which one?")
	o.Name = "two"
	s, err = block.Open(g.ctx, "one", g.kek("two"), &o)
	require.NoError(t, err)
	requireData(t, s, "id", "2")
	require.NoError(t, s.Close())
	in, err := block.Inspect(g.ctx, "one", &o)
	require.NoError(t, err)
	require.Equal(t, s.StoreID(), in.Keyring.StoreID)
	require.EqualValues(t, 1, in.Records)
}

// What Acquire opens it shares, and closes when another one needs its place.
func TestAcquire(t *testing.T) {
	g := newDBRig(t)
	for i := range 5 {
		s := g.create(fmt.Sprint(i))
		require.NoError(t, s.Put(g.ctx, []byte("id"), fmt.Appendf(nil, "%d", i)))
		require.NoError(t, s.Close())
	}
	g.opts.MaxOpen = 2
	g.reopen()
	zero, release := g.acquire("0")
	again, releaseAgain := g.acquire("0")
	require.Same(t, zero, again)
	release()
	requireData(t, again, "id", "0")
	releaseAgain()
	_, err := g.db.Open(g.ctx, "0", g.kek("0"), &g.store)
	require.NoError(t, err, "nobody uses it: it is closed, and opened as asked")
	_, err = zero.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrClosed)
	for i := range 5 {
		s, release := g.acquire(fmt.Sprint(i))
		requireData(t, s, "id", fmt.Sprint(i))
		release()
	}
	one, release := g.acquire("1")
	_, err = g.db.Open(g.ctx, "1", g.kek("1"), &g.store)
	require.ErrorIs(t, err, block.ErrLocked)
	require.NoError(t, g.db.Close())
	_, err = one.Get(g.ctx, []byte("id"), nil)
	require.ErrorIs(t, err, block.ErrClosed)
	release()
	_, _, err = g.db.Acquire(g.ctx, "1")
	require.ErrorIs(t, err, block.ErrClosed)
	_, err = g.db.Create(g.ctx, "new", g.kek("new"), nil)
	require.ErrorIs(t, err, block.ErrClosed)
	g.openDB()
	g.opts.Resolve = nil
	g.reopen()
	_, _, err = g.db.Acquire(g.ctx, "1")
	require.ErrorContains(t, err, "Resolve is not set")
	refusal := errors.New("no such customer")
	g.opts.Resolve = func(context.Context, string) (*kek.KEK, *block.Options, error) { return nil, nil, refusal }
	g.reopen()
	_, _, err = g.db.Acquire(g.ctx, "1")
	require.ErrorIs(t, err, refusal)
}

// A dropped store is gone from the engine and from its files; the others are as they were.
func TestDrop(t *testing.T) {
	for _, how := range []string{"open", "acquired", "closed", "inaccessible"} {
		t.Run(how, func(t *testing.T) {
			g := newDBRig(t)
			a, b := g.create("a"), g.create("b")
			for i := range 100 {
				require.NoError(t, a.Put(g.ctx, fmt.Appendf(nil, "needle-a-%d", i), make([]byte, 2000)))
				require.NoError(t, b.Put(g.ctx, fmt.Appendf(nil, "needle-b-%d", i), make([]byte, 2000)))
			}
			id := a.StoreID()
			switch how {
			case "closed":
				require.NoError(t, a.Close())
			case "acquired":
				require.NoError(t, a.Close())
				a, _ = g.acquire("a")
			case "inaccessible":
				g.vault.SetEnabled(g.kek("a").ID(), false)
				require.Error(t, a.Revalidate(g.ctx))
			}
			r, err := g.db.Drop(g.ctx, "a")
			require.NoError(t, err)
			require.True(t, r.Dropped)
			require.Equal(t, "a", r.Name)
			require.Equal(t, id, r.Store)
			require.False(t, r.Pinned)
			require.False(t, r.Incomplete)
			require.Len(t, r.Keys, 1)
			require.Equal(t, g.kek("a").ID(), r.Keys[0].Key.Versionless())
			_, err = a.Get(g.ctx, []byte("needle-a-1"), nil)
			require.ErrorIs(t, err, block.ErrClosed)
			require.Equal(t, []string{"b"}, g.names())
			_, err = g.db.Drop(g.ctx, "a")
			require.ErrorIs(t, err, block.ErrNoStore)
			for name, content := range files(t, g.opts.Pebble.FS, "db") {
				require.NotContains(t, string(content), "needle-a-", name)
			}
			requireFound := false
			for _, content := range files(t, g.opts.Pebble.FS, "db") {
				requireFound = requireFound || strings.Contains(string(content), "needle-b-")
			}
			require.True(t, requireFound, "what is there is found")

			// The name is free, and the new store is another one.
			g.vault.SetEnabled(g.kek("a").ID(), true)
			again := g.create("a")
			require.NotEqual(t, id, again.StoreID())
			_, err = again.Get(g.ctx, []byte("needle-a-1"), nil)
			require.ErrorIs(t, err, block.ErrNotFound)
			rep, err := b.Verify(g.ctx, nil)
			require.NoError(t, err)
			require.EqualValues(t, 100, rep.Blocks)
		})
	}
}

// A checkpoint has all stores, open or not, each as a copy that waits, and what either writes from
// then on does not open with the other's keys.
func TestCheckpointOfADB(t *testing.T) {
	g := newDBRig(t)
	for _, name := range []string{"open", "closed", "revoked"} {
		s := g.create(name)
		require.NoError(t, s.Put(g.ctx, []byte("id"), []byte("of "+name)))
		if name == "closed" {
			require.NoError(t, s.Close())
		}
	}
	g.vault.SetEnabled(g.kek("revoked").ID(), false)
	revoked, release := g.acquire("revoked")
	require.Error(t, revoked.Revalidate(g.ctx))
	release()
	require.NoError(t, g.db.Checkpoint(g.ctx, "copy"))
	require.ErrorIs(t, g.db.Checkpoint(g.ctx, "copy"), fs.ErrExist)
	g.vault.SetEnabled(g.kek("revoked").ID(), true)

	for _, name := range []string{"open", "closed", "revoked"} {
		s, release := g.acquire(name)
		if name == "revoked" {
			require.NoError(t, s.Revalidate(g.ctx))
		}
		require.NoError(t, s.Put(g.ctx, []byte("later"), []byte("of "+name)))
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		require.Len(t, copies, 1, name)
		require.Equal(t, "copy", copies[0].Path)
		require.Equal(t, name == "closed", copies[0].Doubt != "", "%s: %s", name, copies[0].Doubt)
		require.Equal(t, g.kek(name).ID(), copies[0].KEK.Versionless())
		release()
	}
	db, err := block.OpenDB(g.ctx, "copy", &g.opts)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	for _, name := range []string{"open", "closed", "revoked"} {
		s, release, err := db.Acquire(g.ctx, name)
		require.NoError(t, err)
		_, err = s.Get(g.ctx, []byte("id"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible)
		require.NoError(t, s.Revalidate(g.ctx))
		requireData(t, s, "id", "of "+name)
		_, err = s.Get(g.ctx, []byte("later"), nil)
		require.ErrorIs(t, err, block.ErrNotFound)
		source, releaseSource := g.acquire(name)
		require.NotEqual(t, source.Instance(), s.Instance())
		require.Equal(t, source.StoreID(), s.StoreID())
		copies, err := source.Copies(g.ctx)
		require.NoError(t, err)
		require.Equal(t, s.Instance(), copies[0].Instance)
		for id, record := range source.Records() {
			if id == "later" {
				in, err := keyring.ParseRecord([]byte(record))
				require.NoError(t, err)
				require.Greater(t, in.Epoch, uint32(1), "%s: an epoch that the copy does not have", name)
			}
		}
		releaseSource()
		release()
	}
}
