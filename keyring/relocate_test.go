package keyring_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/internal/test/vaultkinds"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var everyKind = flag.Bool("everykind", false, "relocate between vaults of every kind in all cases, and not only in those that differ in what is beneath Key Vault here, a file")

// eachKind is vaultkinds.Each, without the file alone unless that is asked for: it is what is beneath
// Key Vault here.
func eachKind(t *testing.T, file bool, f func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock)) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		if site.Kind != "file" || file || *everyKind {
			f(t, site, clock)
		}
	})
}

// moved is a keyring that was on two versions of a key, with a ByKEK record under each, and
// is closed.
type moved struct {
	storage       *storage
	opts          keyring.Options
	first, second vault.KeyID
	records       [2][]byte
	before        []byte // the document
}

func newMoved(t testing.TB, v *vaultkinds.Vault, site *vaultkinds.Site, clock *vaulttest.Clock) (*moved, [2]func(*vaultkinds.Vault, string) vault.KeyID) {
	one, two := site.Pair(), site.Pair()
	again := [2]func(*vaultkinds.Vault, string) vault.KeyID{
		func(v *vaultkinds.Vault, name string) vault.KeyID { return v.Import(name, one) },
		func(v *vaultkinds.Vault, name string) vault.KeyID { return v.Import(name, two) },
	}
	m := &moved{storage: &storage{}, opts: keyring.Options{Clock: clock, Wrapping: keyring.ByKEK, DEKCache: -1}}
	m.first = again[0](v, "customer")
	r, err := keyring.Create(t.Context(), m.storage, kek.New(v, m.first.Versionless()), &m.opts)
	require.NoError(t, err)
	for i := range m.records {
		if i == 1 {
			m.second = again[1](v, "customer")
			require.NoError(t, r.RotateKEK(t.Context()))
		}
		key, record, err := r.NewDEK(t.Context(), []byte("block"))
		require.NoError(t, err)
		key.Destroy()
		m.records[i] = record
	}
	require.NoError(t, r.Close())
	m.before, err = keyring.Document(t.Context(), m.storage)
	require.NoError(t, err)
	return m, again
}

// opens requires that the keyring opens with k, and both records with it.
func (m *moved) opens(t testing.TB, k *kek.KEK) {
	t.Helper()
	r, err := keyring.Open(t.Context(), m.storage, k, &m.opts)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, keyring.Available, r.State().Status, r.State())
	for _, record := range m.records {
		key, err := r.OpenDEK(t.Context(), record, []byte("block"))
		require.NoError(t, err)
		key.Destroy()
	}
}

func (m *moved) unchanged(t testing.TB) {
	t.Helper()
	after, err := keyring.Document(t.Context(), m.storage)
	require.NoError(t, err)
	require.Equal(t, m.before, after)
}

// The key is in another vault, by a backup or by an import, and the vault of before is gone:
// the keyring opens there after Relocate, whatever its versions are called.
func TestRelocate(t *testing.T) {
	t.Parallel()
	type importer = [2]func(*vaultkinds.Vault, string) vault.KeyID
	for name, bring := range map[string]func(from, to *vaultkinds.Vault, again importer) (key string){
		"restored": func(from, to *vaultkinds.Vault, _ importer) string { to.Restore(from, "customer"); return "customer" },
		"imported": func(_, to *vaultkinds.Vault, again importer) string {
			again[0](to, "customer")
			again[1](to, "customer")
			return "customer"
		},
		"imported in another order, under another name": func(_, to *vaultkinds.Vault, again importer) string {
			again[1](to, "clients")
			again[0](to, "clients")
			return "clients"
		},
		"restored, and rotated since": func(from, to *vaultkinds.Vault, again importer) string {
			to.Restore(from, "customer")
			to.Import("customer", from.Pair())
			return "customer"
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, name == "restored" || name == "imported", func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
				t.Parallel()
				a, b := site.New("a", nil), site.New("b", nil)
				m, again := newMoved(t, a, site, clock)
				k := kek.New(b, vault.KeyID{Vault: b.Name, Name: bring(a, b, again)})
				a.Gone()
				_, err := keyring.Open(t.Context(), m.storage, k, &m.opts)
				require.ErrorIs(t, err, keyring.ErrWrongKEK)
				require.ErrorContains(t, err, "Relocate")

				saves := m.storage.saves
				rel, err := keyring.Relocate(t.Context(), m.storage, k, &m.opts)
				require.NoError(t, err)
				require.Equal(t, saves+1, m.storage.saves, "in one save")
				require.Len(t, rel.Moved, 2)
				require.Empty(t, rel.Kept)
				before, err := keyring.Inspect(m.before)
				require.NoError(t, err)
				after, err := keyring.Document(t.Context(), m.storage)
				require.NoError(t, err)
				in, err := keyring.Inspect(after)
				require.NoError(t, err)
				require.Equal(t, before.Generation+1, rel.Generation)
				require.Equal(t, rel.Generation, in.Generation)
				require.Equal(t, before.StoreID, in.StoreID)
				for i, from := range []vault.KeyID{m.first, m.second} {
					require.Equal(t, from, rel.Moved[i].From)
					require.Equal(t, b.Name, rel.Moved[i].To.Vault)
					require.Equal(t, before.PublicKeys[from], rel.Moved[i].PublicKey)
					require.Equal(t, before.PublicKeys[from], in.PublicKeys[rel.Moved[i].To])
					require.Equal(t, rel.Moved[i].To, in.KEKs[uint32(i+1)], "the ids that records name stay")
				}
				m.opens(t, k)

				// A second time there is nothing to do.
				saves = m.storage.saves
				rel, err = keyring.Relocate(t.Context(), m.storage, k, &m.opts)
				require.NoError(t, err)
				require.Empty(t, rel.Moved)
				require.Equal(t, saves, m.storage.saves)
				// And nobody who has the key in its new place under control loses control.
				now, err := keyring.Document(t.Context(), m.storage)
				require.NoError(t, err)
				if in, err = keyring.Inspect(now); err != nil { // it may have taken up a newer version
					t.Fatal(err)
				}
				b.SetEnabled(in.KEK, false)
				r, err := keyring.Open(t.Context(), m.storage, k, &m.opts)
				require.NoError(t, err)
				defer r.Close()
				require.ErrorIs(t, r.State().Cause, vault.ErrKeyDisabled)
			})
		})
	}
}

// What is not there, or may not be used, is refused by name, and nothing has changed.
func TestRelocateRefuses(t *testing.T) {
	t.Parallel()
	var now time.Time
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, site *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved)
		is      error
		says    func(m *moved) string
		vault   bool // it is a vault's answer, and not only the one in memory is asked
	}{
		"no such key": {func(_ *testing.T, _ *vaultkinds.Site, _, b *vaultkinds.Vault, m *moved) {}, vault.ErrKeyNotFound,
			func(m *moved) string {
				return "no version of it has the public key of " + m.second.String() + ", which wraps the keyring"
			}, true},
		"another key of the name": {func(_ *testing.T, s *vaultkinds.Site, _, b *vaultkinds.Vault, m *moved) {
			b.Import("customer", s.Pair())
		}, vault.ErrKeyNotFound,
			func(m *moved) string {
				return "no version of it has the public key of " + m.second.String() + ", which wraps the keyring"
			}, true},
		"the version of the records is missing": {func(_ *testing.T, s *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Import("customer", s.Last())
		}, vault.ErrKeyNotFound,
			func(m *moved) string {
				return "no version of it has the public key of " + m.first.String() + ", which wraps DEK records"
			}, true},
		"the version that wraps the keyring is disabled": {func(_ *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			b.SetEnabled(m.at(b, m.second), false)
		}, vault.ErrKeyDisabled, func(m *moved) string { return m.second.Version }, true},
		"it has expired": {func(_ *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			b.SetDates(m.at(b, m.second), now, time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC))
		}, vault.ErrKeyExpired, func(m *moved) string { return "it expired at 2026-03-01T00:00:00Z" }, true},
		"the version of the records is disabled": {func(_ *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			b.SetEnabled(m.at(b, m.first), false)
		}, vault.ErrKeyDisabled, func(m *moved) string { return m.first.Version }, true},
		"the new vault does not answer": {func(_ *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			b.Gone()
		}, nil, func(m *moved) string { return "" }, true},
		"the key is deleted": {func(_ *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			b.Delete("customer")
		}, nil, func(m *moved) string { return "customer" }, true},
		"another keyring is expected": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.opts.Anchor = keyring.Expect{Fingerprint: fmt.Sprintf("%064x", 1)}
		}, keyring.ErrUnexpected, func(m *moved) string { return "fingerprint" }, false},
		"a later document is expected": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.opts.Anchor = keyring.Expect{Generation: 1000}
		}, keyring.ErrUnexpected, func(m *moved) string { return "at least 1000 was expected" }, false},
		"what is on top does not admit it": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.opts.For(inner.Block{}).Admit = func(inner.Opened) error { return errRefused }
		}, errRefused, func(m *moved) string { return "" }, false},
		"read only": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.opts.ReadOnly = true
		}, keyring.ErrReadOnly, func(m *moved) string { return "" }, false},
		"the storage fails": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.storage.fail = true
		}, errSave, func(m *moved) string { return "" }, false},
		"an altered document": {func(t *testing.T, _ *vaultkinds.Site, a, b *vaultkinds.Vault, m *moved) {
			b.Restore(a, "customer")
			m.before[30+7] ^= 1 // of the generation, which is in clear
			require.NoError(t, keyring.Replace(t.Context(), &m.storage.MemStorage, m.before))
		}, keyring.ErrCorrupt, func(m *moved) string { return "" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, false, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
				if site.Kind == "Key Vault" && !tt.vault && !*everyKind {
					return
				}
				t.Parallel()
				a, b := site.New("a", nil), site.New("b", nil)
				m, _ := newMoved(t, a, site, clock)
				tt.prepare(t, site, a, b, m)
				_, err := keyring.Relocate(t.Context(), m.storage, kek.New(b, vault.KeyID{Vault: b.Name, Name: "customer"}), &m.opts)
				require.Error(t, err)
				if tt.is != nil {
					require.ErrorIs(t, err, tt.is)
				}
				require.ErrorContains(t, err, tt.says(m))
				m.unchanged(t)
				if name == "an altered document" {
					return
				}
				m.opts.Anchor, m.opts.For(inner.Block{}).Admit, m.opts.ReadOnly, m.storage.fail = nil, nil, false, false
				m.opens(t, kek.New(a, m.second.Versionless())) // where it was
			})
		})
	}
}

var errRefused = errors.New("not admitted")

func (m *moved) at(v *vaultkinds.Vault, id vault.KeyID) vault.KeyID { id.Vault = v.Name; return id }

// A version that no record names may be left behind, and leaves the document; one of a key
// that can be used where it is stays there.
func TestRelocateWithoutAllVersions(t *testing.T) {
	t.Parallel()
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		a, b := site.New("a", nil), site.New("b", nil)
		m, again := newMoved(t, a, site, clock)
		k := kek.New(b, vault.KeyID{Name: "customer"}) // whichever vault that is in
		again[1](b, "customer")

		_, err := keyring.Relocate(t.Context(), m.storage, k, &m.opts)
		require.ErrorIs(t, err, vault.ErrKeyNotFound)
		require.ErrorContains(t, err, m.first.String())
		m.unchanged(t)

		m.opts.OtherKEKs = []*kek.KEK{kek.New(a, m.first.Versionless())}
		rel, err := keyring.Relocate(t.Context(), m.storage, k, &m.opts)
		require.NoError(t, err)
		require.Len(t, rel.Moved, 1)
		require.Equal(t, m.second, rel.Moved[0].From)
		require.Equal(t, []vault.KeyID{m.first}, rel.Kept)
		m.opens(t, k)

		// The record was rewrapped since, or removed: its KEK is of no concern.
		require.NoError(t, keyring.Replace(t.Context(), &m.storage.MemStorage, m.before))
		m.opts.OtherKEKs = nil
		rel, err = keyring.Relocate(t.Context(), m.storage, k, &m.opts, 1)
		require.NoError(t, err)
		require.Len(t, rel.Moved, 1)
		after, err := keyring.Document(t.Context(), m.storage)
		require.NoError(t, err)
		in, err := keyring.Inspect(after)
		require.NoError(t, err)
		require.Equal(t, map[uint32]vault.KeyID{2: rel.Moved[0].To}, in.KEKs)
	})
}

// unlisted is a vault that cannot say which versions a key has.
type unlisted struct{ vault.Vault }

// Without a list the same version and the current one are found, and the error says that no
// others were looked at.
func TestRelocateWithoutAList(t *testing.T) {
	t.Parallel()
	clock := vaulttest.NewClock(start)
	eachKind(t, false, func(t *testing.T, site *vaultkinds.Site, _ *vaulttest.Clock) {
		a, b := site.New("a", nil), site.New("b", nil)
		m, again := newMoved(t, a, site, clock)
		again[1](b, "customer")
		again[0](b, "customer")
		b.Import("customer", site.Pair())
		id := vault.KeyID{Vault: b.Name, Name: "customer"}
		_, err := keyring.Relocate(t.Context(), m.storage, kek.New(unlisted{b}, id), &m.opts)
		require.ErrorIs(t, err, vault.ErrKeyNotFound)
		require.ErrorContains(t, err, "because the vault did not list the others")
		m.unchanged(t)
		_, err = keyring.Relocate(t.Context(), m.storage, kek.New(b, id), &m.opts)
		require.NoError(t, err)
		m.opens(t, kek.New(b, id))
	})
}

// Whoever has the document and a vault of their own, with the public keys but not the private
// ones, relocates nothing: the public key can be shown, and an unwrap cannot.
func TestRelocateTakesThePrivateKey(t *testing.T) {
	t.Parallel()
	eachKind(t, false, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		a, b := site.New("a", nil), site.New("b", nil)
		m, _ := newMoved(t, a, site, clock)
		b.Import("customer", site.Pair())
		pretends := &pretender{b, a}
		_, err := keyring.Relocate(t.Context(), m.storage, kek.New(pretends, vault.KeyID{Vault: b.Name, Name: "customer"}), &m.opts)
		require.Error(t, err)
		m.unchanged(t)
	})
}

// pretender is a vault that shows the public keys of another.
type pretender struct {
	vault.Vault
	other vault.Vault
}

func (p *pretender) GetKey(ctx context.Context, id vault.KeyID) (vault.Key, error) {
	own, err := p.Vault.GetKey(ctx, id.Versionless())
	if err != nil {
		return own, err
	}
	theirs, err := p.other.GetKey(ctx, vault.KeyID{Name: id.Name, Version: id.Version})
	own.Public = theirs.Public
	if id.Version != "" {
		own.ID.Version = id.Version
	}
	return own, err
}

// An anchor that was kept is advanced by the Open that follows, and refuses the document of
// before from then on.
func TestRelocateWithAnAnchor(t *testing.T) {
	t.Parallel()
	eachKind(t, false, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		a, b := site.New("a", nil), site.New("b", nil)
		m, _ := newMoved(t, a, site, clock)
		m.opts.Anchor = keyring.FileAnchor(t.TempDir() + "/anchor")
		m.opens(t, kek.New(a, m.second.Versionless()))
		b.Restore(a, "customer")
		k := kek.New(b, vault.KeyID{Vault: b.Name, Name: "customer"})
		rel, err := keyring.Relocate(t.Context(), m.storage, k, &m.opts)
		require.NoError(t, err)
		m.opens(t, k)
		at, err := m.opts.Anchor.Load(t.Context())
		require.NoError(t, err)
		require.Equal(t, rel.Generation, at.Generation)
		require.NoError(t, keyring.Replace(t.Context(), &m.storage.MemStorage, m.before))
		_, err = keyring.Relocate(t.Context(), m.storage, k, &m.opts)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
	})
}
