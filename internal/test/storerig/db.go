package storerig

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// DBRig is a DB in memory, whose stores have each a KEK of their own in one vault.
type DBRig struct {
	T     testing.TB
	Ctx   context.Context
	Clock *vaulttest.Clock // of the stores and the vault: their checks begin at random moments
	Own   *vaulttest.Clock // the DB's own: to move it begins no check
	Vault *vaulttest.Vault
	Opts  block.DBOptions
	Store block.Options // of each store
	DB    *block.DB     // after Open

	mu   sync.Mutex
	keks map[string]*kek.KEK
}

// NewDB returns a rig whose DB is not yet open.
func NewDB(t testing.TB) *DBRig {
	clock := vaulttest.NewClock(Start())
	g := &DBRig{T: t, Ctx: context.Background(), Clock: clock, Own: vaulttest.NewClock(Start()), keks: map[string]*kek.KEK{},
		Vault: vaulttest.New(&vaulttest.Options{Clock: clock}),
		Store: block.Options{Keyring: keyring.Options{Clock: clock}}}
	g.Opts = block.DBOptions{Clock: g.Own, RecordCache: 1 << 16, RowCache: 1 << 16,
		Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
		Resolve: func(_ context.Context, name string) (*kek.KEK, *block.Options, error) {
			return g.KEK(name), &g.Store, nil
		}}
	return g
}

// Open opens the DB; the cleanup closes it.
func (g *DBRig) Open() *block.DB {
	g.T.Helper()
	db, err := block.OpenDB(g.Ctx, "db", &g.Opts)
	require.NoError(g.T, err)
	g.DB = db
	g.T.Cleanup(func() { require.NoError(g.T, db.Close()) })
	return db
}

// KEK returns the KEK of a store, and makes its key if there is none.
func (g *DBRig) KEK(name string) *kek.KEK {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.keks[name] == nil {
		g.keks[name] = kek.New(g.Vault, g.Vault.CreateKey(fmt.Sprint("customer-", len(g.keks))).Versionless())
	}
	return g.keks[name]
}

// Create makes a store, which stays open.
func (g *DBRig) Create(name string) *block.Store {
	g.T.Helper()
	s, err := g.DB.Create(g.Ctx, name, g.KEK(name), &g.Store)
	require.NoError(g.T, err)
	return s
}
