package block_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// start is when the fake clocks of these tests start.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// rig is a store on an in-memory file system, an in-memory vault and a fake clock.
type rig struct {
	t     testing.TB
	ctx   context.Context
	clock *vaulttest.Clock
	vault *vaulttest.Vault
	key   vault.KeyID
	kek   *kek.KEK
	dir   string
	opts  block.Options
}

func newRig(t testing.TB) *rig {
	clock := vaulttest.NewClock(start)
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	id := v.CreateKey("customer")
	return &rig{t: t, ctx: context.Background(), clock: clock, vault: v, key: id,
		kek: kek.New(v, id.Versionless()), dir: "store",
		opts: block.Options{FS: vfs.NewMem(), MemTable: 1 << 20, RecordCache: 1 << 20,
			Keyring: keyring.Options{Clock: clock}}}
}

// open opens the rig's store; the cleanup verifies and closes it.
func (g *rig) open() *block.Store {
	g.t.Helper()
	s, err := block.Open(g.ctx, g.dir, g.kek, &g.opts)
	require.NoError(g.t, err)
	g.t.Cleanup(func() {
		if s.State().Status == keyring.Available {
			_, err := s.Verify(context.Background(), nil)
			require.NoError(g.t, err)
		}
		require.NoError(g.t, s.Close())
	})
	return s
}

func TestPutGetReopen(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			g := newRig(t)
			g.opts.Keyring.Wrapping = w
			s := g.open()
			want := map[string][]byte{}
			for i := range 50 {
				id := fmt.Sprintf("block %02d", i)
				want[id] = bytes.Repeat([]byte{byte(i)}, i*37)
				require.NoError(t, s.Put(g.ctx, []byte(id), want[id]))
			}
			check := func(s *block.Store) {
				for id, data := range want {
					got, err := s.Get(g.ctx, []byte(id), []byte("prefix"))
					require.NoError(t, err)
					require.Equal(t, "prefix"+string(data), string(got))
				}
				n := 0
				for b, err := range s.Blocks(g.ctx, block.Range{}) {
					require.NoError(t, err)
					require.Equal(t, fmt.Sprintf("block %02d", n), string(b.ID))
					require.True(t, bytes.Equal(want[string(b.ID)], b.Data))
					n++
				}
				require.Equal(t, 50, n)
				rep, err := s.Verify(g.ctx, nil)
				require.NoError(t, err)
				require.EqualValues(t, 50, rep.Blocks)
			}
			check(s)
			require.NoError(t, s.Close())
			check(g.open())
		})
	}
}
