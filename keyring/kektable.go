package keyring

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
)

// kekTable is what a keyring remembers of the document's table of KEKs that the
// document does not say. Guarded by Keyring.docMu.
type kekTable struct {
	// left is what has left the table and may have wrapped records: a scan or a snapshot
	// that began before goes on reading those, as it does under epochs that were dropped.
	// It holds no secret, and one entry at most for each change of the KEK.
	left []kekEntry

	// moves counts the changes of the KEK.
	moves uint64

	// before is the versions that the keyring was on before the one that it is on now, of
	// the same key, in their order.
	before []vault.KeyID
}

// wasOn reports whether the keyring was on a version before.
func (t *kekTable) wasOn(id vault.KeyID) bool { return slices.Contains(t.before, id) }

// moved notes a change of the KEK. One back to an older version, which somebody named,
// makes those after it newer ones again.
func (t *kekTable) moved(from, to vault.KeyID) {
	t.moves++
	i := slices.Index(t.before, to)
	switch {
	case from.Versionless() != to.Versionless():
		t.before = nil
	case i >= 0:
		t.before = t.before[:i]
	case from != to:
		t.before = append(t.before, from)
	}
}

// follow notes that a document took the place of another. docMu is held, or nobody
// else has the keyring yet.
func (t *kekTable) follow(from, to *header) {
	for _, e := range from.keks {
		if _, ok := to.kek(e.id); !ok && e.records {
			t.left = append(t.left, e)
		}
	}
}

// former returns an entry that has left the table.
func (t *kekTable) former(id uint32) (kekEntry, bool) {
	i := slices.IndexFunc(t.left, func(e kekEntry) bool { return e.id == id })
	if i < 0 {
		return kekEntry{}, false
	}
	return t.left[i], true
}

// activate makes a KEK version the one that wraps the document with the body b, adding it to
// the table under the next id if it is new there. Versions that wrap no record leave
// the table.
//
// No id is given twice, in the document's whole life: a record is made before it is stored, by
// whichever keyring, as in a batch that is open for long, and if its KEK leaves the table
// meanwhile, its id must not come to mean another KEK.
func (h *header) activate(key vault.KeyID, fingerprint [32]byte, b *body) error {
	found, next := false, b.nextKEK
	for _, e := range h.keks {
		if e.key == key {
			if e.fingerprint != fingerprint {
				return &vault.Error{Op: vault.OpGet, Key: key, Kind: vault.ErrUnsupportedKey,
					Detail: "its public key is not the one that this version had before"}
			}
			h.active, found = e.id, true
		}
		next = max(next, e.id+1)
	}
	h.keks = slices.DeleteFunc(h.keks, func(e kekEntry) bool { return e.key != key && !e.records })
	if found {
		return nil
	}
	if len(h.keks) >= maxKEKs {
		return fmt.Errorf("keyring: %d KEK versions are still named by records; rewrap them first: %w", maxKEKs, ErrLimit)
	}
	if next == math.MaxUint32 {
		return fmt.Errorf("keyring: the document has had %d KEK versions: %w", next, ErrLimit)
	}
	h.keks = append(h.keks, kekEntry{id: next, key: key, fingerprint: fingerprint})
	h.active, b.nextKEK = next, next+1
	return nil
}

// KEKMoves counts the changes of the KEK since the keyring was opened, for DropKEKs.
func (r *Keyring) KEKMoves() uint64 {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.table.moves
}

// DropKEKs takes KEK versions out of the document that no record is wrapped by any
// more, none that is yet to be stored either, which the caller has made sure of. The
// one that wraps the document stays. It is for a database that wraps ByKEK, once it has rewrapped
// what the versions wrap ([Hold.RewrapKEK]).
//
// moves is what [Keyring.KEKMoves] was before the caller began to make sure. If the KEK
// was changed since, even there and back, records may have been wrapped by any of them:
// DropKEKs returns [ErrMoved] and drops nothing; that counts what other keyrings on the
// document have changed, as far as this one has taken it up, which it does before it drops
// any. After any other error the document in storage may be without them all the same.
func (r *Keyring) DropKEKs(ctx context.Context, moves uint64, ids ...uint32) error {
	h, err := r.Acquire()
	if err != nil {
		return err
	}
	defer h.Release()
	err = r.mutateHeader(ctx, &h, func(next *header, _ *body) error {
		if r.table.moves != moves {
			return fmt.Errorf("keyring: %w", ErrMoved)
		}
		n := len(next.keks)
		next.keks = slices.DeleteFunc(next.keks, func(e kekEntry) bool {
			return e.id != next.active && slices.Contains(ids, e.id)
		})
		if len(next.keks) == n {
			return errUnchanged
		}
		return nil
	}, nil)
	if err != nil {
		return fmt.Errorf("keyring: drop KEKs: %w", err)
	}
	return nil
}

// kekFor returns the KEK to unwrap a record with, from the id that it names.
func (r *Keyring) kekFor(id uint32) (*kek.KEK, vault.KeyID, error) {
	r.docMu.Lock()
	defer r.docMu.Unlock()
	e, ok := r.header.kek(id)
	if !ok {
		e, ok = r.table.former(id)
	}
	if !ok {
		return nil, vault.KeyID{}, corrupt("the DEK record names KEK %d, which the keyring does not list", id)
	}
	if k, ok := r.clientFor(e.key); ok {
		return k, e.key, nil
	}
	return nil, e.key, fmt.Errorf("keyring: the DEK is wrapped by %s, for which no KEK was given: %w", e.key, ErrWrongKEK)
}

// KEKFor returns the KEK with which something wrapped by id can be unwrapped, if
// this keyring was given one: its own, or one that it was moved away from since it
// was opened.
func (f *forBlock) KEKFor(id vault.KeyID) (*kek.KEK, bool) {
	r := (*Keyring)(f)
	r.docMu.Lock()
	defer r.docMu.Unlock()
	return r.clientFor(id)
}

// clientFor is KEKFor. docMu is held.
func (r *Keyring) clientFor(id vault.KeyID) (*kek.KEK, bool) {
	if r.header.current().key.Versionless() == id.Versionless() {
		return kek.New(r.kek.Vault(), id), true
	}
	if k := r.otherFor(id); k != nil {
		return kek.New(k.Vault(), id), true
	}
	return nil, false
}

// otherFor returns that of the other KEKs which is the key of id, or nil. docMu is held.
func (r *Keyring) otherFor(id vault.KeyID) *kek.KEK {
	// One that says which vault it is in comes before one that may be in any.
	for _, exact := range []bool{true, false} {
		for _, k := range r.others {
			if (k.ID().Vault != "") == exact && sameKey(k.ID(), id) {
				return k
			}
		}
	}
	return nil
}

// sameKey reports whether want, which may lack vault and version, names got.
func sameKey(want, got vault.KeyID) bool {
	return want.Name == got.Name && (want.Vault == "" || want.Vault == got.Vault)
}

// inVault returns k with the vault in its id, which the caller may have left out: keys
// of one name in two vaults are told apart by it when the keyring moves from one to
// the other. The version stays as it was given.
func inVault(k *kek.KEK, vault string) *kek.KEK {
	id := k.ID()
	id.Vault = vault
	return kek.New(k.Vault(), id)
}

// leave keeps the KEK that the keyring moves away from, for what it has wrapped.
// docMu is held, or nobody else has the keyring yet.
func (r *Keyring) leave(k *kek.KEK) { r.knowOther(k) }

// knowOther keeps a KEK that something may be wrapped by. docMu is held, or nobody else has the
// keyring yet.
func (r *Keyring) knowOther(k *kek.KEK) {
	id := k.ID().Versionless()
	r.others = append(slices.DeleteFunc(r.others, func(o *kek.KEK) bool { return o.ID().Versionless() == id }), k)
}
