package block_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// moving is a store with n blocks whose DEKs wait to be rewrapped.
func moving(t *testing.T, n int) (*rig, *block.Store) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache = -1
	s := g.open()
	for i := range n {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), fmt.Append(nil, "data ", i)))
	}
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	g.vault.ResetCalls()
	return g, s
}

// left is how many records are wrapped by an older KEK.
func left(t *testing.T, s *block.Store) (n uint64) {
	uses, err := s.KeyUsage(t.Context())
	require.NoError(t, err)
	for _, u := range uses {
		if u.Key != s.State().KEK {
			n += u.Records
		}
	}
	return n
}

// RewrapDEKs ends with its context in the midst: what is done is done, nothing is done twice,
// and with Options.ManualRewrap nothing goes on by itself, in this store or the next.
func TestRewrapStopsInTheMidst(t *testing.T) {
	g, s := moving(t, 10)
	remove := g.vault.Inject(hangOnUnwrap(7)) // of the third DEK
	ctx, cancel := context.WithCancel(g.ctx)
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(ctx, nil) }()
	eventually(t, func() bool { return g.vault.Waiting() == 1 }, "it is on its way")
	require.NoError(t, s.Put(g.ctx, []byte("new"), nil), "writers are not held up")
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	remove()
	require.EqualValues(t, 7, left(t, s))
	calls := g.vault.Calls().Total()
	require.NoError(t, s.Close())
	s = g.open()
	g.vault.ResetCalls()
	require.EqualValues(t, 7, left(t, s))
	var last block.Step
	require.NoError(t, s.RewrapDEKs(g.ctx, func(p block.Step) { last = p }))
	require.EqualValues(t, 7, last.Done)
	require.Equal(t, 21, g.vault.Calls().Total())
	require.Positive(t, calls)
	require.Zero(t, left(t, s))
}

// A vault that fails for a while does not end the rewrapping in the background: it is
// tried again, without anybody's doing.
func TestRewrapIsTriedAgain(t *testing.T) {
	g, s := moving(t, 3)
	require.NoError(t, s.Close())
	g.opts.ManualRewrap = false
	remove := g.vault.Inject(failUnwrap(4)) // the first is that of Open
	s = g.open()
	eventually(t, func() bool { return left(t, s) < 3 }, "it begins")
	time.Sleep(20 * time.Millisecond)
	require.NotZero(t, left(t, s), "and fails")
	remove()
	eventually(t, func() bool {
		g.clock.Advance(10 * time.Second)
		return left(t, s) == 0
	}, "and is tried again")
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	require.Equal(t, s.State().KEK, uses[0].Key)
}

func hangOnUnwrap(n int) vaulttest.Fault {
	return vaulttest.Fault{Op: vault.OpUnwrapKey, Nth: n, Hang: true}
}

// failUnwrap fails every unwrap from the n-th on.
func failUnwrap(n int) vaulttest.Fault {
	return vaulttest.Fault{Op: vault.OpUnwrapKey, Nth: n, Times: 1 << 30, Err: vaulttest.Unavailable()}
}
