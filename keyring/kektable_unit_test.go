package keyring

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/inner"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// idOf is a version of a key, such as "customer/1".
func idOf(name string, version int) vault.KeyID {
	return vault.KeyID{Vault: "mem:test", Name: name, Version: fmt.Sprint(version)}
}

// The versions that the keyring was on are those before the one that it is on now, of the
// same key: going back to one makes those after it newer ones again.
func TestVersionsThatWereBefore(t *testing.T) {
	a := func(n int) vault.KeyID { return idOf("a", n) }
	for _, c := range []struct {
		name  string
		moves []vault.KeyID
		want  []vault.KeyID
	}{
		{"none", []vault.KeyID{a(1)}, nil},
		{"on", []vault.KeyID{a(1), a(2), a(3)}, []vault.KeyID{a(1), a(2)}},
		{"to itself", []vault.KeyID{a(1), a(2), a(2)}, []vault.KeyID{a(1)}},
		{"back to the first", []vault.KeyID{a(1), a(2), a(3), a(1)}, []vault.KeyID{}},
		{"back to one between", []vault.KeyID{a(1), a(2), a(3), a(2)}, []vault.KeyID{a(1)}},
		{"back and on", []vault.KeyID{a(1), a(2), a(1), a(3)}, []vault.KeyID{a(1)}},
		{"to another key", []vault.KeyID{a(1), a(2), idOf("b", 1)}, nil},
		{"to another key and back", []vault.KeyID{a(1), a(2), idOf("b", 1), a(2)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var table kekTable
			for i, to := range c.moves[1:] {
				table.moved(c.moves[i], to)
			}
			require.Equal(t, c.want, table.before)
			require.EqualValues(t, len(c.moves)-1, table.moves, "each move counts")
			for _, id := range c.moves {
				was := false
				for _, b := range c.want {
					was = was || b == id
				}
				require.Equal(t, was, table.wasOn(id), "%s", id)
			}
		})
	}
}

// What leaves the table and may have wrapped records is remembered, and nothing else.
func TestWhatLeavesTheTable(t *testing.T) {
	entry := func(id uint32, records bool) kekEntry {
		return kekEntry{id: id, key: idOf("k", int(id)), records: records}
	}
	var table kekTable
	one := header{keks: []kekEntry{entry(1, true), entry(2, false), entry(7, true)}}
	table.follow(&header{}, &one)
	require.Empty(t, table.left)
	table.follow(&one, &header{keks: []kekEntry{entry(3, false)}})
	for id, left := range map[uint32]bool{1: true, 2: false, 3: false, 7: true} {
		e, ok := table.former(id)
		require.Equal(t, left, ok, id)
		if left {
			require.Equal(t, entry(id, true), e)
		}
	}
	table.follow(&header{keks: []kekEntry{entry(3, true)}}, &header{keks: []kekEntry{entry(3, true)}})
	require.Len(t, table.left, 2, "what stays has not left")
}

func TestActivate(t *testing.T) {
	print := func(b byte) [32]byte { return [32]byte{b} }
	entry := func(id uint32, records bool) kekEntry {
		return kekEntry{id: id, key: idOf("k", int(id)), fingerprint: print(byte(id)), records: records}
	}
	ids := func(h header) (out []uint32) {
		for _, e := range h.keks {
			out = append(out, e.id)
		}
		return out
	}
	full := header{active: 1}
	for i := range uint32(maxKEKs) {
		full.keks = append(full.keks, entry(i+1, true))
	}
	almost := full.clone()
	almost.keks = almost.keks[:maxKEKs-1]
	for _, c := range []struct {
		name   string
		h      header
		key    vault.KeyID
		print  byte
		next   uint32 // of the document
		active uint32
		ids    []uint32
		err    error
	}{
		{"a new one, above all", header{keks: []kekEntry{entry(1, true), entry(4, true)}}, idOf("k", 9), 9, 0, 5, []uint32{1, 4, 5}, nil},
		{"a new one, above what there was", header{keks: []kekEntry{entry(1, true)}}, idOf("k", 9), 9, 8, 8, []uint32{1, 8}, nil},
		{"above an unused one that leaves", header{keks: []kekEntry{entry(1, true), entry(4, false)}}, idOf("k", 9), 9, 0, 5, []uint32{1, 5}, nil},
		{"one that is there", header{active: 1, keks: []kekEntry{entry(1, true), entry(2, true)}}, idOf("k", 2), 2, 7, 2, []uint32{1, 2}, nil},
		{"one that is there, unused", header{active: 1, keks: []kekEntry{entry(1, false), entry(2, false)}}, idOf("k", 2), 2, 0, 2, []uint32{2}, nil},
		{"another public key", header{active: 1, keks: []kekEntry{entry(1, false), entry(2, true)}}, idOf("k", 2), 3, 0, 1, []uint32{1, 2}, vault.ErrUnsupportedKey},
		{"one less than the most", almost, idOf("k", 9999), 9, 0, maxKEKs, ids(full), nil},
		{"the most", full, idOf("k", 9999), 9, 0, 1, ids(full), ErrLimit},
		{"the most, and it is there", full, idOf("k", 2), 2, 0, 2, ids(full), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.h.clone()
			b := &body{nextKEK: c.next}
			err := h.activate(c.key, print(c.print), b)
			require.ErrorIs(t, err, c.err)
			if given := !slices.Contains(ids(c.h), c.active); given {
				require.Equal(t, c.active+1, b.nextKEK, "it is not given again")
			} else {
				require.Equal(t, c.next, b.nextKEK)
			}
			require.Equal(t, c.active, h.active)
			require.Equal(t, c.ids, ids(h))
			if c.err == nil {
				require.Equal(t, c.key, h.current().key)
				require.Equal(t, print(c.print), h.current().fingerprint)
			}
		})
	}
}

// Which of the KEKs that a keyring was given opens what a version wrapped: its own key, in
// its own vault; else one that says its vault; else one of that name. What is returned names
// the version that is asked for.
func TestWhichKEKIsAsked(t *testing.T) {
	vaults := map[string]*vaulttest.Vault{}
	for _, name := range []string{"mem:own", "mem:one", "mem:two", "mem:any"} {
		vaults[name] = vaulttest.New(&vaulttest.Options{Name: name})
	}
	given := func(client, inVault, name string) *kek.KEK {
		return kek.New(vaults[client], vault.KeyID{Vault: inVault, Name: name, Version: "its"})
	}
	r := &Keyring{cold: &cold{kek: given("mem:own", "mem:own", "k"),
		stored: stored{header: header{active: 1, keks: []kekEntry{{id: 1, key: vault.KeyID{Vault: "mem:own", Name: "k", Version: "1"}}}}},
		others: []*kek.KEK{given("mem:any", "", "k"), given("mem:one", "mem:one", "k"), given("mem:two", "mem:two", "other")}}}
	for _, c := range []struct {
		vault, name string
		client      string // "" is none
	}{
		{"mem:own", "k", "mem:own"},
		{"mem:one", "k", "mem:one"},
		{"mem:two", "k", "mem:any"},
		{"mem:two", "other", "mem:two"},
		{"mem:one", "other", ""},
		{"mem:own", "none", ""},
	} {
		id := vault.KeyID{Vault: c.vault, Name: c.name, Version: "asked"}
		k, ok := r.For(inner.Block{}).KEKFor(id)
		require.Equal(t, c.client != "", ok, "%s", id)
		if ok {
			require.Equal(t, id, k.ID())
			require.Same(t, vaults[c.client], k.Vault(), "%s", id)
		}
	}
	require.Equal(t, "mem:two", inVault(given("mem:any", "", "k"), "mem:two").ID().Vault)

	// One that the keyring moves away from again takes its own place.
	r.leave(given("mem:two", "mem:one", "k"))
	require.Len(t, r.others, 3)
	k, _ := r.For(inner.Block{}).KEKFor(idIn("mem:one", "k"))
	require.Same(t, vaults["mem:two"], k.Vault(), "the later one")
}

func idIn(in, name string) vault.KeyID { return vault.KeyID{Vault: in, Name: name, Version: "asked"} }

// The KEK that wraps the document is not dropped, whoever asks, and what is not there is no
// change: no generation is used up.
func TestDropKEKsThatAreNotToGo(t *testing.T) {
	clock := vaulttest.NewClock(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	v := vaulttest.New(&vaulttest.Options{Clock: clock})
	r, err := Create(t.Context(), FileStorage(filepath.Join(t.TempDir(), "keyring")), kek.New(v, v.CreateKey("k").Versionless()), &Options{Clock: clock})
	require.NoError(t, err)
	defer r.Close()
	keks, active := r.KEKs()
	before := r.State().Generation
	require.NoError(t, r.DropKEKs(t.Context(), r.KEKMoves(), active, active+1, 0))
	after, still := r.KEKs()
	require.Equal(t, keks, after)
	require.Equal(t, active, still)
	require.Equal(t, before, r.State().Generation)
}
