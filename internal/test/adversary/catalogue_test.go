package adversary

import (
	"bytes"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/keyring"
)

// Entries of two stores in each other's places: whose name is not the one that they stand for is
// damage, and the third store is found as before.
func TestCatalogueEntriesExchanged(t *testing.T) {
	n := newTenants(t)
	good := n.records()
	n.set(map[string]string{entryKey("ada"): good[entryKey("bob")], entryKey("bob"): good[entryKey("ada")]})
	n.do(func(db *block.DB) {
		for _, name := range []string{"ada", "bob"} {
			for what, err := range map[string]error{
				"Open": second(n.open(db, name)), "Export": second(db.Export(n.ctx, name, new(bytes.Buffer))), "Drop": second(db.Drop(n.ctx, name)),
				"Create": second(db.Create(n.ctx, name, n.keks[name], &n.opts)),
			} {
				require.ErrorIs(t, err, block.ErrCorrupt, "%s %s", what, name)
			}
		}
		bad, whole := 0, 0
		for _, err := range db.Stores(n.ctx) {
			if err == nil {
				whole++
				continue
			}
			require.ErrorIs(t, err, block.ErrCorrupt)
			bad++
		}
		require.Equal(t, 2, bad)
		require.Equal(t, 1, whole)
		n.whole(db, "bea")
	})
	n.set(good)
	n.do(func(db *block.DB) { n.whole(db, n.names()...) })
}

// The numbers of two entries exchanged: each name leads to another one's partition, which says so,
// also to who has the KEK of both, to who has no access, and to who takes no key.
func TestCatalogueNumbersExchanged(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		good := n.records()
		for _, pair := range pairs() {
			n.set(map[string]string{
				entryKey(pair[0]): entry(2, number(good, pair[1]), pair[0]),
				entryKey(pair[1]): entry(2, number(good, pair[0]), pair[1]),
			})
			n.foreign(pair)
			n.vault.SetEnabled(n.keyIDs[pair[0]], false)
			n.foreign(pair)
			n.vault.SetEnabled(n.keyIDs[pair[0]], true)
			n.set(good)
		}
		n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	})
}

// A second entry that leads to a store's partition is refused by everything, before the engine is
// asked for the partition: the store, which is open meanwhile, is not disturbed, nor what its
// rotation has raised.
func TestCatalogueEntryOfAnotherStoresPartition(t *testing.T) {
	for state, how := range map[byte]string{1: "being created", 2: "there", 3: "being dropped"} {
		t.Run(how, func(t *testing.T) {
			n := newTenants(t)
			of := number(n.records(), "ada")
			n.keks["eve"] = n.keks["ada"]
			defer delete(n.keks, "eve")
			forged := map[string]string{entryKey("eve"): entry(state, of, "eve")}
			if state != 2 {
				forged[catalogueKey("unfinished/"+entryKey("eve")[len(catalogueKey("store/")):])] = "eve"
			}
			n.set(forged)
			n.do(func(db *block.DB) {
				ada, err := n.open(db, "ada")
				require.NoError(t, err)
				batch := ada.NewBatch() // its DEK is of an epoch that goes
				require.NoError(t, batch.Put(n.ctx, []byte("b"), has("ada", "b")))
				require.NoError(t, ada.RotateEpoch(n.ctx, nil))
				for what, err := range map[string]error{
					"Open": second(n.open(db, "eve")), "Export": second(db.Export(n.ctx, "eve", new(bytes.Buffer))),
					"Drop": second(db.Drop(n.ctx, "eve")), "Create": second(db.Create(n.ctx, "eve", n.keks["eve"], &n.opts)),
				} {
					switch {
					case what == "Drop":
						require.ErrorIs(t, err, block.ErrForeign)
					case what == "Create":
						require.ErrorIs(t, err, block.ErrExists)
					case state == 3:
						require.ErrorIs(t, err, block.ErrNoStore)
					default:
						require.ErrorIs(t, err, block.ErrForeign, what)
					}
				}
				require.NoError(t, db.Checkpoint(n.ctx, "copy"))
				if err := batch.Commit(n.ctx); err != nil {
					require.ErrorIs(t, err, block.ErrStale)
				}
				require.NoError(t, ada.Put(n.ctx, []byte("c"), has("ada", "c")))
				require.NoError(t, ada.Close())
				n.whole(db, "ada", "bob", "bea")
			})
			n.do(func(db *block.DB) { n.whole(db, "ada", "bob", "bea") })
		})
	}
}

// A store whose name was taken away, or is no record of a name, is damaged: it is not opened, and it can
// be dropped.
func TestStoreWithoutItsName(t *testing.T) {
	for what, take := range map[string]func(n *tenants, key string){
		"taken away":  func(n *tenants, key string) { n.remove(key) },
		"cut off":     func(n *tenants, key string) { n.set(map[string]string{key: "\x02ada"}) },
		"not written": func(n *tenants, key string) { n.set(map[string]string{key: "\x02" + string(make([]byte, 32)) + "ada"}) },
	} {
		t.Run(what, func(t *testing.T) {
			n := newTenants(t)
			of := number(n.records(), "ada")
			take(n, engineKey(1, of, "name"))
			n.do(func(db *block.DB) {
				_, err := n.open(db, "ada")
				require.ErrorIs(t, err, block.ErrCorrupt)
				n.whole(db, "bob", "bea")
				r, err := db.Drop(n.ctx, "ada")
				require.NoError(t, err)
				require.Equal(t, "ada", r.Name)
				n.whole(db, "bob", "bea")
			})
			require.Empty(t, partition(n.records(), of))
		})
	}
}

// An entry that was removed hides its store, and nothing else: the name is free, a store that is made
// under it has a partition of its own, and the one that was hidden is there again with its entry. An
// anchor tells them apart.
func TestCatalogueEntryRemoved(t *testing.T) {
	n := newTenants(t)
	good := n.records()
	of := number(good, "ada")
	n.remove(entryKey("ada"))
	var fingerprint string
	n.do(func(db *block.DB) {
		for what, err := range map[string]error{
			"Open": second(n.open(db, "ada")), "Export": second(db.Export(n.ctx, "ada", new(bytes.Buffer))), "Drop": second(db.Drop(n.ctx, "ada")),
		} {
			require.ErrorIs(t, err, block.ErrNoStore, what)
		}
		n.whole(db, "bob", "bea")
		s, err := db.Create(n.ctx, "ada", n.keks["ada"], &n.opts)
		require.NoError(t, err)
		fingerprint = s.Fingerprint()
		n.write(s, "ada")
		require.NoError(t, s.Close())
	})
	now := n.records()
	require.NotEqual(t, of, number(now, "ada"))
	require.Equal(t, partition(good, of), partition(now, of))
	n.set(map[string]string{entryKey("ada"): good[entryKey("ada")]})
	n.do(func(db *block.DB) {
		o := n.opts
		o.Keyring.Anchor = keyring.Expect{Fingerprint: fingerprint}
		_, err := db.Open(n.ctx, "ada", n.keks["ada"], &o)
		require.ErrorIs(t, err, keyring.ErrUnexpected)
		n.whole(db, n.names()...)
	})
}

// The number that is given next was put back, or taken away. What was made in the directory is in its
// identity file as well; where that was put back too, a store that is made over another one is none,
// and the other one stays as it is.
func TestCatalogueNextPutBack(t *testing.T) {
	n := newTenants(t)
	good := n.records()
	numberOfStores := func(count string) {
		n.editIdentity(func(text string) string {
			require.Contains(t, text, "\nstores 3\n")
			return string(bytes.Replace([]byte(text), []byte("\nstores 3\n"), []byte("\nstores "+count+"\n"), 1))
		})
	}
	for what, put := range map[string]func(){
		"put back":   func() { n.set(map[string]string{catalogueKey("next"): "\x01\x00\x00\x00\x01"}) },
		"taken away": func() { n.remove(catalogueKey("next")) },
	} {
		put()
		_, err := block.OpenDB(n.ctx, n.dir, &n.dbOpts)
		require.ErrorIs(t, err, block.ErrCorrupt, what)
	}
	n.set(map[string]string{catalogueKey("next"): "\x01\x00\x00\x00\x01"})
	numberOfStores("1")
	n.keks["eve"] = n.keks["ada"]
	var stream bytes.Buffer
	n.do(func(db *block.DB) {
		bob, err := n.open(db, "bob")
		require.NoError(t, err)
		require.NoError(t, bob.RotateEpoch(n.ctx, nil))
		_, err = db.Create(n.ctx, "eve", n.keks["eve"], &n.opts) // over one that is open, or not
		require.ErrorIs(t, err, block.ErrCorrupt)
		require.NoError(t, n.reads(bob, "bob"))
		require.NoError(t, bob.Put(n.ctx, []byte("a"), has("bob", "a")))
		require.NoError(t, bob.Close())
		_, err = n.open(db, "eve")
		require.ErrorIs(t, err, block.ErrNoStore, "nothing is left of it")
		_, err = db.Create(n.ctx, "eve", n.keks["eve"], &n.opts)
		require.ErrorIs(t, err, block.ErrCorrupt)
		n.create(db, "eve") // the number after
		n.whole(db, n.names()...)
		_, err = db.Export(n.ctx, "eve", &stream)
		require.NoError(t, err)
		_, err = db.Drop(n.ctx, "eve")
		require.NoError(t, err)
		n.whole(db, "ada", "bob", "bea")
	})
	n.set(map[string]string{catalogueKey("next"): good[catalogueKey("next")][:4] + "\x01"})
	n.editIdentity(func(text string) string {
		return string(bytes.Replace([]byte(text), []byte("\nstores 4\n"), []byte("\nstores 1\n"), 1))
	})
	n.do(func(db *block.DB) {
		_, err := db.Import(n.ctx, bytes.NewReader(stream.Bytes()))
		require.ErrorIs(t, err, block.ErrCorrupt)
		n.whole(db, "ada", "bob", "bea")
		_, err = n.open(db, "eve")
		require.ErrorIs(t, err, block.ErrNoStore)
	})
}

// The entry of a store that was dropped, put back: there is nothing in its partition. With the
// partition from a backup it is the store again, as long as its KEK exists: what ends a backup is the
// end of its KEK.
func TestDroppedStorePutBack(t *testing.T) {
	n := newTenants(t)
	good := n.records()
	of := number(good, "ada")
	n.do(func(db *block.DB) { require.NoError(t, second(db.Drop(n.ctx, "ada"))) })
	require.Empty(t, partition(n.records(), of))
	n.set(map[string]string{entryKey("ada"): good[entryKey("ada")]})
	n.do(func(db *block.DB) {
		_, err := n.open(db, "ada")
		require.ErrorIs(t, err, block.ErrCorrupt)
		require.ErrorContains(t, err, "the keyring document is missing")
		n.whole(db, "bob", "bea")
	})
	n.set(at(of, partition(good, of)))
	n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	n.vault.Purge("ada")
	n.do(func(db *block.DB) {
		s, err := n.open(db, "ada")
		require.NoError(t, err)
		require.Error(t, n.reads(s, "ada"))
		require.Equal(t, keyring.Inaccessible, s.State().Status)
		require.NoError(t, s.Close())
	})
}

// A partition that somebody copied within the directory, with an entry that leads to the copy, is a
// copy, as that of a directory is: it waits, and however it is made to write, it writes by an epoch
// of its own.
func TestPartitionCopiedWithinTheDirectory(t *testing.T) {
	forEachWrappingOfTenants(t, func(t *testing.T, n *tenants) {
		const elsewhere = 99
		good := n.records()
		of := number(good, "ada")
		n.set(at(elsewhere, partition(good, of)))
		n.set(map[string]string{entryKey("ada"): entry(2, elsewhere, "ada")})
		n.do(func(db *block.DB) {
			s, err := n.open(db, "ada")
			require.NoError(t, err)
			require.ErrorContains(t, s.State().Cause, "a copy of a store stays locked until Revalidate succeeds")
			require.NoError(t, s.Close())
		})
		own := storeInstance(n.directory(), elsewhere)
		instance := make([]byte, 16)
		for i := range instance {
			instance[i] = unhex(own[2*i])<<4 | unhex(own[2*i+1])
		}
		n.set(map[string]string{engineKey(1, elsewhere, "instance"): "\x01" + string(instance)})
		write := func(id string) {
			n.do(func(db *block.DB) {
				s, err := n.open(db, "ada")
				require.NoError(t, err)
				require.NoError(t, s.Put(n.ctx, []byte(id), has("ada", id)))
				require.NoError(t, s.Close())
			})
		}
		write("a") // in the copy
		theirs := n.records()
		n.set(map[string]string{entryKey("ada"): good[entryKey("ada")]})
		bad := map[string]string{}
		for _, space := range []byte{2, 3} {
			bad[engineKey(space, of, "a")] = theirs[engineKey(space, elsewhere, "a")]
		}
		mine := maps.Clone(theirs)
		n.set(bad)
		n.do(func(db *block.DB) {
			o := n.opts
			o.ReadOnly = true // which opens also where a record names an epoch that there is not
			s, err := db.Open(n.ctx, "ada", n.keks["ada"], &o)
			require.NoError(t, err)
			got, err := s.Get(n.ctx, []byte("a"), nil)
			refuses(t, got, err, "what the copy wrote, in its source")
			require.NoError(t, s.Close())
			_, err = n.open(db, "ada")
			require.ErrorIs(t, err, block.ErrCorrupt)
		})
		for key := range bad {
			bad[key] = mine[key]
		}
		n.set(bad)
		n.do(func(db *block.DB) { n.whole(db, n.names()...) })
	})
}

func unhex(digit byte) byte {
	if digit >= 'a' {
		return digit - 'a' + 10
	}
	return digit - '0'
}

// The tags of the list of files say each for its store that the list is whole. They are no use to
// another store: exchanged, both are refused, and only those.
func TestTagsOfTheListOfFilesExchanged(t *testing.T) {
	n := newTenants(t)
	db, err := block.OpenDB(n.ctx, n.dir, &n.dbOpts)
	require.NoError(t, err)
	for _, name := range n.names() { // open when the directory is closed
		require.NoError(t, second(n.open(db, name)))
	}
	require.NoError(t, db.Close())
	path := n.opts.Pebble.FS.PathJoin(n.dir, "BLOCKSEAL")
	good := files(t, n.opts.Pebble.FS, n.dir)[path]
	tagOf := map[string]string{}
	for line := range bytes.Lines([]byte(good)) {
		if fields := bytes.Fields(line); string(fields[0]) == "tag" {
			tagOf[string(fields[1])] = string(fields[2])
		}
	}
	require.Len(t, tagOf, 3)
	n.rewriteIdentity(func(string) string {
		text := bytes.Replace([]byte(good), []byte("tag 0 "+tagOf["0"]), []byte("tag 0 "+tagOf["1"]), 1)
		return string(bytes.Replace(text, []byte("tag 1 "+tagOf["1"]), []byte("tag 1 "+tagOf["0"]), 1))
	})
	n.do(func(db *block.DB) {
		for name, of := range map[string]uint32{"ada": 0, "bea": 1, "bob": 2} { // by ascending names
			s, err := n.open(db, name)
			if of == 2 {
				require.NoError(t, err)
				require.NoError(t, n.reads(s, name))
				require.NoError(t, s.Close())
				continue
			}
			require.ErrorIs(t, err, block.ErrCorrupt, name)
			require.ErrorContains(t, err, "was not made by this store")
		}
	})
}
