package rewrite

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/progress"
	"github.com/blockseal/blockseal/internal/row"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// rig is a rewriter of a table on an engine in memory.
type rig struct {
	*Rewriter
	t     testing.TB
	clock *vaulttest.Clock
	vault *vaulttest.Vault
}

func newRig(t testing.TB, o keyring.Options, recordCache int64) rig {
	g := rig{t: t, clock: vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
	v := vaulttest.New(&vaulttest.Options{Clock: g.clock})
	o.Clock, g.vault = g.clock, v
	keys, err := keyring.Create(t.Context(), &keyring.MemStorage{}, kek.New(v, v.CreateKey("customer").Versionless()), &o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	c := Config{Use: &row.Use{}, Keys: keys, Ctx: context.Background(), VaultRate: 1000, Wrote: func() {},
		MayWrite: func(context.Context, *keyring.Hold) error { return nil },
		Board:    progress.NewBoard(t.Context(), keys.For(inner.Block{}), func(func()) bool { return false }, func(string, error) {})}
	c.Table = row.New(row.Config{Part: memory.New().Partition(0), Keys: keys, Use: c.Use, Common: row.NewCommon(row.Engine{}, recordCache, 0), Wrote: c.Wrote})
	g.Rewriter = New(c)
	return g
}

func (g rig) put(id, data string) {
	g.t.Helper()
	g.held(func(h *keyring.Hold) { require.NoError(g.t, g.Table.Put(g.t.Context(), h, []byte(id), []byte(data))) })
}

// held calls f in a hold.
func (g rig) held(f func(h *keyring.Hold)) {
	g.t.Helper()
	h, err := g.Keys.Acquire()
	require.NoError(g.t, err)
	defer func() { h.Release() }()
	f(&h)
}
