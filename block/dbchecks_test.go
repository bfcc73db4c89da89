package block_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The checks of stores that are opened together are spread over their interval, from the first one
// on, and after an outage that all of them have seen.
func TestChecksOfManyStoresAreSpread(t *testing.T) {
	const (
		stores = 120
		each   = 10 * time.Second
	)
	bubbles.Test(t, func(t *testing.T) {
		v := vaulttest.New(&vaulttest.Options{Clock: vault.SystemClock()})
		k := kek.New(v, v.CreateKey("key").Versionless())
		opts := &block.Options{Keyring: keyring.Options{CheckEvery: time.Minute}}
		db, err := block.OpenDB(t.Context(), "db", &block.DBOptions{
			Pebble:  block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20, BlockCache: 1 << 20},
			Resolve: func(context.Context, string) (*kek.KEK, *block.Options, error) { return k, opts, nil },
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		for i := range stores {
			s, err := db.Create(t.Context(), fmt.Sprint(i), k, opts)
			require.NoError(t, err)
			require.NoError(t, s.Close())
		}
		all := make([]*block.Store, stores)
		for i := range stores {
			s, release, err := db.Acquire(t.Context(), fmt.Sprint(i))
			require.NoError(t, err)
			defer release()
			all[i] = s
		}
		// count returns the checks of each ten seconds of some minutes. The first of a check's calls
		// is the one that there is in an outage too.
		count := func(minutes int) (checks []int) {
			for range minutes * 6 {
				before := v.Calls().Get
				time.Sleep(each)
				checks = append(checks, v.Calls().Get-before)
			}
			return checks
		}
		requireSpread := func(checks []int) {
			t.Helper()
			// Of 120 at random moments 20 come in ten seconds, and twice as many when leases end,
			// which asks once more: hardly ever more than 75, and all of them where they are in step.
			require.LessOrEqual(t, slices.Max(checks), 75, "%v", checks)
			require.GreaterOrEqual(t, slices.Min(checks), 2, "%v", checks)
		}
		requireSpread(count(3))
		v.SetOutage(vaulttest.NetworkGone())
		requireSpread(count(3))
		v.SetOutage(nil)
		requireSpread(count(3))
		for _, s := range all {
			require.Equal(t, keyring.Available, s.State().Status)
		}
		v.SetOutage(vaulttest.NetworkGone())
		requireSpread(count(12))
		for _, s := range all {
			require.Equal(t, keyring.Inaccessible, s.State().Status)
		}
		v.SetOutage(nil)
		requireSpread(count(2))
		for _, s := range all {
			require.Equal(t, keyring.Available, s.State().Status)
		}
	})
}
