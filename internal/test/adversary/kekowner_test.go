package adversary

import (
	"context"
	"maps"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
)

// opened is all that somebody has who unwraps a store's document: the document's secret, what is in
// its body, and each block's DEK.
type opened struct {
	id, secret, store []byte
	epochs            map[string][]byte
	deks              map[string][]byte
}

// keys returns all of them.
func (o opened) keys() (out [][]byte) {
	out = append(out, o.secret, o.store)
	for _, m := range []map[string][]byte{o.epochs, o.deks} {
		for _, key := range m {
			out = append(out, key)
		}
	}
	return out
}

// secretsOf opens a tenant's store by docs/format.md, with the vault that the tenant owns.
func (n *tenants) secretsOf(name string) opened {
	n.t.Helper()
	records := n.records()
	in := partition(records, number(records, name))
	unwrap := func(wrapped []byte) []byte {
		out, err := n.vault.UnwrapKey(n.ctx, vault.Wrapped{KeyID: n.keyIDs[name], Ciphertext: wrapped})
		require.NoError(n.t, err)
		return out
	}
	document := in["\x01keyring"]
	header := headerOf(document)
	o := opened{id: []byte(document[14:30]), secret: unwrap([]byte(header[len(header)-256:])), epochs: map[string][]byte{}, deks: map[string][]byte{}}
	body := unseal(n.t, o.secret, []byte(document[len(header):]), []byte(header))
	o.store = body[:32]
	for e := body[103:]; len(e) > 0; e = e[52:] {
		o.epochs[string(e[:4])] = e[20:52]
	}
	for key, record := range in {
		if key[0] != 2 {
			continue
		}
		head := map[byte]int{1: 5, 2: 9}[record[0]]
		dek := unseal(n.t, o.epochs[record[1:5]], []byte(record[head:]), []byte(record[:head]+string(o.id)+key[1:]))
		if record[0] == 2 {
			dek = unwrap(dek[:256])
		}
		o.deks[key[1:]] = dek
	}
	require.Len(n.t, o.deks, len(n.ids))
	return o
}

// openable returns how much of a store opens with some keys: its document, its records, its blocks.
func (n *tenants) openable(name string, keys [][]byte) (count int) {
	records := n.records()
	in := partition(records, number(records, name))
	document := in["\x01keyring"]
	header, id := headerOf(document), document[14:30]
	try := func(sealed, aad string) {
		for _, key := range keys {
			if _, ok := open(key, []byte(sealed), []byte(aad)); ok {
				count++
				return
			}
		}
	}
	try(document[len(header):], header)
	for key, value := range in {
		switch key[0] {
		case 2:
			head := map[byte]int{1: 5, 2: 9}[value[0]]
			try(value[head:], value[:head]+id+key[1:])
		case 3:
			try(value[1:], value[:1]+id+key[1:])
		}
	}
	return count
}

// Bob owns a KEK, has the disk, and with both all of his own keys. Of ada's store he opens nothing. What
// he reads is what leaks of any store: her name, ids, sizes, and her KEK's identifier.
func TestWhatAKEKsOwnerReadsOfAnotherTenant(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		bobs := n.secretsOf("bob").keys()
		everything := 1 + 2*len(n.ids)
		require.Equal(t, everything, n.openable("bob", bobs), "the search finds what there is")
		require.Zero(t, n.openable("ada", bobs))
		require.Equal(t, everything, n.openable("ada", n.secretsOf("ada").keys()))
		// Bea has a store under the same KEK: its owner opens her store too, with an unwrap of hers.
		// What opens bob's store alone opens nothing of hers.
		require.Zero(t, n.openable("bea", bobs))
		require.Equal(t, everything, n.openable("bea", n.secretsOf("bea").keys()))

		var disk strings.Builder
		for key, value := range n.records() {
			disk.WriteString(key)
			disk.WriteString(value)
		}
		require.Contains(t, disk.String(), entry(2, number(n.records(), "ada"), "ada"))
		require.Contains(t, disk.String(), n.keyIDs["ada"].String())
		require.NotContains(t, disk.String(), canary)
	})
}

// With his own keys, and all that is in clear, bob makes rows for ada's store: none is accepted.
func TestRowsThatAnotherTenantMakes(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		good := n.records()
		of, epoch := number(good, "ada"), good[engineKey(2, number(good, "ada"), "a")][1:5]
		bobs, id := n.secretsOf("bob"), good[engineKey(1, of, "keyring")][14:30]
		dek := repeat(7, 32)
		block1 := "\x01" + string(seal(t, dek, []byte("bob's"), []byte("\x01"+id+"a")))
		for what, key := range map[string][]byte{"an epoch of his": bobs.epochs[epoch], "his document's secret": bobs.secret, "his store secret": bobs.store} {
			require.NotNil(t, key, what)
			n.set(map[string]string{
				engineKey(2, of, "a"): "\x01" + epoch + string(seal(t, key, dek, []byte("\x01"+epoch+id+"a"))),
				engineKey(3, of, "a"): block1,
			})
			n.do(func(db *block.DB) {
				s, err := n.open(db, "ada")
				require.NoError(t, err)
				got, err := s.Get(n.ctx, []byte("a"), nil)
				refuses(t, got, err, "%s", what)
				require.NoError(t, s.Close())
				n.whole(db, "bob", "bea")
			})
		}
		n.set(good)
		n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	})
}

// A whole store of bob's in the place of ada's, with her name, which he can tag, under his KEK. It does
// not open with hers. Whoever takes the KEK from what is on the disk opens it, and what is
// written then is bob's to read: that is why a program has it from elsewhere, or an anchor.
func TestStoreThatAnotherTenantMakes(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		good := n.records()
		var fingerprint string
		n.do(func(db *block.DB) {
			s, err := n.open(db, "ada")
			require.NoError(t, err)
			fingerprint = s.Fingerprint()
			require.NoError(t, s.Close())
		})
		bobs := *n
		bobs.rig = new(rig)
		*bobs.rig = *n.rig
		bobs.dbOpts.Pebble.FS = vfs.NewMem()
		bobs.opts.Pebble.FS = bobs.dbOpts.Pebble.FS
		bobs.keks = map[string]*kek.KEK{"ada": n.keks["bob"]}
		bobs.do(func(db *block.DB) { bobs.create(db, "ada") })
		forged := partition(bobs.records(), number(bobs.records(), "ada"))
		of := number(good, "ada")
		bad := maps.Clone(good)
		for key := range at(of, partition(good, of)) {
			delete(bad, key)
		}
		maps.Copy(bad, at(of, forged))
		n.put(bad)
		n.do(func(db *block.DB) {
			_, err := n.open(db, "ada")
			require.ErrorIs(t, err, keyring.ErrWrongKEK)
			n.whole(db, "bob", "bea")
			_, err = db.Drop(n.ctx, "bob") // nor is anything else kept from its owner
			require.NoError(t, err)
		})
		n.put(bad)
		believed := vault.KeyID{} // a program that has the KEK from the list of stores
		n.dbOpts.Resolve = func(context.Context, string) (*kek.KEK, *block.Options, error) {
			return kek.New(n.vault, believed.Versionless()), &n.opts, nil
		}
		list := func(db *block.DB) {
			for in, err := range db.Stores(n.ctx) {
				if in.Name == "ada" {
					require.NoError(t, err)
					believed = in.KEK
				}
			}
			require.Equal(t, n.keyIDs["bob"], believed)
		}
		n.do(func(db *block.DB) {
			list(db)
			s, release, err := db.Acquire(n.ctx, "ada")
			require.NoError(t, err)
			require.NoError(t, s.Revalidate(n.ctx))
			require.NoError(t, n.reads(s, "ada"))
			release()
		})
		n.opts.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint}
		n.do(func(db *block.DB) {
			list(db)
			_, _, err := db.Acquire(n.ctx, "ada")
			require.ErrorIs(t, err, keyring.ErrUnexpected)
		})
	})
}

// Two tenants under one KEK: what takes it away from one takes it from both; all else is each one's own.
func TestTwoTenantsUnderOneKEK(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		n.do(func(db *block.DB) {
			bob, err := n.open(db, "bob")
			require.NoError(t, err)
			bea, err := n.open(db, "bea")
			require.NoError(t, err)
			require.NotEqual(t, bob.Fingerprint(), bea.Fingerprint())
			require.NotEqual(t, bob.StoreID(), bea.StoreID())
			n.vault.SetEnabled(n.keyIDs["bob"], false)
			for name, s := range map[string]*block.Store{"bob": bob, "bea": bea} {
				require.ErrorIs(t, s.Revalidate(n.ctx), vault.ErrKeyDisabled)
				require.ErrorIs(t, n.reads(s, name), block.ErrInaccessible)
			}
			n.vault.SetEnabled(n.keyIDs["bob"], true)
			require.NoError(t, bob.Revalidate(n.ctx))
			require.NoError(t, n.reads(bob, "bob"))
			require.ErrorIs(t, n.reads(bea, "bea"), block.ErrInaccessible, "each has a lease of its own")
			require.NoError(t, bea.Revalidate(n.ctx))

			// Bob moves away. The KEK is bea's alone then.
			require.NoError(t, bob.ChangeKEK(n.ctx, n.keks["ada"]))
			require.NoError(t, bob.RewrapDEKs(n.ctx, nil))
			n.vault.Purge("shared")
			require.Error(t, bea.Revalidate(n.ctx))
			require.Error(t, n.reads(bea, "bea"))
			require.NoError(t, bob.Revalidate(n.ctx))
			require.NoError(t, n.reads(bob, "bob"))
			require.NoError(t, bob.Close())
			require.NoError(t, bea.Close())
		})
	})
}
