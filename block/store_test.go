package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/storerig"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// start is when the fake clocks of these tests start.
var start = storerig.Start()

// rig is a store on an in-memory file system, an in-memory vault and a fake clock: the
// one of storerig, under the short names that these tests use.
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
	g := storerig.New(t)
	return &rig{t: t, ctx: g.Ctx, clock: g.Clock, vault: g.Vault, key: g.Key, kek: g.KEK, dir: g.Dir, opts: g.Opts}
}

// open opens the rig's store; the cleanup verifies and closes it.
func (g *rig) open() *block.Store {
	g.t.Helper()
	return (&storerig.Rig{T: g.t, Ctx: g.ctx, KEK: g.kek, Dir: g.dir, Opts: g.opts}).Open()
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

// The first write of a store that is being closed is refused because of that, whoever's context
// has ended, and is no word about the keyring.
func TestProofOfAStoreThatIsBeingClosed(t *testing.T) {
	g := newRig(t)
	fs := &stopFS{FS: g.opts.Pebble.FS, lock: g.opts.Pebble.FS.PathJoin("copy", "LOCK"), at: make(chan struct{}), proceed: make(chan struct{})}
	g.opts.Pebble.FS = fs
	s := g.open()
	g.putMany(s, "block", 3)
	require.NoError(t, s.Close())
	g.vault.SetEnabled(g.key, false)
	s = g.open()
	require.Equal(t, keyring.Inaccessible, s.State().Status)
	copied, closed := make(chan error, 1), make(chan error, 1)
	go func() { copied <- s.Checkpoint(g.ctx, "copy") }() // which Close waits for
	<-fs.at
	g.vault.SetEnabled(g.key, true)
	require.NoError(t, s.Revalidate(g.ctx))
	go func() { closed <- s.Close() }()
	require.Eventually(t, func() bool {
		ended, end := context.WithCancel(g.ctx)
		end()
		return errors.Is(s.RotateEpoch(ended, nil), block.ErrClosed) // it looks first whether the store is being closed
	}, time.Minute, time.Millisecond)
	err := s.Put(g.ctx, []byte("a"), []byte("1"))
	close(fs.proceed)
	<-copied
	require.NoError(t, <-closed)
	require.ErrorIs(t, err, block.ErrClosed)
	require.NotErrorIs(t, err, block.ErrCorrupt)
}
