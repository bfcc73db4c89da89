package block_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
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
func left(t *testing.T, s *block.Store) uint64 {
	f, err := s.ForecastRewrap(t.Context())
	require.NoError(t, err)
	return f.Records
}

// A pause stops RewrapDEKs before its next vault call, shows in its progress, holds up
// nothing else, and ends where it began.
func TestPauseRewrap(t *testing.T) {
	g, s := moving(t, 20)
	require.False(t, s.RewrapPaused())
	require.NoError(t, s.PauseRewrap(g.ctx))
	require.NoError(t, s.PauseRewrap(g.ctx), "twice does nothing")
	require.True(t, s.RewrapPaused())

	steps := make(chan block.Step, 100)
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(g.ctx, func(p block.Step) { steps <- p }) }()
	first := <-steps
	require.Equal(t, block.Step{Total: 20, Paused: true}, first)
	work := s.Stats().Running
	require.Len(t, work, 1)
	require.True(t, work[0].Paused)
	g.clock.Advance(30 * time.Second)
	require.NoError(t, s.RotateEpoch(g.ctx, nil), "other operations are not held up")
	require.Zero(t, g.vault.Calls().Total())
	require.EqualValues(t, 20, left(t, s))

	require.NoError(t, s.ResumeRewrap(g.ctx))
	require.NoError(t, s.ResumeRewrap(g.ctx))
	require.NoError(t, <-done)
	close(steps)
	var last block.Step
	for last = range steps {
		require.False(t, last.Paused)
	}
	require.Equal(t, block.Step{Done: 20, Total: 20, VaultCalls: 60}, last, "the pause does not count as time")
	require.Zero(t, left(t, s))
}

// A pause in the midst: what is done is done, and nothing is done twice.
func TestPauseInTheMidst(t *testing.T) {
	g, s := moving(t, 10)
	remove := g.vault.Inject(hangOnUnwrap(7)) // of the third DEK
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(g.ctx, nil) }()
	eventually(t, func() bool { return g.vault.Waiting() == 1 }, "it is on its way")
	require.NoError(t, s.PauseRewrap(g.ctx))
	remove()
	eventually(t, func() bool { return left(t, s) == 6 }, "the DEK that was on its way is rewrapped")
	time.Sleep(20 * time.Millisecond)
	require.EqualValues(t, 6, left(t, s), "and no other")
	require.NoError(t, s.ResumeRewrap(g.ctx))
	require.NoError(t, <-done)
	require.Equal(t, 30, g.vault.Calls().Total())
}

// A pause outlives the store that is open, holds for what is done in the background,
// and not for a copy.
func TestPauseSurvivesReopen(t *testing.T) {
	g, s := moving(t, 5)
	require.NoError(t, s.PauseRewrap(g.ctx))
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, s.Close())
	g.opts.ManualRewrap = false
	s = g.open()
	require.True(t, s.RewrapPaused())
	eventually(t, func() bool {
		running := s.Stats().Running
		return len(running) == 1 && running[0].Paused
	}, "what goes on in the background is paused")
	ctx, cancel := context.WithCancel(g.ctx)
	cancel()
	require.ErrorIs(t, s.RewrapDEKs(ctx, nil), context.Canceled)
	require.EqualValues(t, 5, left(t, s))

	eventually(t, func() bool {
		copies, err := s.Copies(g.ctx)
		require.NoError(t, err)
		return copies[0].NeedsOnly(s.State().KEK)
	}, "the copy is moved on, and nobody has it open")
	other := kek.New(g.vault, g.vault.CreateKey("other").Versionless())
	require.NoError(t, block.RewrapCheckpoint(g.ctx, "copy", g.kek, other, &g.opts))

	require.NoError(t, s.ResumeRewrap(g.ctx))
	eventually(t, func() bool { return left(t, s) == 0 }, "it goes on")
	require.NoError(t, s.Close())
	require.ErrorIs(t, s.PauseRewrap(g.ctx), block.ErrClosed)
	s = g.open()
	require.False(t, s.RewrapPaused())
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
