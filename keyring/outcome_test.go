package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// lateSwap is a storage that saves and says that it has not, or does not save at all, at the
// next Swap.
type lateSwap struct {
	keyring.Storage
	next string // "saved", "not saved", "damaged", "sent again", ""
}

var errOutcome = errors.New("nobody knows what became of it")

func (s *lateSwap) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	next := s.next
	s.next = ""
	switch next {
	case "not saved":
		return "", errOutcome
	case "damaged": // as of a file that has become too large
		return "", fmt.Errorf("the document that is to be replaced: %w", keyring.ErrCorrupt)
	}
	now, err := s.Storage.Swap(ctx, was, document)
	if next == "saved" && err == nil {
		return "", errOutcome
	}
	if next == "sent again" && err == nil { // by a client that got no answer to the first
		return s.Storage.Swap(ctx, was, document)
	}
	return now, err
}

// After a swap of which nobody knows what became, nothing of it is believed until the storage has
// been asked; then what is there is, and nothing else. What it reserved is counted as used.
func TestSwapsOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	type step func(ctx context.Context, g *rig, r *keyring.Keyring) error
	for name, change := range map[string]step{
		"Rotate": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.BeginEpoch(ctx) },
		"DropEpochs": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, err := r.For(inner.Block{}).DropEpochs(ctx, 2)
			return err
		},
		"RotateKEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.RotateKEK(ctx) },
		"ChangeKEK": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			return r.ChangeKEK(ctx, kek.New(g.vault, vault.KeyID{Name: "another"}))
		},
		"NewDEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, _, err := r.NewDEK(ctx, nil)
			return err
		},
		"Save": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.For(inner.Block{}).Save(ctx) },
	} {
		for _, outcome := range []string{"saved", "not saved"} {
			t.Run(name+", "+outcome, func(t *testing.T) {
				t.Parallel()
				g := newRig(t)
				g.opts.EpochMaxDEKs = 6400 // slices of 100
				g.vault.CreateKey("another")
				s := &lateSwap{Storage: g.storage}
				r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
				require.NoError(t, err)
				defer r.Close()
				require.NoError(t, r.BeginEpoch(t.Context()))
				require.NoError(t, r.Close())
				r, err = keyring.Open(t.Context(), s, g.kek, &g.opts)
				require.NoError(t, err)
				defer r.Close()
				before := r.State()

				s.next = outcome
				require.ErrorIs(t, change(t.Context(), g, r), errOutcome)
				require.Equal(t, before, r.State(), "nothing is believed")

				// The next change goes on from what is there.
				record := newDEK(t, r)
				document, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				in, err := keyring.Inspect(document)
				require.NoError(t, err)
				saved := uint64(1)
				if outcome == "saved" {
					saved = 2
				}
				require.Equal(t, before.Generation+saved, in.Generation)
				require.Equal(t, in.Generation, r.State().Generation)
				require.Equal(t, in.KEK, r.State().KEK)
				if (name == "NewDEK" || name == "Rotate") && outcome == "saved" {
					require.EqualValues(t, 101, r.Stats().Epoch.DEKs, "the slice that is nobody's is used")
				} else {
					require.EqualValues(t, 1, r.Stats().Epoch.DEKs)
				}
				require.NoError(t, r.Revalidate(t.Context()))
				k := r.KEK()
				require.NoError(t, r.Close())
				r, err = keyring.Open(t.Context(), g.storage, k, &g.opts)
				require.NoError(t, err)
				defer r.Close()
				opensAll(t, r, record)
			})
		}
	}
	t.Run("what Close gives back is given back once", func(t *testing.T) {
		for _, outcome := range []string{"saved", "not saved"} {
			g := newRig(t)
			g.opts.EpochMaxDEKs = 6400
			s := &lateSwap{Storage: g.storage}
			r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
			require.NoError(t, err)
			newDEK(t, r)
			other := g.open()
			newDEK(t, other) // so that the count is not only its own
			require.NoError(t, r.Revalidate(t.Context()))
			s.next = outcome
			require.ErrorIs(t, r.Close(), errOutcome)
			require.NoError(t, r.Close())
			require.NoError(t, other.Close())
			want := uint64(2)
			if outcome == "not saved" {
				want = 1 + 100 // a slice that is lost, and no more
			}
			require.Equal(t, want, g.open().Stats().Epoch.DEKs)
		}
	})
}

// A swap that was saved and conflicts with itself, because a client sent it twice, is found to be
// the keyring's own: what Close gives back is given back once.
func TestSwapThatConflictsWithItself(t *testing.T) {
	for name, change := range map[string]func(ctx context.Context, g *rig, r *keyring.Keyring) error{
		"Rotate": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.BeginEpoch(ctx) },
		"DropEpochs": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, err := r.For(inner.Block{}).DropEpochs(ctx, 2)
			return err
		},
		"RotateKEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.RotateKEK(ctx) },
		"ChangeKEK": func(ctx context.Context, g *rig, r *keyring.Keyring) error {
			return r.ChangeKEK(ctx, kek.New(g.vault, g.vault.CreateKey("another").Versionless()))
		},
		"NewDEK": func(ctx context.Context, _ *rig, r *keyring.Keyring) error {
			_, _, err := r.NewDEK(ctx, nil)
			return err
		},
		"Save":  func(ctx context.Context, _ *rig, r *keyring.Keyring) error { return r.For(inner.Block{}).Save(ctx) },
		"Close": func(_ context.Context, _ *rig, r *keyring.Keyring) error { return r.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.opts.EpochMaxDEKs = 6400 // slices of 100
			s := &lateSwap{Storage: g.storage}
			r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
			require.NoError(t, err)
			defer r.Close()
			require.NoError(t, r.BeginEpoch(t.Context()))
			const wrapped = 170 // with a second slice
			for range wrapped {
				newDEK(t, r)
			}
			before := r.State()
			if name == "NewDEK" {
				for range 2*100 - wrapped {
					newDEK(t, r)
				}
			}
			s.next = "sent again"
			require.NoError(t, change(t.Context(), g, r))
			require.Empty(t, s.next)
			k := r.KEK()
			if name != "Close" {
				require.Greater(t, r.State().Generation, before.Generation)
				opensAll(t, r, newDEK(t, r))
				require.NoError(t, r.Close())
			}
			again, err := keyring.Open(t.Context(), g.storage, k, &g.opts)
			require.NoError(t, err)
			defer again.Close()
			reserved, err := again.Reserved()
			require.NoError(t, err)
			require.GreaterOrEqual(t, reserved[before.Epoch], uint64(wrapped))
			switch name {
			case "Close":
				require.EqualValues(t, wrapped, reserved[before.Epoch])
			case "Rotate":
				require.Equal(t, before.Epoch+1, again.State().Epoch, "once")
			case "DropEpochs":
				require.Equal(t, 1, again.State().Epochs)
			}
		})
	}
}

// A conflict that nobody made, time and again, ends with an error and not never.
func TestStorageThatAlwaysConflicts(t *testing.T) {
	g := newRig(t)
	s := &failing{}
	r, err := keyring.Create(t.Context(), s, g.kek, &g.opts)
	require.NoError(t, err)
	defer r.Close()
	s.save = keyring.ErrConflict
	require.ErrorIs(t, r.BeginEpoch(t.Context()), keyring.ErrConflict)
	require.ErrorIs(t, r.RotateKEK(t.Context()), keyring.ErrConflict)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, r.BeginEpoch(ctx), context.Canceled)
	s.save = nil
	require.NoError(t, r.BeginEpoch(t.Context()))
}
