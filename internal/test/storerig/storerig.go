// Package storerig is what the tests of block, and of the packages on top of it, begin
// with: a store on a file system in memory, a vault in memory, and a clock that stands
// still until it is moved.
package storerig

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/unclose"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Start is when a rig's clock starts.
func Start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// Rig is a store that is not yet open, with all that it needs. A test changes what it
// likes before Open.
type Rig struct {
	T     testing.TB
	Ctx   context.Context
	Clock *vaulttest.Clock
	Vault *vaulttest.Vault
	Key   vault.KeyID // the first version of the key "customer"
	KEK   *kek.KEK    // that key, without a version
	Dir   string
	Opts  block.Options
}

// New returns a rig. A vault that a test uses in its place must share Clock.
func New(t testing.TB) *Rig {
	clock := vaulttest.NewClock(Start())
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	return &Rig{T: t, Ctx: context.Background(), Clock: clock, Vault: v, Key: id,
		KEK: kek.New(v, id.Versionless()), Dir: "store",
		Opts: block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20}, RecordCache: 1 << 20,
			Keyring: keyring.Options{Clock: clock}}}
}

// Open opens the rig's store; the cleanup verifies and closes it.
func (g *Rig) Open() *block.Store {
	g.T.Helper()
	s, err := block.Open(g.Ctx, g.Dir, g.KEK, &g.Opts)
	require.NoError(g.T, err)
	g.T.Cleanup(func() {
		if s.State().Status == keyring.Available {
			_, err := s.Verify(context.Background(), nil)
			require.NoError(g.T, err)
		}
		require.NoError(g.T, s.Close())
	})
	return s
}

// SetEngine changes a value of the store's engine behind its back, while it is closed.
// The key is the engine's, as docs/format.md has it.
func (g *Rig) SetEngine(key, value []byte) {
	g.T.Helper()
	db, err := pebble.Open(g.Dir, &pebble.Options{FS: g.Opts.Pebble.FS, ErrorIfNotExists: true,
		FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	require.NoError(g.T, err)
	require.NoError(g.T, db.Set(key, value, pebble.Sync))
	require.NoError(g.T, db.Close())
	require.NoError(g.T, unclose.Store(g.Opts.Pebble.FS, g.Dir))
}

// quiet is a logger of Pebble's that says nothing of what goes well.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
