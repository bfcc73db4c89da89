package local_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

// A clock that is wrong takes no key: neither by itself, nor through whatever is done
// while it is wrong, nor by going back and forth.
func TestAWrongClockPurgesNothing(t *testing.T) {
	for _, protected := range []bool{false, true} {
		for what, wrong := range map[string]func(r *rig){
			"ahead by a century":  func(r *rig) { r.clock.Step(100 * 365 * day) },
			"ahead by 292 years":  func(r *rig) { r.clock.Step(time.Duration(1<<63 - 1)) },
			"ahead, a second ago": func(r *rig) { r.clock.Step(8 * day); r.clock.Advance(time.Second) },
			"back by a century":   func(r *rig) { r.clock.Step(-40 * 365 * day) },
			"back and forth": func(r *rig) {
				r.clock.Step(8 * day)
				_, err := r.Maintain(t.Context())
				require.NoError(t, err)
				r.clock.Step(-8 * day)
				_, err = r.Maintain(t.Context())
				require.NoError(t, err)
				r.clock.Step(8 * day)
			},
		} {
			t.Run(fmt.Sprint(what, ", protected ", protected), func(t *testing.T) {
				r := newRigWith(t, local.Options{RetentionDays: 7, PurgeProtection: protected})
				ctx := t.Context()
				w, secret := r.wrap(r, r.create("kek"))
				r.create("other")
				_, err := r.DeleteKey(ctx, "kek")
				require.NoError(t, err)
				wrong(r)
				for range 3 {
					_, err = r.Maintain(ctx)
					require.NoError(t, err)
					require.NoError(t, r.Grant(ctx, "ingest", vault.OpGet))
					_, err = r.RotateKey(ctx, "other")
					require.NoError(t, err)
					_, err = r.CreateKey(ctx, "kek", nil)
					require.ErrorIs(t, err, vault.ErrKeyDeleted)
				}
				require.NotContains(t, kinds(r.takeEvents()), local.KeyPurged)
				if protected {
					require.ErrorIs(t, r.PurgeKey(ctx, "kek"), vault.ErrAccessDenied)
				}
				_, err = r.RecoverKey(ctx, "kek")
				require.NoError(t, err)
				r.unwraps(r, w, secret)
			})
		}
	}
}

// A retention that began anew is counted anew, and a handle that was opened meanwhile
// goes by what the file says.
func TestRetentionIsCountedInTheFile(t *testing.T) {
	r := newRigWith(t, local.Options{RetentionDays: 7, PurgeProtection: true})
	ctx := t.Context()
	r.create("kek")
	delete := func() {
		_, err := r.DeleteKey(ctx, "kek")
		require.NoError(t, err)
	}
	delete()
	r.maintain(6)
	_, err := r.RecoverKey(ctx, "kek")
	require.NoError(t, err)
	delete()
	r.maintain(4)
	other := r.another()
	for range 3 {
		require.ErrorIs(t, other.PurgeKey(ctx, "kek"), vault.ErrAccessDenied)
		r.clock.Advance(day)
		require.NoError(t, other.Grant(ctx, "ingest", vault.OpGet), "any change counts, and none purges")
	}
	deleted, err := other.ListDeleted(ctx)
	require.NoError(t, err)
	require.Len(t, deleted, 1)
	require.NoError(t, other.PurgeKey(ctx, "kek"), "the protection ends with the retention")
}

// Where nobody looks for weeks, a key is kept for longer, and Maintain writes no more
// often than once an hour for the count alone.
func TestRetentionThatNobodySawPass(t *testing.T) {
	r := newRigWith(t, local.Options{RetentionDays: 7})
	ctx := t.Context()
	r.create("kek")
	_, err := r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	generation := func() uint64 {
		info, err := r.Info(ctx)
		require.NoError(t, err)
		return info.Generation
	}
	for week := range 7 {
		before := generation()
		r.clock.Advance(7 * day)
		_, err = r.Maintain(ctx)
		require.NoError(t, err)
		require.Equal(t, before+1, generation())
		_, err = r.Maintain(ctx)
		require.NoError(t, err)
		require.Equal(t, before+1, generation())
		deleted, err := r.ListDeleted(ctx)
		require.NoError(t, err)
		require.Equal(t, week < 6, len(deleted) == 1, "week %d", week)
	}
}
