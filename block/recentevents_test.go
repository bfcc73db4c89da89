package block_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

func TestChecksThatSayTheSameAreOneEvent(t *testing.T) {
	g := newRig(t)
	s := g.open()
	for range 200 {
		require.NoError(t, s.Revalidate(g.ctx))
	}
	require.Eventually(t, func() bool {
		all := s.RecentEvents()
		return len(all) > 0 && all[0].Kind == keyring.CheckSucceeded && all[0].Times == 200
	}, time.Minute, time.Millisecond)
	require.Len(t, s.RecentEvents(), 2, "the other is that the store became available")
	// Whatever happens, there is a bound.
	for range 100 {
		require.NoError(t, s.RotateEpoch(g.ctx, nil))
	}
	require.Eventually(t, func() bool { return len(s.RecentEvents()) == 64 }, time.Minute, time.Millisecond)
	first := s.RecentEvents()
	for i := 1; i < len(first); i++ {
		require.False(t, first[i].Time.After(first[i-1].Time), "the latest is first")
	}
}

// Key Vault's refusals name the request, each another one: they are still one event.
func TestRefusalsOfOneKindAreOneEvent(t *testing.T) {
	g := newRig(t)
	s := g.open()
	refuse := func(times int, kind error) {
		for i := range times {
			remove := g.vault.Inject(vaulttest.Fault{Err: &vault.Error{Kind: kind, Detail: fmt.Sprintf("[request %d]", i)}})
			require.ErrorIs(t, s.Revalidate(g.ctx), kind)
			remove()
		}
	}
	refuse(100, vault.ErrAccessDenied)
	refuse(3, vault.ErrKeyDisabled)
	// The latest first; each reason locks after the first check that found it.
	want := []string{"CheckFailed 2", "StateChanged 1", "CheckFailed 1",
		"CheckFailed 99", "StateChanged 1", "CheckFailed 1", "StateChanged 1"}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		var times []string
		for _, e := range s.RecentEvents() {
			times = append(times, fmt.Sprint(e.Kind, " ", e.Times))
		}
		assert.Equal(c, want, times)
	}, time.Minute, time.Millisecond)
}
