package keyring_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/keyring"
)

// A tag is the same as long as the keyring is, and another for everything else.
func TestTag(t *testing.T) {
	tag := func(r *keyring.Keyring, purpose, data string) [inner.TagSize]byte {
		h, err := r.Acquire()
		require.NoError(t, err)
		defer h.Release()
		tag, err := h.For(inner.Block{}).Tag(purpose, []byte(data))
		require.NoError(t, err)
		return tag
	}
	g := newRig(t)
	r := g.create()
	want := tag(r, "purpose", "data")
	require.NotEqual(t, want, tag(r, "purpose", "datb"))
	require.NotEqual(t, want, tag(r, "purposed", "ata"))
	require.NotEqual(t, want, tag(newRig(t).create(), "purpose", "data"), "another keyring")
	require.NoError(t, r.BeginEpoch(t.Context()))
	require.NoError(t, r.RotateKEK(t.Context()))
	require.NoError(t, r.Close())
	require.Equal(t, want, tag(g.open(), "purpose", "data"))
}

// RekeyAfter is kept in the document, makes epochs begin four times in it, and can be
// taken back.
func TestRekeyAfterIsKept(t *testing.T) {
	g := newRig(t)
	g.opts.RekeyAfter = 40*time.Hour + time.Millisecond
	require.NoError(t, g.create().Close())
	g.opts.RekeyAfter = 0
	g.opts.Lease, g.opts.AllowLongLease, g.opts.CheckEvery = 1000*time.Hour, true, 500*time.Hour
	r := g.open()
	require.Equal(t, keyring.Policy{Wrapping: keyring.ByKeyring, EpochMaxDEKs: keyring.DefaultEpochMaxDEKs,
		EpochMaxAge: keyring.DefaultEpochMaxAge, RekeyAfter: 40 * time.Hour}, r.Policy())
	g.clock.Advance(10*time.Hour - time.Second)
	time.Sleep(5 * time.Millisecond)
	require.Equal(t, 1, r.State().Epochs)
	require.Eventually(t, func() bool {
		g.clock.Advance(time.Second)
		return r.State().Epochs == 2
	}, time.Minute, time.Millisecond)
	require.NoError(t, r.Close())
	g.opts.RekeyAfter = -1
	require.NoError(t, g.open().Close())
	g.opts.RekeyAfter = 0
	require.Zero(t, g.open().Policy().RekeyAfter)
}
