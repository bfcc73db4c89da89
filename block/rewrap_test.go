package block_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// newByKEKRig is a rig whose DEKs are wrapped by the vault.
func newByKEKRig(t *testing.T) *rig {
	g := newRig(t)
	g.opts.Keyring.Wrapping = keyring.ByKEK
	g.opts.ManualRewrap = true
	g.opts.VaultRate = 1 << 30
	return g
}

// RewrapDEKs frees the older KEK versions, and KeyUsage shows it.
func TestRewrapDEKs(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	for i := range 20 {
		require.NoError(t, s.Put(g.ctx, fmt.Append(nil, i), fmt.Append(nil, "data ", i)))
	}
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	uses, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 2)
	for _, u := range uses {
		require.True(t, u.Needed())
		if u.Key == g.key {
			require.EqualValues(t, 20, u.Records)
			require.False(t, u.Document)
		} else {
			require.Equal(t, second, u.Key)
			require.True(t, u.Document)
			require.Equal(t, 1, u.Epochs)
		}
	}
	g.vault.ResetCalls()
	var last block.Step
	require.NoError(t, s.RewrapDEKs(g.ctx, func(p block.Step) { last = p }))
	require.Equal(t, block.Step{Done: 20, Total: 20, VaultCalls: 60}, last)
	require.Equal(t, vaulttest.Calls{Wrap: 20, Unwrap: 40}, g.vault.Calls())
	uses, err = s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, uses, 1)
	g.vault.DestroyVersion(g.key)
	for i := range 20 {
		got, err := s.Get(g.ctx, fmt.Append(nil, i), nil)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("data ", i), string(got))
	}
}

// The vault's throttling is waited out, for as long as it asks.
func TestRewrapWaitsWhenThrottled(t *testing.T) {
	g := newByKEKRig(t)
	clock := g.watch()
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Nth: 1, Err: vaulttest.Throttled(7 * time.Second)})
	done := make(chan error, 1)
	go func() { done <- s.RewrapDEKs(g.ctx, nil) }()
	clock.waited(t, 7*time.Second, 1)
	g.clock.Advance(6 * time.Second)
	select {
	case err := <-done:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	g.clock.Advance(time.Second)
	require.NoError(t, <-done)
}

// A batch that was begun under a KEK which has left the keyring since is refused:
// committed, it would never open again.
func TestBatchUnderAKEKThatLeft(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	b := s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
	g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	require.ErrorIs(t, b.Commit(g.ctx), block.ErrStale)
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, block.ErrNotFound)
	b = s.NewBatch()
	require.NoError(t, b.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, b.Commit(g.ctx))
}

// After a restart in the middle of a move, the KEK of before is given in OtherKEKs.
func TestOtherKEKs(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	other := vaulttest.New(&vaulttest.Options{Name: "mem:other", Clock: g.clock})
	k := kek.New(other, other.CreateKey("key").Versionless())
	require.NoError(t, s.ChangeKEK(g.ctx, k))
	require.NoError(t, s.Close())

	before := g.kek
	g.kek = k
	s, err := block.Open(g.ctx, g.dir, k, &g.opts)
	require.NoError(t, err)
	_, err = s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, keyring.ErrWrongKEK)
	require.ErrorContains(t, err, g.key.String(), "it names the version that is missing")
	require.NoError(t, s.Close())

	g.opts.Keyring.OtherKEKs = []*kek.KEK{before}
	s = g.open()
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "1", string(got))
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	g.vault.Delete("customer")
	_, err = s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
}

// A date that is further away than a Duration can say does not count as past.
func TestKeyThatExpiresInAThousandYears(t *testing.T) {
	g := newRig(t)
	g.vault.SetDates(g.key, time.Time{}, time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), nil))
	g.clock.Advance(5 * time.Minute)
	require.NoError(t, s.Revalidate(g.ctx))
	require.Equal(t, keyring.Available, s.State().Status)
}

// Copies that can be reached follow the KEK; those that cannot are listed with
// what they need, and moved by hand.
func TestCopiesFollowTheKEK(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(g.ctx, "near"))
	require.NoError(t, s.Checkpoint(g.ctx, "far"))
	require.NoError(t, g.opts.Pebble.FS.Rename("far", "elsewhere"))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	copies, err := s.Copies(g.ctx)
	require.NoError(t, err)
	require.Len(t, copies, 2)
	for _, c := range copies {
		want := map[string]vault.KeyID{"near": second, "far": g.key}[c.Path]
		require.Equal(t, want, c.KEK, c.Path)
	}

	from, to := kek.New(g.vault, g.key), kek.New(g.vault, second)
	require.NoError(t, block.ChangeCheckpointKEK(g.ctx, "elsewhere", from, to, &g.opts))
	g.vault.DestroyVersion(g.key)
	for _, dir := range []string{"near", "elsewhere"} {
		c := *g
		c.dir = dir
		r := c.open()
		require.Equal(t, keyring.Inaccessible, r.State().Status, "a copy waits still")
		require.NoError(t, r.Revalidate(g.ctx))
		got, err := r.Get(g.ctx, []byte("a"), nil)
		require.NoError(t, err)
		require.Equal(t, "1", string(got))
	}
	for _, c := range copies {
		require.NoError(t, s.ForgetCopy(g.ctx, c.Instance))
	}
	copies, err = s.Copies(g.ctx)
	require.NoError(t, err)
	require.Empty(t, copies)
}

// A copy whose wraps are stale says which version it needs.
func TestStaleCopyNamesTheVersion(t *testing.T) {
	g := newRig(t)
	s := g.open()
	require.NoError(t, s.Checkpoint(g.ctx, "copy"))
	require.NoError(t, g.opts.Pebble.FS.Rename("copy", "offline"))
	second := g.vault.Rotate("customer")
	require.NoError(t, s.RotateKEK(g.ctx))
	g.vault.DestroyVersion(g.key)
	err := block.ChangeCheckpointKEK(g.ctx, "offline", g.kek, kek.New(g.vault, second), &g.opts)
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	require.ErrorContains(t, err, g.key.String())
}

// A wrong answer of the vault, of the right size, takes the place of no good wrap; and a
// block that is damaged keeps its KEK version needed, and keeps none of the others from
// being rewrapped.
func TestRewrapLeavesWhatDoesNotOpen(t *testing.T) {
	g := newByKEKRig(t)
	s := g.open()
	for _, id := range []string{"a", "b", "c"} {
		require.NoError(t, s.Put(g.ctx, []byte(id), []byte("data "+id)))
	}
	first := g.key
	g.vault.Rotate(g.key.Name)
	require.NoError(t, s.RotateKEK(g.ctx))
	sealed := s.Engine([]byte(dataA))
	damaged := bytes.Clone(sealed)
	damaged[len(damaged)-1] ^= 1
	s.SetEngine([]byte(dataA), damaged)
	before := s.Records()

	err := s.RewrapDEKs(g.ctx, nil)
	require.ErrorIs(t, err, block.ErrCorrupt)
	require.ErrorContains(t, err, `1 records were not rewrapped; the first: block "a"`)
	after := s.Records()
	require.Equal(t, before["a"], after["a"])
	require.NotEqual(t, before["b"], after["b"])
	require.NotEqual(t, before["c"], after["c"])
	usage, err := s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, usage, 2, "the version that wraps it is still needed")
	require.EqualValues(t, 1, s.Stats().Failures["rewrite"]["corrupt"])

	s.SetEngine([]byte(dataA), sealed) // repaired, from a copy
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Nth: 1, Plaintext: make([]byte, 32)})
	require.ErrorIs(t, s.RewrapDEKs(g.ctx, nil), vault.ErrUnsupportedKey)
	remove()
	require.NoError(t, s.RewrapDEKs(g.ctx, nil))
	usage, err = s.KeyUsage(g.ctx)
	require.NoError(t, err)
	require.Len(t, usage, 1)
	g.vault.DestroyVersion(first)
	for _, id := range []string{"a", "b", "c"} {
		got, err := s.Get(g.ctx, []byte(id), nil)
		require.NoError(t, err)
		require.Equal(t, "data "+id, string(got))
	}
}

// A wrong answer of the vault spoils one Get, and not those after it.
func TestWrongDEKIsNotKept(t *testing.T) {
	g := newByKEKRig(t)
	g.opts.Keyring.DEKCache = 0
	s := g.open()
	require.NoError(t, s.Put(g.ctx, []byte("a"), []byte("data")))
	remove := g.vault.Inject(vaulttest.Fault{Op: vault.OpUnwrapKey, Plaintext: make([]byte, 32)})
	_, err := s.Get(g.ctx, []byte("a"), nil)
	require.ErrorIs(t, err, vault.ErrUnsupportedKey)
	remove()
	got, err := s.Get(g.ctx, []byte("a"), nil)
	require.NoError(t, err)
	require.Equal(t, "data", string(got))
}
