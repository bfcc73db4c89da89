package block_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/test/vaultkinds"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// failover is a store in one vault, with a copy, and another vault that is to have its key.
type failover struct {
	*rig
	a, b          *vaultkinds.Vault
	first, second vault.KeyID // the versions that the store was on
	again         [2]func() vault.KeyID
}

func newFailover(t testing.TB, site *vaultkinds.Site, clock *vaulttest.Clock, w keyring.Wrapping) *failover {
	f := &failover{a: site.New("a", nil), b: site.New("b", nil)}
	one, two := site.Pair(), site.Pair()
	f.again[0] = func() vault.KeyID { return f.b.Import("customer", one) }
	f.again[1] = func() vault.KeyID { return f.b.Import("customer", two) }
	f.first = f.a.Import("customer", one)
	f.rig = &rig{t: t, ctx: t.Context(), clock: clock, key: f.first, kek: kek.New(f.a, f.first.Versionless()), dir: "store",
		opts: block.Options{Pebble: block.PebbleOptions{FS: vfs.NewMem(), MemTable: 1 << 20}, RecordCache: 1 << 20, ManualRewrap: true,
			Keyring: keyring.Options{Clock: clock, Wrapping: w, DEKCache: -1}}}
	s := openAt(t, f.rig, f.dir)
	require.NoError(t, s.Put(f.ctx, []byte("a"), []byte("1")))
	require.NoError(t, s.Checkpoint(f.ctx, "copy"))
	f.second = f.a.Import("customer", two)
	require.NoError(t, s.RotateKEK(f.ctx))
	require.NoError(t, s.Put(f.ctx, []byte("b"), []byte("2")))
	require.NoError(t, s.Checkpoint(f.ctx, "later"))
	require.NoError(t, s.Close())
	return f
}

// to is the KEK in the vault that it goes to.
func (f *failover) to() *kek.KEK { return kek.New(f.b, vault.KeyID{Vault: f.b.Name, Name: "customer"}) }

// The vault is lost and its key is in another: one call, and the store and its copies are
// there, and are what any store is.
func TestRelocate(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		for _, how := range []string{"restored", "imported"} {
			t.Run(w.String()+", "+how, func(t *testing.T) {
				vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
					f := newFailover(t, site, clock, w)
					if how == "restored" {
						f.b.Restore(f.a, "customer")
					} else {
						f.again[0]()
						f.again[1]()
					}
					f.a.Gone()
					_, err := block.Open(f.ctx, f.dir, f.to(), &f.opts)
					require.ErrorIs(t, err, keyring.ErrWrongKEK)

					var mu sync.Mutex
					told := map[keyring.EventKind]int{}
					o := f.opts
					o.Keyring.OnEvent = func(e keyring.Event) {
						mu.Lock()
						defer mu.Unlock()
						told[e.Kind]++
					}
					rel, err := block.Relocate(f.ctx, f.dir, f.to(), &o)
					require.NoError(t, err)
					require.NotEmpty(t, rel.Moved)
					require.Equal(t, f.second, rel.Moved[len(rel.Moved)-1].From)
					require.Len(t, rel.Copies, 2)
					for _, c := range rel.Copies {
						require.NoError(t, c.Err)
						require.Equal(t, f.b.Name, c.KEK.Vault)
						for _, id := range c.KEKs {
							require.Equal(t, f.b.Name, id.Vault)
						}
					}
					eventually(t, func() bool {
						mu.Lock()
						defer mu.Unlock()
						return told[keyring.KEKChanged] == 1 && told[keyring.CopyKEKChanged] == 2
					}, "events say so")
					again, err := block.Relocate(f.ctx, f.dir, f.to(), &o)
					require.NoError(t, err)
					require.Empty(t, again.Moved, "nothing is left to do")

					// What any store does.
					f.kek = f.to()
					s := f.open()
					requireBlock(t, s, "a", "1")
					requireBlock(t, s, "b", "2")
					require.NoError(t, s.Put(f.ctx, []byte("c"), []byte("3")))
					copies, err := s.Copies(f.ctx)
					require.NoError(t, err)
					for _, c := range copies {
						require.Equal(t, f.b.Name, c.KEK.Vault)
					}
					opensCopy(f.rig, "later", "1")
					f.b.Import("customer", f.b.Pair())
					require.NoError(t, s.RotateKEK(f.ctx))
					require.NoError(t, s.RewrapDEKs(f.ctx, nil))
					uses, err := s.KeyUsage(f.ctx)
					require.NoError(t, err)
					for _, u := range uses {
						require.Equal(t, f.b.Name, u.Key.Vault)
					}
					require.NoError(t, s.Delete(f.ctx, []byte("a")))
					receipt, err := s.Erase(f.ctx, nil)
					require.NoError(t, err)
					states := map[string][]block.KeyState{} // by public key
					for _, k := range receipt.Keys {
						states[k.PublicKey] = append(states[k.PublicKey], k.State)
					}
					require.Len(t, states, 3, "two keys in two places each, and a third")
					for _, k := range receipt.Keys {
						if k.Key.Vault != f.b.Name {
							require.Contains(t, states[k.PublicKey], block.KeyExists, "the other place of it is named as well")
						}
					}
					require.NoError(t, s.Checkpoint(f.ctx, "last"))
					require.NoError(t, s.Close())
					s = f.open()
					requireBlock(t, s, "b", "2")
					requireBlock(t, s, "c", "3")
				})
			})
		}
	}
}

// The promise of ten minutes holds in the new place.
func TestRelocatedStoreIsShutByTheNewVault(t *testing.T) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		f := newFailover(t, site, clock, keyring.ByKeyring)
		f.b.Restore(f.a, "customer")
		_, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.NoError(t, err)
		f.kek = f.to()
		s := f.open()
		requireBlock(t, s, "a", "1")
		f.b.SetEnabled(s.State().KEK, false) // in the first vault it is enabled still
		require.ErrorIs(t, s.Revalidate(f.ctx), vault.ErrKeyDisabled)
		_, err = s.Get(f.ctx, []byte("a"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible)
		f.b.SetEnabled(s.State().KEK, true)
		require.NoError(t, s.Revalidate(f.ctx))
		f.b.Gone()
		clock.Advance(keyring.DefaultLease)
		_, err = s.Get(f.ctx, []byte("a"), nil)
		require.ErrorIs(t, err, block.ErrInaccessible)
	})
}

// What Relocate does not do, it leaves as it was, and says why.
func TestRelocateRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		wrapping keyring.Wrapping
		prepare  func(f *failover)
		is       error
	}{
		"no counterpart":               {keyring.ByKeyring, func(f *failover) {}, vault.ErrKeyNotFound},
		"no counterpart of a record's": {keyring.ByKEK, func(f *failover) { f.again[1]() }, vault.ErrKeyNotFound},
		"disabled":                     {keyring.ByKeyring, func(f *failover) { f.b.SetEnabled(f.again[1](), false) }, vault.ErrKeyDisabled},
		"read only":                    {keyring.ByKeyring, func(f *failover) { f.again[1](); f.opts.ReadOnly = true }, block.ErrReadOnly},
		"another keyring is expected": {keyring.ByKeyring, func(f *failover) {
			f.again[1]()
			f.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fmt.Sprintf("%064x", 1)}
		}, keyring.ErrUnexpected},
		"more changes are expected": {keyring.ByKeyring, func(f *failover) { f.again[1](); f.opts.Keyring.Anchor = keyring.Expect{Sequence: 1 << 40} }, keyring.ErrUnexpected},
		"there is no store":         {keyring.ByKeyring, func(f *failover) { f.dir = "elsewhere" }, block.ErrNotStore},
		"open elsewhere":            {keyring.ByKeyring, func(f *failover) { f.again[1](); f.open() }, block.ErrLocked},
		"a document of before, which opens no record": {keyring.ByKeyring, func(f *failover) {
			f.again[1]()
			s := openAt(f.t, f.rig, f.dir)
			old := s.Document()
			require.NoError(f.t, s.RotateEpoch(f.ctx, nil))
			require.NoError(f.t, s.Close())
			f.a.SetEnabled(f.second, false) // so that Close saves none over it
			s = openAt(f.t, f.rig, f.dir)
			s.SetEngine(append([]byte{1, 0, 0, 0, 0}, "keyring"...), old)
			require.NoError(f.t, s.Close())
		}, block.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) { // the vault's part is tested in package keyring
			site, clock := vaultkinds.Memory(t)
			f := newFailover(t, site, clock, tt.wrapping)
			tt.prepare(f)
			inspect := &block.Options{Pebble: block.PebbleOptions{FS: f.opts.Pebble.FS}}
			before, err := block.InspectKeyring("store", inspect)
			if name == "open elsewhere" {
				require.ErrorIs(t, err, block.ErrLocked)
			}
			_, err = block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
			require.ErrorIs(t, err, tt.is)
			if name == "open elsewhere" {
				return
			}
			after, err := block.InspectKeyring("store", inspect)
			require.NoError(t, err)
			require.Equal(t, before, after)
		})
	}
}

// A version that is in the document's table and that no record names any more need not be in
// the new place.
func TestRelocateWithoutWhatNothingNeeds(t *testing.T) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		f := newFailover(t, site, clock, keyring.ByKEK)
		s := openAt(t, f.rig, f.dir)
		require.NoError(t, s.Put(f.ctx, []byte("a"), []byte("1"))) // the only one on the first version
		require.NoError(t, s.Close())
		f.again[1]()
		rel, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.NoError(t, err)
		require.Len(t, rel.Moved, 1)
		// One of the copies has a record on the first version: it stays as it is, and the result
		// says what it lacks.
		require.Len(t, rel.Copies, 2)
		for _, c := range rel.Copies {
			if c.Path != "later" {
				require.NoError(t, c.Err)
				continue
			}
			require.ErrorIs(t, c.Err, vault.ErrKeyNotFound)
			require.ErrorContains(t, c.Err, f.first.String())
			require.Equal(t, f.a.Name, c.KEK.Vault)
		}
		// When that is there, another call goes on with them.
		f.again[0]()
		rel, err = block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.NoError(t, err)
		require.Empty(t, rel.Moved)
		for _, c := range rel.Copies {
			require.NoError(t, c.Err)
		}
		f.kek = f.to()
		opensCopy(f.rig, "later", "1")
	})
}

// A copy that is elsewhere is relocated where it is, and stays a copy.
func TestRelocateACopy(t *testing.T) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		f := newFailover(t, site, clock, keyring.ByKEK)
		f.b.Restore(f.a, "customer")
		_, err := vfs.Clone(f.opts.Pebble.FS, f.opts.Pebble.FS, "copy", "elsewhere")
		require.NoError(t, err)
		require.NoError(t, f.opts.Pebble.FS.RemoveAll("copy"))
		f.opts.Keyring.Anchor = nil
		rel, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.NoError(t, err)
		require.Len(t, rel.Copies, 2)
		for _, c := range rel.Copies {
			if c.Path == "copy" {
				require.ErrorContains(t, c.Err, "is not at copy any more")
			} else {
				require.NoError(t, c.Err)
			}
		}
		rel, err = block.Relocate(f.ctx, "elsewhere", f.to(), &f.opts)
		require.NoError(t, err)
		require.NotEmpty(t, rel.Moved)
		require.Empty(t, rel.Copies)
		f.kek = f.to()
		c := openAt(t, f.rig, "elsewhere")
		require.Equal(t, keyring.Inaccessible, c.State().Status, "it waits still")
		require.NoError(t, c.Close())
		opensCopy(f.rig, "elsewhere", "1")
	})
}

// With an anchor the store of before is refused once the relocated one was opened.
func TestRelocateAdvancesTheAnchor(t *testing.T) {
	vaultkinds.Each(t, func(t *testing.T, site *vaultkinds.Site, clock *vaulttest.Clock) {
		f := newFailover(t, site, clock, keyring.ByKeyring)
		f.opts.Keyring.Anchor = keyring.FileAnchor(t.TempDir() + "/anchor")
		require.NoError(t, openAt(t, f.rig, f.dir).Close())
		_, err := vfs.Clone(f.opts.Pebble.FS, f.opts.Pebble.FS, f.dir, "before")
		require.NoError(t, err)
		f.b.Restore(f.a, "customer")
		rel, err := block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.NoError(t, err)
		at, err := f.opts.Keyring.Anchor.Load(f.ctx)
		require.NoError(t, err)
		require.Equal(t, rel.Generation, at.Generation)
		require.NoError(t, f.opts.Pebble.FS.RemoveAll(f.dir))
		require.NoError(t, f.opts.Pebble.FS.Rename("before", f.dir))
		_, err = block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
	})
}

// A crash at any operation on the files leaves the store, and each copy, on the identifiers of
// before or in the new place, all of them, and another call completes it. Looked at are some
// of them, and each with -crash.all.
func TestCrashDuringRelocate(t *testing.T) {
	for _, w := range []keyring.Wrapping{keyring.ByKeyring, keyring.ByKEK} {
		t.Run(w.String(), func(t *testing.T) {
			site, clock := vaultkinds.Memory(t)
			f := newFailover(t, site, clock, w)
			f.b.Restore(f.a, "customer")
			start := f.opts.Pebble.FS
			disk := &watchedFS{FS: vfs.NewCrashableMem()}
			for _, dir := range []string{"store", "copy", "later"} {
				ok, err := vfs.Clone(start, disk, dir, dir, vfs.CloneSync)
				require.NoError(t, err)
				require.True(t, ok)
			}
			root, err := disk.OpenDir("")
			require.NoError(t, err)
			require.NoError(t, root.Sync())
			require.NoError(t, root.Close())
			f.opts.Pebble.FS = disk

			rng := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			over := false
			type left struct {
				at string
				fs *vfs.MemFS
			}
			var crashes []left
			see := func(op, name string) {
				mu.Lock()
				defer mu.Unlock()
				if over {
					return
				}
				kept := []int{0, 50, 100}[len(crashes)%3]
				crashes = append(crashes, left{fmt.Sprintf("%d: %s %s, %d%% kept", len(crashes), op, name, kept),
					disk.crash(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: rng})})
			}
			disk.watch.Store(&see)
			_, err = block.Relocate(f.ctx, f.dir, f.to(), &f.opts)
			require.NoError(t, err)
			see("the end", "")
			mu.Lock()
			over = true
			mu.Unlock()
			require.Greater(t, len(crashes), 20)
			places := map[string]int{}
			every := 1
			if !*crashAll {
				every = max(1, len(crashes)/24)
			}
			for i, c := range crashes {
				if i%every != 0 && i != len(crashes)-1 { // the last, whatever their number
					continue
				}
				g := *f.rig
				g.opts.Pebble.FS = c.fs
				for _, dir := range []string{"store", "copy", "later"} {
					in, err := block.InspectKeyring(dir, &g.opts)
					require.NoError(t, err, c.at)
					for _, id := range in.KEKs {
						require.Equal(t, in.KEK.Vault, id.Vault, "%s: between", c.at)
					}
					places[dir+" in "+in.KEK.Vault]++
				}
				_, err := block.Relocate(g.ctx, g.dir, f.to(), &g.opts)
				require.NoError(t, err, c.at)
				g.kek = f.to()
				s := openAt(t, &g, g.dir)
				requireBlock(t, s, "a", "1")
				requireBlock(t, s, "b", "2")
				rep, err := s.Verify(g.ctx, nil)
				require.NoError(t, err, c.at)
				require.EqualValues(t, 2, rep.Blocks)
				require.NoError(t, s.Close())
				opensCopy(&g, "copy", "1")
				opensCopy(&g, "later", "1")
			}
			require.Len(t, places, 6, "each was met in both places: %v", places)
		})
	}
}
