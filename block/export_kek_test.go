package block

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/place"
)

// DroppingKEKs reports whether RewrapDEKs is looking for KEKs that no record names.
func (s *Store) DroppingKEKs() bool { return len(s.part.Floor().KEKs) > 0 }

// AnnounceCopy does what a Checkpoint does before its first file is there, and no more.
func (s *Store) AnnounceCopy(t testing.TB, ctx context.Context, dir string) {
	t.Helper()
	require.NoError(t, s.announce(ctx, s.aboutToBe(dir, place.NewInstance())))
}
