package keyring_test

import (
	"context"
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

// become sets what a version is, from a word of the tables.
func become(v *vaultkinds.Vault, id vault.KeyID, word string, now time.Time) {
	var unset time.Time
	now = now.Truncate(time.Second)
	switch word {
	case "enabled":
	case "expired":
		v.SetDates(id, unset, now)
	case "not yet valid":
		v.SetDates(id, now.Add(time.Hour), unset)
	case "disabled":
		v.SetEnabled(id, false)
	case "expired and disabled":
		v.SetDates(id, unset, now)
		v.SetEnabled(id, false)
	default:
		panic(word)
	}
}

// successorCase is a keyring of TestSuccessor, and the way in which it is noticed that its
// KEK version went out of use.
type successorCase struct {
	way     string
	storage *storage
	opts    *keyring.Options
	r       *keyring.Keyring
	record  []byte
	before  []byte      // the document
	want    vault.KeyID // where it goes, if it goes anywhere
}

func newSuccessorCase(t *testing.T, way string, k *kek.KEK, clock *vaulttest.Clock) *successorCase {
	c := &successorCase{way: way, storage: &storage{},
		opts: &keyring.Options{Clock: clock, PinVersion: way != "check" && way != "Open"}}
	var err error
	c.r, err = keyring.Create(t.Context(), c.storage, k, c.opts)
	require.NoError(t, err)
	key, record, err := c.r.NewDEK(t.Context(), []byte("block"))
	require.NoError(t, err)
	key.Destroy()
	c.record = record
	if way != "check" {
		require.NoError(t, c.r.Close())
	}
	c.before, err = keyring.Document(t.Context(), c.storage)
	require.NoError(t, err)
	return c
}

// notice does what the case is about, and returns what came of it.
func (c *successorCase) notice(t *testing.T, k *kek.KEK, newest, other vault.KeyID) error {
	c.want = newest
	if c.way == "check" {
		return c.r.Revalidate(t.Context())
	}
	var err error
	c.r, err = keyring.Open(t.Context(), c.storage, k, c.opts)
	require.NoError(t, err)
	if c.way != "Open" {
		require.Equal(t, keyring.Inaccessible, c.r.State().Status, "PinVersion: not by itself")
	}
	switch c.way {
	case "RotateKEK":
		return c.r.RotateKEK(t.Context())
	case "ChangeKEK to the version":
		return c.r.ChangeKEK(t.Context(), kek.New(k.Vault(), newest))
	case "ChangeKEK to another key":
		c.want = other
		return c.r.ChangeKEK(t.Context(), kek.New(k.Vault(), other.Versionless()))
	}
	return c.r.State().LastCheckErr
}

// opens reports whether the record of before opens.
func (c *successorCase) opens(t *testing.T) error {
	key, err := c.r.OpenDEK(t.Context(), c.record, []byte("block"))
	if err == nil {
		key.Destroy()
	}
	return err
}

// stays requires that nothing has become of it: no access, the same version and document.
func (c *successorCase) stays(t *testing.T, first vault.KeyID, err, kind error) {
	require.ErrorIs(t, err, kind)
	require.True(t, vault.Denied(err))
	if c.way != "check" && c.way != "Open" {
		require.ErrorIs(t, err, keyring.ErrInaccessible)
	}
	st := c.r.State()
	require.Equal(t, keyring.Inaccessible, st.Status)
	require.ErrorIs(t, st.Cause, kind)
	require.Equal(t, first, st.KEK)
	require.ErrorIs(t, c.opens(t), keyring.ErrInaccessible)
	after, err := keyring.Document(t.Context(), c.storage)
	require.NoError(t, err)
	require.Equal(t, c.before, after, "nothing was written")
}

// What becomes of a keyring whose KEK version was taken out of use, with a newer version
// of the key that may be usable, in each of the ways in which it is noticed.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	olds := []struct {
		is      string
		kind    error
		follows bool // to a newer version that is enabled and in date
	}{
		{"expired", vault.ErrKeyExpired, true},
		{"not yet valid", vault.ErrKeyNotYetValid, true},
		{"disabled", vault.ErrKeyDisabled, false},
		{"expired and disabled", vault.ErrKeyDisabled, false},
		{"deleted", vault.ErrKeyNotFound, false},
	}
	newers := []string{"none", "enabled", "expired", "disabled", "not yet valid"}
	ways := []string{"check", "Open", "RotateKEK", "ChangeKEK to the version", "ChangeKEK to another key"}
	// What a vault says of a version and of a newer one the memory's says in each combination; of
	// the others' answers each one is met, alone and beside one that is followed.
	whole := func(kind, old, newer string) bool { return kind == "memory" || newer == "enabled" || old == "expired" }
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		t.Parallel()
		v := site.New("v", nil)
		one, two := site.Pair(), site.Pair()
		other := v.Import("other", site.Pair())
		for i, old := range olds {
			for j, newer := range newers {
				if !whole(site.Kind, old.is, newer) {
					continue
				}
				name := fmt.Sprintf("customer-%d-%d", i, j)
				first := v.Import(name, one)
				k := kek.New(v, first.Versionless())
				var cases []*successorCase
				for _, way := range ways {
					cases = append(cases, newSuccessorCase(t, way, k, clock))
				}
				newest := first
				if newer != "none" {
					newest = v.Import(name, two)
					become(v, newest, newer, clock.Now())
				}
				if old.is == "deleted" {
					v.Delete(name) // with all its versions, as in Key Vault
				} else {
					become(v, first, old.is, clock.Now())
				}
				follows := old.follows && newer == "enabled"
				for _, c := range cases {
					t.Run(fmt.Sprintf("%s, newer %s, %s", old.is, newer, c.way), func(t *testing.T) {
						err := c.notice(t, k, newest, other)
						if !follows {
							kind := old.kind
							if old.is == "deleted" && vault.Kind(err) == vault.ErrKeyDeleted {
								kind = vault.ErrKeyDeleted // Key Vault alone says that there is none
							}
							c.stays(t, first, err, kind)
							return
						}
						require.NoError(t, err)
						st := c.r.State()
						require.Equal(t, keyring.Available, st.Status)
						require.Equal(t, c.want, st.KEK)
						require.NoError(t, c.opens(t))
					})
				}
				if follows {
					// It is in storage: the old version is of no more use to anybody.
					v.SetEnabled(first, false)
					for _, c := range cases {
						require.NoError(t, c.r.Close())
						var err error
						c.r, err = keyring.Open(t.Context(), c.storage, kek.New(v, c.want.Versionless()), c.opts)
						require.NoError(t, err)
						require.NoError(t, c.opens(t), c.way)
					}
					// And the new one is a KEK like any other.
					v.SetEnabled(newest, false)
					v.SetEnabled(other, false)
					for _, c := range cases {
						require.ErrorIs(t, c.r.Revalidate(t.Context()), vault.ErrKeyDisabled, c.way)
						require.ErrorIs(t, c.opens(t), keyring.ErrInaccessible, c.way)
					}
					v.SetEnabled(other, true)
				}
				for _, c := range cases {
					require.NoError(t, c.r.Close())
				}
			}
		}
	})
}

// What a refusal for a date says that works, where nothing is done by itself.
func TestOutOfDateSaysWhatWorks(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(g *rig) // of the rig, before Open
		says    string
	}{
		"pinned":       {func(g *rig) { g.opts.PinVersion = true }, "if the key has a newer version, RotateKEK moves it there"},
		"by a version": {func(g *rig) { g.kek = kek.New(g.vault, g.key) }, "if the key has a newer version, RotateKEK moves it there"},
		"read only":    {func(g *rig) { g.opts.ReadOnly = true }, "open it for writing, which moves it there"},
		"a newer version that is disabled": {func(g *rig) { g.vault.SetEnabled(vault.KeyID{Name: "customer"}, false) },
			"the key's current version cannot take its place: "},
		"no unwrap with the old version": {func(g *rig) {
			g.vault.SetOperations(g.key, vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey)
			g.vault.Revoke(vault.OpUnwrapKey)
		},
			"the keyring was not moved to the key's newer version "},
		"storage that fails": {func(g *rig) { g.storage.fail = true }, "the keyring was not moved to the key's newer version "},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				require.NoError(t, g.create().Close())
				g.pass(time.Minute)
				g.vault.Rotate(g.key.Name)
				g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
				tt.prepare(g)
				r := g.open()
				require.Equal(t, keyring.Inaccessible, r.State().Status)
				require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
				require.ErrorContains(t, r.State().Cause, tt.says)
				require.Equal(t, g.key, r.State().KEK)
			})
		})
	}
}

// The expiry passes while the keyring is open, and the key was rotated in the meantime, or
// is rotated afterwards: it is closed at that moment, and open again as soon as a check has
// moved it. Whatever is taken away then ends as every other access does.
func TestSuccessorAfterTheExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		e := g.listen()
		ends := start.Add(30 * time.Minute)
		g.vault.SetDates(g.key, time.Time{}, ends)
		r := g.create()
		g.pass(31 * time.Minute)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		g.pass(5 * time.Minute)
		require.Equal(t, keyring.Inaccessible, r.State().Status, "an expired version alone opens nothing")

		newest := g.vault.Rotate(g.key.Name)
		e.take()
		g.pass(keyring.DefaultCheckEvery)
		require.Equal(t, keyring.Available, r.State().Status)
		require.Equal(t, newest, r.State().KEK)
		moved := e.take(keyring.KEKChanged)
		require.Len(t, moved, 1)
		require.Equal(t, newest, moved[0].Key)
		require.Contains(t, moved[0].Detail, "because "+g.key.Version+" is out of date")

		// The vault falls silent: what it agreed to last ends with the lease.
		g.vault.SetOutage(vaulttest.NetworkGone())
		agreed := r.State().LastSuccess
		g.passUntil(func() bool { return r.State().Status == keyring.Inaccessible })
		require.LessOrEqual(t, g.clock.Now().Sub(agreed), keyring.DefaultLease+time.Second)
		g.vault.SetOutage(nil)
		g.pass(keyring.DefaultCheckEvery)
		require.Equal(t, keyring.Available, r.State().Status)

		// The new version expires and has no successor.
		g.vault.SetDates(newest, time.Time{}, g.clock.Now())
		g.pass(keyring.DefaultCheckEvery)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
	})
}

// lying is a vault that unwraps to zeros with one version.
type lying struct {
	vault.Vault
	version string
	size    int
}

func (l *lying) UnwrapKey(ctx context.Context, w vault.Wrapped) ([]byte, error) {
	if w.KeyID.Version == l.version {
		return make([]byte, l.size), nil
	}
	return l.Vault.UnwrapKey(ctx, w)
}

// The move opens what it was given and nothing else: the vault that unwraps to something
// else, an anchor that expects more, and an older version are refused, and nothing is saved.
func TestSuccessorRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(g *rig)
		is      error // of the state's cause, or of Open
		open    bool  // Open succeeds
	}{
		"another secret": {func(g *rig) {
			g.kek = kek.New(&lying{g.vault, g.key.Version, 32}, g.kek.ID())
		}, keyring.ErrCorrupt, false},
		"a secret of another size": {func(g *rig) {
			g.kek = kek.New(&lying{g.vault, g.key.Version, 31}, g.kek.ID())
		}, vault.ErrUnsupportedKey, true},
		"not the fingerprint that was expected": {func(g *rig) {
			g.opts.Anchor = keyring.Expect{Fingerprint: fmt.Sprintf("%064x", 1)}
		}, keyring.ErrUnexpected, false},
		"an older version": {func(g *rig) {
			g.vault.Inject(vaulttest.Fault{Op: vault.OpGet, MutateKey: func(k *vault.Key) {
				if k.ID != g.key {
					k.Created = k.Created.Add(-time.Hour)
				}
			}})
		}, vault.ErrKeyExpired, true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, g *rig) {
				require.NoError(t, g.create().Close())
				g.pass(time.Minute)
				newest := g.vault.Rotate(g.key.Name)
				g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
				before, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				tt.prepare(g)
				r, err := keyring.Open(t.Context(), g.storage, g.kek, &g.opts)
				if tt.open {
					require.NoError(t, err)
					defer r.Close()
					require.ErrorIs(t, r.State().Cause, tt.is)
					require.Error(t, r.RotateKEK(t.Context()))
					require.Error(t, r.ChangeKEK(t.Context(), kek.New(g.vault, newest)))
				} else {
					require.ErrorIs(t, err, tt.is)
				}
				after, err := keyring.Document(t.Context(), g.storage)
				require.NoError(t, err)
				require.Equal(t, before, after)
			})
		})
	}
}

// An open keyring whose version went out of date since the last check goes on in its
// session: nothing that is under way is cut off.
func TestSuccessorOfAnOpenKeyring(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		liar := &lying{g.vault, "", 32}
		g.kek = kek.New(liar, g.kek.ID())
		r := g.create()
		h, err := r.Acquire()
		require.NoError(t, err)
		session := h.For(inner.Block{}).Session()
		h.Release()
		g.pass(10 * time.Second)
		newest := g.vault.Rotate(g.key.Name)
		g.vault.SetDates(g.key, g.clock.Now().Add(time.Hour), time.Time{})
		require.NoError(t, r.Revalidate(t.Context()))
		require.Equal(t, newest, r.State().KEK)
		h, err = r.For(inner.Block{}).AcquireSession(session)
		require.NoError(t, err)
		h.Release()

		// The vault unwraps to another secret than the session's: at once.
		g.pass(10 * time.Second)
		g.vault.Rotate(g.key.Name)
		g.vault.SetDates(newest, time.Time{}, g.clock.Now())
		liar.version = newest.Version
		require.ErrorIs(t, r.Revalidate(t.Context()), vault.ErrUnsupportedKey)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
	})
}

// RotateKEK is somebody's wish, and so ends a lock that waits for one.
func TestRotateKEKEndsALockForADate(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		g.opts.ManualRevalidation = true
		r := g.create()
		g.pass(time.Minute)
		newest := g.vault.Rotate(g.key.Name)
		g.vault.Revoke(vault.OpGet) // no check takes it up
		g.pass(2 * time.Minute)
		g.vault.Restore(vault.OpGet)
		require.ErrorIs(t, r.State().Cause, vault.ErrAccessDenied)
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
		require.ErrorIs(t, r.RotateKEK(t.Context()), vault.ErrAccessDenied, "that is not about a date")
		g.kek = kek.New(g.vault, g.key)
		require.NoError(t, r.Close())
		r = g.open()
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		g.pass(5 * time.Minute)
		require.Equal(t, keyring.Inaccessible, r.State().Status)
		require.NoError(t, r.RotateKEK(t.Context()))
		require.Equal(t, keyring.Available, r.State().Status)
		require.Equal(t, newest, r.State().KEK)
	})
}

// A change to another key that goes through a successor and no further leaves the keyring on
// that, also one that was given with a version: it says so, and a second try goes on.
func TestChangeKEKThatStopsAtTheSuccessor(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		require.NoError(t, g.create().Close())
		other := g.vault.CreateKey("other")
		g.vault.SetEnabled(other, false)
		g.pass(time.Minute)
		newest := g.vault.Rotate(g.key.Name)
		g.vault.SetDates(g.key, time.Time{}, g.clock.Now())
		g.kek = kek.New(g.vault, g.key)
		r := g.open()
		require.ErrorIs(t, r.State().Cause, vault.ErrKeyExpired)
		require.ErrorIs(t, r.ChangeKEK(t.Context(), kek.New(g.vault, other)), vault.ErrKeyDisabled)
		require.Equal(t, newest, r.State().KEK)
		require.Equal(t, newest, r.KEK().ID())
		g.vault.SetEnabled(other, true)
		require.NoError(t, r.ChangeKEK(t.Context(), kek.New(g.vault, other)))
		require.Equal(t, other, r.KEK().ID())
	})
}
