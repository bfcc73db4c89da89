package block

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault/vaulttest"
)

// DEKs are too old at the age at which they are to be replaced, and not before.
func TestDEKsAreDueAtTheirInstant(t *testing.T) {
	o := goldenOptions(vfs.NewMem())
	o.Keyring.RekeyAfter = time.Hour
	o.atRest = true // nothing is renewed meanwhile
	clock := o.Keyring.Clock.(*vaulttest.Clock)
	s, err := Open(t.Context(), "store", goldenKEK(t), o)
	require.NoError(t, err)
	defer s.Close()
	due := func() uint32 {
		h, err := s.keys.Acquire()
		require.NoError(t, err)
		defer h.Release()
		bound, err := s.dueBefore(t.Context(), &h)
		require.NoError(t, err)
		return bound
	}
	clock.Step(time.Hour - 1)
	require.Zero(t, due())
	clock.Step(1)
	require.Equal(t, uint32(2), due())
}

// What is rewrapped keeps its age, also where there is one epoch and nothing older: a KEK
// that was rotated on the first day makes no DEK look as if it had always been there.
func TestAgeThatIsInherited(t *testing.T) {
	o := goldenOptions(vfs.NewMem())
	o.Keyring.RekeyAfter = time.Hour
	o.atRest = true // nothing is renewed meanwhile
	clock := o.Keyring.Clock.(*vaulttest.Clock)
	s, err := Open(t.Context(), "store", goldenKEK(t), o)
	require.NoError(t, err)
	defer s.Close()
	h, err := s.keys.Acquire()
	require.NoError(t, err)
	defer h.Release()
	first := h.Epochs()[0]
	clock.Step(time.Hour - 1)
	require.NoError(t, s.inheritAge(t.Context(), &h, first.ID))
	a, err := s.dekAge(t.Context(), &h)
	require.NoError(t, err)
	require.Equal(t, dekAge{epoch: first.ID, since: first.Created}, a)
	bound, err := s.dueBefore(t.Context(), &h)
	require.NoError(t, err)
	require.Zero(t, bound)
}
