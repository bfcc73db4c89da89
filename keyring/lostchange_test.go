package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// The change that is lost is made again on the document that is there, or says why it does not
// apply there.
func TestLostChanges(t *testing.T) {
	t.Run("an epoch that is old by age is begun once", func(t *testing.T) {
		bubble(t, func(t *testing.T, g *rig) {
			g.opts.EpochMaxAge = time.Hour
			one := g.create()
			other := g.open()
			g.pass(61 * time.Minute)
			require.NoError(t, one.Revalidate(t.Context()))
			require.NoError(t, other.Revalidate(t.Context()))
			require.EqualValues(t, 2, one.State().Epoch)
			require.EqualValues(t, 2, other.State().Epoch)
		})
	})
	t.Run("KEKs that were moved away from meanwhile are not dropped", func(t *testing.T) {
		g := newRig(t)
		g.byKEK()
		another := kek.New(g.vault, g.vault.CreateKey("another").Versionless())
		g.opts.OtherKEKs = []*kek.KEK{another}
		one := g.create()
		_, first := newRecord(t, one)
		require.NoError(t, one.ChangeKEK(t.Context(), another))
		other := func() *keyring.Keyring {
			c := *g
			c.kek, c.opts.OtherKEKs = another, []*kek.KEK{g.kek}
			return c.open()
		}()
		moves := one.KEKMoves()
		// Meanwhile the other one goes there and back, and wraps.
		require.NoError(t, other.ChangeKEK(t.Context(), g.kek))
		record, id := newRecord(t, other)
		require.Equal(t, first, id)
		require.NoError(t, other.ChangeKEK(t.Context(), another))
		require.ErrorIs(t, one.DropKEKs(t.Context(), moves, first), keyring.ErrMoved)
		require.NoError(t, opens(t, one, record))
	})
	t.Run("a KEK's number means one KEK, whoever gave it", func(t *testing.T) {
		g := newRig(t)
		g.byKEK()
		second := kek.New(g.vault, g.vault.CreateKey("second").Versionless())
		third := kek.New(g.vault, g.vault.CreateKey("third").Versionless())
		g.opts.OtherKEKs = []*kek.KEK{second, third}
		one := g.create()
		other := g.open()
		newRecord(t, one)
		require.NoError(t, one.ChangeKEK(t.Context(), second))
		waiting, id := newRecord(t, one) // and is not stored yet
		require.NoError(t, one.ChangeKEK(t.Context(), g.kek))
		require.NoError(t, one.DropKEKs(t.Context(), one.KEKMoves(), id))
		// The other one has never seen the number.
		require.NoError(t, other.ChangeKEK(t.Context(), third))
		_, given := newRecord(t, other)
		require.Greater(t, given, id)
		require.NoError(t, one.Revalidate(t.Context()))
		keks, _ := one.KEKs()
		require.NotContains(t, keks, id, "so that who stores it finds out")
		in, err := keyring.ParseRecord(waiting)
		require.NoError(t, err)
		require.Equal(t, id, in.KEK)
	})
	t.Run("a rotation of the KEK is one of the KEK that it is on", func(t *testing.T) {
		g := newRig(t)
		another := kek.New(g.vault, g.vault.CreateKey("another").Versionless())
		g.opts.OtherKEKs = []*kek.KEK{another}
		one := g.create()
		other := g.open()
		require.NoError(t, one.ChangeKEK(t.Context(), another))
		newest := g.vault.Rotate("another")
		require.NoError(t, other.RotateKEK(t.Context()))
		require.Equal(t, newest, other.State().KEK)
	})
	t.Run("a newer version that was found is not gone back to", func(t *testing.T) {
		g := newRig(t)
		one := g.create()
		second := g.vault.Rotate("customer")
		s := &beforeSwap{Storage: g.storage}
		other, err := keyring.Open(t.Context(), s, g.kek, &g.opts)
		require.NoError(t, err)
		defer other.Close()
		require.Equal(t, second, other.State().KEK, "it takes it up at once")
		g.clock.Advance(time.Second)
		g.vault.Rotate("customer")
		// While it moves to what was the newest, the other one moves further.
		var fourth vault.KeyID
		s.before = func() {
			g.clock.Advance(time.Second)
			fourth = g.vault.Rotate("customer")
			require.NoError(t, one.RotateKEK(t.Context()))
		}
		require.NoError(t, other.Revalidate(t.Context()))
		require.Nil(t, s.before)
		require.Equal(t, fourth, other.State().KEK)
		require.NoError(t, one.Revalidate(t.Context()))
		require.Equal(t, fourth, one.State().KEK)
	})
}

// beforeSwap does something before the next swap.
type beforeSwap struct {
	keyring.Storage
	before func()
}

func (s *beforeSwap) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	if before := s.before; before != nil {
		s.before = nil
		before()
	}
	return s.Storage.Swap(ctx, was, document)
}

// What the options of one Open say of the policy takes nothing back of what those of another say,
// of something else, meanwhile.
func TestPoliciesThatMeet(t *testing.T) {
	g := newRig(t)
	require.NoError(t, g.create().Close())
	s := &beforeSwap{Storage: g.storage, before: func() {
		o := g.opts
		o.EpochMaxDEKs, o.Wrapping = 6400, keyring.ByKEK
		other, err := keyring.Open(t.Context(), g.storage, g.kek, &o)
		require.NoError(t, err)
		require.NoError(t, other.Close())
	}}
	o := g.opts
	o.EpochMaxAge = time.Hour
	r, err := keyring.Open(t.Context(), s, g.kek, &o)
	require.NoError(t, err)
	defer r.Close()
	require.Nil(t, s.before)
	saved := g.open()
	for _, r := range []*keyring.Keyring{r, saved} {
		require.Equal(t, time.Hour, r.Policy().EpochMaxAge)
		require.EqualValues(t, 6400, r.Policy().EpochMaxDEKs)
		require.Equal(t, keyring.ByKEK, r.Wrapping())
	}
}

// Whatever a keyring is about to save, another change that is saved before is not lost: the
// keyring takes it up, and its own is made from it.
func TestEveryChangeThatIsLost(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(ctx context.Context, g *rig, r *keyring.Keyring) error{
		"Rotate": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.BeginEpoch(ctx) },
		"DropEpochs": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, err := r.For(inner.Block{}).DropEpochs(ctx, 2)
			return err
		},
		"RotateKEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.RotateKEK(ctx) },
		"ChangeKEK": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			return r.ChangeKEK(ctx, g.opts.OtherKEKs[0])
		},
		"NewDEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, _, err := r.NewDEK(ctx, nil)
			return err
		},
		"BeginWork": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, err := r.For(inner.Block{}).BeginWork(ctx)
			return err
		},
		"Save":  func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.For(inner.Block{}).Save(ctx) },
		"Close": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.Close() },
		"successor": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
			g.clock.Step(time.Minute)
			g.vault.Rotate("customer")
			return r.Revalidate(ctx)
		},
		"successor, locked": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			g.vault.Revoke()
			if err := r.Revalidate(ctx); !errors.Is(err, vault.ErrAccessDenied) {
				return fmt.Errorf("not locked: %w", err)
			}
			g.vault.Restore()
			g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
			g.clock.Step(time.Minute)
			g.vault.Rotate("customer")
			return r.Revalidate(ctx)
		},
		"the policy": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			o := g.opts
			o.EpochMaxAge = 5 * time.Hour
			again, err := keyring.Open(ctx, g.under, g.kek, &o)
			if err == nil && again.Policy().EpochMaxAge != 5*time.Hour {
				err = errors.New("the policy is not the document's")
			}
			return errors.Join(err, again.Close())
		},
		"Relocate": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			place := vaulttest.New(&vaulttest.Options{Clock: g.clock, Name: "https://elsewhere.vault.example.com"})
			place.RestoreKey(g.vault, "customer")
			k := kek.New(place, vault.KeyID{Vault: "https://elsewhere.vault.example.com", Name: "customer"})
			_, err := keyring.Relocate(ctx, g.under, k, &g.opts)
			return err
		},
	} {
		for what, first := range map[string]func(ctx context.Context, other *keyring.Keyring) error{
			"an epoch": func(ctx context.Context, other *keyring.Keyring) error { return other.BeginEpoch(ctx) },
			"a wrap": func(ctx context.Context, other *keyring.Keyring) error {
				return errors.Join(other.RotateKEK(ctx), other.BeginEpoch(ctx))
			},
		} {
			t.Run(name+" after "+what, func(t *testing.T) {
				t.Parallel()
				if first := name == "successor" || name == "successor, locked"; first && what == "a wrap" {
					return // who makes that has moved it to the successor
				}
				ctx := context.WithoutCancel(t.Context())
				g := newRig(t)
				g.opts.OtherKEKs = []*kek.KEK{kek.New(g.vault, g.vault.CreateKey("another").Versionless())}
				other := g.create()
				require.NoError(t, other.BeginEpoch(ctx))
				s := &beforeSwap{Storage: g.storage}
				g.under = s
				r, err := keyring.Open(ctx, s, g.kek, &g.opts)
				require.NoError(t, err)
				defer r.Close()
				var record []byte
				if name == "Close" {
					newDEK(t, r) // it has something to give back
				}
				s.before = func() {
					require.NoError(t, first(ctx, other))
					record = newDEK(t, other)
				}
				require.NoError(t, change(ctx, g, r))
				require.Nil(t, s.before)
				require.Positive(t, epochOf(t, record)-2)
				if name == "Relocate" {
					return // which no keyring here was given the place of
				}
				if name != "Close" {
					opensAll(t, r, record)
				}
				require.NoError(t, other.Revalidate(ctx))
				opensAll(t, other, record)
				if name != "Close" {
					require.NoError(t, r.Revalidate(ctx))
					require.Equal(t, other.State().Generation, r.State().Generation)
				}
			})
		}
	}
}
