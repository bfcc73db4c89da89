package keyring_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/dek"
	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
)

// A record that is wrapped by a KEK which another keyring has moved to opens at once, also if
// its epoch is known. While the document cannot be taken up, nothing says that a record is damaged,
// for which only that would be needed.
func TestRecordOfAnothersKEK(t *testing.T) {
	for name, move := range map[string]func(t *testing.T, g *rig, r *keyring.Keyring) error{
		"a newer version": func(t *testing.T, g *rig, r *keyring.Keyring) error {
			g.vault.Rotate("customer")
			return r.RotateKEK(t.Context())
		},
		"another key": func(t *testing.T, g *rig, r *keyring.Keyring) error {
			return r.ChangeKEK(t.Context(), g.opts.OtherKEKs[0])
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				g.opts.Wrapping = keyring.ByKEK
				g.opts.OtherKEKs = []*kek.KEK{kek.New(g.vault, g.vault.CreateKey("another").Versionless())}
				one := g.create()
				other := g.open()
				opensAll(t, other, newDEK(t, one))
				require.NoError(t, move(t, g, one))
				record := newDEK(t, one)
				require.EqualValues(t, 1, epochOf(t, record))

				// Of a document that cannot be taken up one does not know whether it lists the KEK.
				document, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document[:50]))
				_, err = other.OpenDEK(t.Context(), record, []byte("id"))
				require.ErrorContains(t, err, "names KEK 2, which the keyring does not list: the document in storage")
				require.NotErrorIs(t, err, keyring.ErrCorrupt)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document))

				opensAll(t, other, record)
				require.Equal(t, one.State().Generation, other.State().Generation)
				synctest.Wait() // for the check that follows another wrap

				// And so with an epoch.
				require.NoError(t, one.BeginEpoch(t.Context()))
				record = newDEK(t, one)
				document, err = keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document[:50]))
				_, err = other.OpenDEK(t.Context(), record, []byte("id"))
				require.ErrorContains(t, err, "names epoch 2, which the keyring does not know: the document in storage")
				require.NotErrorIs(t, err, keyring.ErrCorrupt)
				require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document))
				opensAll(t, other, record)
				require.Equal(t, one.State().Generation, other.State().Generation)
			})
		})
	}
}

// That the document in storage is damaged is not said of a record that is good, by no operation that has
// to save before it wraps: who looks for damaged records would report it.
func TestDamagedDocumentIsNoDamagedRecord(t *testing.T) {
	binding := func() *keyring.Binding {
		var b keyring.Binding
		b.Set([]byte("id"))
		return &b
	}
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		for name, op := range map[string]func(ctx context.Context, h *keyring.Hold, record []byte) error{
			"NewDEK": func(ctx context.Context, h *keyring.Hold, _ []byte) error {
				var key dek.Key
				defer key.Destroy()
				_, err := h.NewDEK(ctx, nil, &key, binding())
				return err
			},
			"Rewrap": func(ctx context.Context, h *keyring.Hold, record []byte) error {
				_, err := h.For(inner.Block{}).Rewrap(ctx, nil, record, binding())
				return err
			},
			"RewrapKEK": func(ctx context.Context, h *keyring.Hold, record []byte) error {
				_, err := h.RewrapKEK(ctx, nil, record, binding(), func(*dek.Key) error { return nil })
				return err
			},
		} {
			if name == "RewrapKEK" && w == keyring.ByKeyring {
				continue // which has nothing to do then
			}
			t.Run(w.String()+" "+name, func(t *testing.T) {
				g := newRig(t)
				g.opts.Wrapping = w
				record := newDEK(t, g.create())
				another := g.vault.CreateKey("another")
				g.opts.OtherKEKs = []*kek.KEK{g.kek}
				require.NoError(t, g.open().ChangeKEK(t.Context(), kek.New(g.vault, another)))
				g.kek = kek.New(g.vault, another)
				for where, s := range map[string]*lateSwap{
					"found when the swap is lost": {Storage: g.storage},
					"found by the swap":           {Storage: g.storage, next: "damaged"},
				} {
					r, err := keyring.Open(t.Context(), s, g.kek, &g.opts) // it has reserved nothing yet
					require.NoError(t, err)
					document, err := keyring.Document(t.Context(), g.storage)
					require.NoError(t, err)
					require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document[:50]))
					h, err := r.Acquire()
					require.NoError(t, err)
					err = op(t.Context(), &h, record)
					h.Release()
					require.ErrorContains(t, err, "the document", where)
					require.NotErrorIs(t, err, keyring.ErrCorrupt, where)
					// Of what is asked for the document it is said.
					s.next = map[bool]string{true: "damaged"}[where == "found by the swap"]
					require.ErrorIs(t, r.BeginEpoch(t.Context()), keyring.ErrCorrupt, where)

					require.NoError(t, keyring.Replace(t.Context(), &g.storage.MemStorage, document))
					h, err = r.Acquire()
					require.NoError(t, err)
					require.NoError(t, op(t.Context(), &h, record))
					h.Release()
					require.NoError(t, r.Close())
				}
			})
		}
	}
}
