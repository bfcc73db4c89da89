package block_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// Under load, over many revocations: once the state says Inaccessible, no read that
// begins later returns plaintext and no write that begins later is acknowledged;
// and after each restoration everything that was acknowledged is there.
func TestRevocationUnderLoad(t *testing.T) {
	g := newRig(t)
	g.opts.NoSync = true
	s := g.open()
	const workers, ids = 4, 32
	id := func(w, i int) []byte { return fmt.Appendf(nil, "%d/%02d", w, i%ids) }
	version := func(w, n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "worker %d version %06d ", w, n), 20) }

	// closed is set while the store is known to be Inaccessible: after the state
	// said so, and until before it may change back. An operation that sees it both
	// before and after itself was begun and ended within.
	var closed atomic.Uint64 // the number of the revocation; 0: none
	var stop atomic.Bool
	var refused, served atomic.Uint64
	var acknowledged [workers][ids]int
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 1; !stop.Load(); n++ {
				before := closed.Load()
				var err error
				switch n % 4 {
				case 0:
					b := s.NewBatch()
					if err = b.Put(g.ctx, id(w, n), version(w, n)); err == nil {
						err = b.Commit(g.ctx)
					}
					b.Close()
				case 1:
					for _, err = range s.Blocks(g.ctx, block.Range{Start: id(w, n), End: append(id(w, n), 0)}) {
					}
				default:
					err = s.Put(g.ctx, id(w, n), version(w, n))
				}
				inside := before != 0 && closed.Load() == before
				if n%4 != 1 && err == nil {
					acknowledged[w][n%ids] = n
				}
				got, readErr := s.Get(g.ctx, id(w, n), nil)
				insideRead := before != 0 && closed.Load() == before
				switch {
				case inside && err == nil && n%4 != 1:
					t.Error("a write was acknowledged while the store was Inaccessible")
				case insideRead && readErr == nil:
					t.Error("a read returned plaintext while the store was Inaccessible")
				case err != nil && !errors.Is(err, block.ErrInaccessible),
					readErr != nil && !errors.Is(readErr, block.ErrInaccessible) && !errors.Is(readErr, block.ErrNotFound):
					t.Errorf("unexpected: %v, %v", err, readErr)
				case readErr == nil && acknowledged[w][n%ids] != 0 && !bytes.Equal(got, version(w, acknowledged[w][n%ids])):
					t.Errorf("worker %d read something else than it last wrote", w)
				default:
					if err != nil {
						refused.Add(1)
					} else {
						served.Add(1)
					}
					continue
				}
				return
			}
		})
	}
	for n := range uint64(60) {
		op := []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}[n%3]
		was := served.Load()
		require.Eventually(t, func() bool { return served.Load() > was+20 || t.Failed() }, 20*time.Second, time.Millisecond)
		g.vault.Revoke(op)
		require.ErrorIs(t, s.Revalidate(g.ctx), vault.ErrAccessDenied)
		require.Equal(t, keyring.Inaccessible, s.State().Status)
		closed.Store(n + 1)
		was = refused.Load()
		require.Eventually(t, func() bool { return refused.Load() > was+20 || t.Failed() }, 20*time.Second, time.Millisecond)
		closed.Store(0)
		g.vault.Restore(op)
		require.NoError(t, s.Revalidate(g.ctx))
	}
	stop.Store(true)
	wg.Wait()
	for w := range workers {
		for i, n := range acknowledged[w] {
			if n == 0 {
				continue
			}
			got, err := s.Get(context.Background(), id(w, i), nil)
			require.NoError(t, err)
			require.True(t, bytes.Equal(version(w, n), got), "worker %d block %d", w, i)
		}
	}
	t.Logf("%d operations served, %d refused", served.Load(), refused.Load())
}

// What was open when the store was locked ends with the reason, and stays ended.
func TestWhatIsOpenEndsWithTheLock(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for i := range 10 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), []byte("data")))
	}
	batch, snap := s.NewBatch(), s.Snapshot()
	defer batch.Close()
	defer snap.Close()
	require.NoError(t, batch.Put(g.ctx, []byte("late"), []byte("data")))
	steps := 0
	var last error
	for _, err := range s.Blocks(g.ctx, block.Range{}) {
		if last = err; err != nil {
			break
		}
		if steps++; steps == 3 {
			g.vault.SetEnabled(g.key, false)
			require.ErrorIs(t, s.Revalidate(g.ctx), vault.ErrKeyDisabled)
			late := s.Snapshot()
			require.ErrorIs(t, second(late.Get(g.ctx, []byte("1"), nil)), block.ErrInaccessible)
			require.NoError(t, late.Close())
			g.vault.SetEnabled(g.key, true)
			require.NoError(t, s.Revalidate(g.ctx))
		}
	}
	require.Equal(t, 3, steps)
	for what, err := range map[string]error{
		"scan": last, "batch put": batch.Put(g.ctx, []byte("x"), nil), "commit": batch.Commit(g.ctx),
		"snapshot get": second(snap.Get(g.ctx, []byte("1"), nil)), "snapshot has": second(snap.Has(g.ctx, []byte("1"))),
	} {
		require.ErrorIs(t, err, block.ErrInaccessible, what)
		require.ErrorIs(t, err, vault.ErrKeyDisabled, what)
	}
	_, err := s.Get(g.ctx, []byte("late"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	got, err := s.Get(g.ctx, []byte("1"), nil)
	require.NoError(t, err, "the store itself is back")
	require.Equal(t, "data", string(got))
}
