package row

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/engine/memory"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// newTable returns a table on an engine in memory, and its keyring.
func newTable(t testing.TB, c Config) (*Table, *keyring.Keyring) {
	v := vaulttest.New(nil)
	k := kek.New(v, v.CreateKey("customer").Versionless())
	keys, err := keyring.Create(t.Context(), &keyring.MemStorage{}, k, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, keys.Close()) })
	c.Part, c.Keys, c.Use, c.Wrote = memory.New().Partition(c.Number), keys, &Use{}, func() {}
	return New(c), keys
}

// held calls f in a hold.
func held(t testing.TB, keys *keyring.Keyring, f func(h *keyring.Hold)) {
	t.Helper()
	h, err := keys.Acquire()
	require.NoError(t, err)
	defer func() { h.Release() }()
	f(&h)
}

func (t *Table) put(tb testing.TB, ctx context.Context, id string, data []byte) {
	held(tb, t.keys, func(h *keyring.Hold) { require.NoError(tb, t.Put(ctx, h, []byte(id), data)) })
}
