package keyring_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// start is when the fake clocks of these tests start.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is a keyring on an in-memory vault and a fake clock.
type rig struct {
	t       *testing.T
	clock   *vaulttest.Clock
	vault   *vaulttest.Vault
	key     vault.KeyID
	kek     *kek.KEK
	storage *storage
	under   keyring.Storage // what storage is seen through, if it is
	opts    keyring.Options
}

func newRig(t *testing.T) *rig {
	clock := vaulttest.NewClock(start)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	return &rig{t: t, clock: clock, vault: v, key: id, kek: kek.New(v, id.Versionless()),
		storage: &storage{}, opts: keyring.Options{Clock: clock}}
}

func (g *rig) create() *keyring.Keyring {
	r, err := keyring.Create(g.t.Context(), g.storage, g.kek, &g.opts)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { r.Close() })
	return r
}

func (g *rig) open() *keyring.Keyring {
	r, err := keyring.Open(g.t.Context(), g.storage, g.kek, &g.opts)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { r.Close() })
	return r
}

func TestRoundTrip(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Wrapping = w
			r := g.create()
			ctx := context.Background()
			key, wrapped, err := r.NewDEK(ctx, []byte("block 7"))
			require.NoError(t, err)
			sealed := key.Seal(nil, []byte("plaintext"), nil)
			require.NoError(t, r.BeginEpoch(ctx))
			require.NoError(t, r.RotateKEK(ctx))
			require.NoError(t, r.Close())

			g.opts.Wrapping = 0
			r = g.open()
			require.Equal(t, w, r.Wrapping())
			again, err := r.OpenDEK(ctx, wrapped, []byte("block 7"))
			require.NoError(t, err)
			got, err := again.Open(nil, sealed, nil)
			require.NoError(t, err)
			require.Equal(t, "plaintext", string(got))

			_, err = r.OpenDEK(ctx, wrapped, []byte("block 8"))
			require.ErrorIs(t, err, keyring.ErrCorrupt)
		})
	}
}
