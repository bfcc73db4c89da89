package vaulttest

import (
	"context"
	"time"

	"github.com/blockseal/blockseal/vault"
)

func checkRotate(r *run) {
	s := secret(32)
	before := r.wrap(r.Key, s)
	rotated := r.Rotate(r.Key.Name)
	r.requireComplete("Rotate", rotated)
	if rotated.Version == before.KeyID.Version {
		r.T.Fatalf("Rotate kept version %s", rotated.Version)
	}

	current := r.get(r.Key)
	if current.ID != rotated {
		r.T.Fatalf("after Rotate the current version is %s, want %s", current.ID, rotated)
	}
	if old := r.get(before.KeyID); old.ID != before.KeyID || old.Public.Equal(current.Public) {
		r.T.Fatalf("GetKey %s: id %s, or the new version has the old key pair", before.KeyID, old.ID)
	}
	after := r.wrap(r.Key, s)
	if after.KeyID != rotated {
		r.T.Fatalf("WrapKey %s used %s, want the current version, %s", r.Key, after.KeyID, rotated)
	}
	r.unwrap(after, s)
	r.unwrap(before, s)
	if w := r.wrap(before.KeyID, s); w.KeyID != before.KeyID {
		r.T.Fatalf("WrapKey %s used %s", before.KeyID, w.KeyID)
	}

	crossed := vault.Wrapped{KeyID: rotated, Ciphertext: before.Ciphertext}
	r.refuses(vault.OpUnwrapKey, rotated, vault.ErrBadCiphertext, r.tryUnwrap(crossed), s)
	crossed = vault.Wrapped{KeyID: before.KeyID, Ciphertext: after.Ciphertext}
	r.refuses(vault.OpUnwrapKey, before.KeyID, vault.ErrBadCiphertext, r.tryUnwrap(crossed), s)
}

func checkDisabled(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	r.SetEnabled(w.KeyID, false)
	if key := r.get(w.KeyID); key.Enabled || key.ID != w.KeyID || key.Public == nil {
		r.T.Errorf("GetKey of a disabled key: id %s, Enabled %v, want %s, false, and a public key", key.ID, key.Enabled, w.KeyID)
	}
	r.refuses(vault.OpWrapKey, w.KeyID, vault.ErrKeyDisabled, r.tryWrap(w.KeyID, s), s)
	r.refuses(vault.OpWrapKey, r.Key, vault.ErrKeyDisabled, r.tryWrap(r.Key, s), s)
	r.refuses(vault.OpUnwrapKey, w.KeyID, vault.ErrKeyDisabled, r.tryUnwrap(w), s)

	r.SetEnabled(w.KeyID, true)
	if !r.get(w.KeyID).Enabled {
		r.T.Errorf("GetKey of a key that was enabled again: Enabled is false")
	}
	r.unwrap(w, s)
	r.unwrap(r.wrap(r.Key, s), s)
}

func checkVersionDisabled(r *run) {
	s := secret(32)
	old := r.wrap(r.Key, s)
	current := r.Rotate(r.Key.Name)
	r.SetEnabled(old.KeyID, false)
	r.refuses(vault.OpUnwrapKey, old.KeyID, vault.ErrKeyDisabled, r.tryUnwrap(old), s)
	if !r.get(current).Enabled {
		r.T.Errorf("disabling version %s disabled %s too", old.KeyID, current)
	}
	r.unwrap(r.wrap(r.Key, s), s)
}

func checkExpired(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	// Whole seconds: a vault may keep dates no finer.
	from := r.now().Add(-48 * time.Hour).UTC().Truncate(time.Second)
	until := r.now().Add(-24 * time.Hour).UTC().Truncate(time.Second)
	r.SetDates(w.KeyID, from, until)
	key := r.get(w.KeyID)
	if !key.NotBefore.Equal(from) || !key.Expires.Equal(until) {
		r.T.Errorf("GetKey of an expired key: dates %v and %v, want %v and %v", key.NotBefore, key.Expires, from, until)
	}
	r.refuses(vault.OpWrapKey, w.KeyID, vault.ErrKeyExpired, r.tryWrap(w.KeyID, s), s)
	r.checkUnwrapOutsideDates(w, s, vault.ErrKeyExpired)

	r.SetDates(w.KeyID, time.Time{}, r.now().Add(24*time.Hour))
	r.unwrap(r.wrap(r.Key, s), s)
	r.SetDates(w.KeyID, time.Time{}, time.Time{})
	if key := r.get(w.KeyID); !key.NotBefore.IsZero() || !key.Expires.IsZero() {
		r.T.Errorf("GetKey after the dates were unset: %v and %v, want zero times", key.NotBefore, key.Expires)
	}
	r.unwrap(w, s)
}

func checkNotYetValid(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	from := r.now().Add(24 * time.Hour).UTC().Truncate(time.Second)
	r.SetDates(w.KeyID, from, time.Time{})
	key := r.get(w.KeyID)
	if !key.NotBefore.Equal(from) || !key.Expires.IsZero() {
		r.T.Errorf("GetKey of a key not yet valid: dates %v and %v, want %v and none", key.NotBefore, key.Expires, from)
	}
	r.refuses(vault.OpWrapKey, w.KeyID, vault.ErrKeyNotYetValid, r.tryWrap(w.KeyID, s), s)
	r.checkUnwrapOutsideDates(w, s, vault.ErrKeyNotYetValid)

	r.SetDates(w.KeyID, r.now().Add(-time.Hour), time.Time{})
	r.unwrap(r.wrap(r.Key, s), s)
}

// checkUnwrapOutsideDates accepts both that a vault may do: unwrap, or refuse
// for the right reason.
func (r *run) checkUnwrapOutsideDates(w vault.Wrapped, s []byte, kind error) {
	r.T.Helper()
	if r.tryUnwrap(w)(r.T.Context()) == nil {
		r.unwrap(w, s)
		return
	}
	r.refuses(vault.OpUnwrapKey, w.KeyID, kind, r.tryUnwrap(w), s)
}

// refusesAll requires that all three operations are refused alike.
func (r *run) refusesAll(w vault.Wrapped, s []byte, kind error) {
	r.T.Helper()
	for _, id := range []vault.KeyID{r.Key, w.KeyID} {
		r.refuses(vault.OpGet, id, kind, r.tryGet(id))
		r.refuses(vault.OpWrapKey, id, kind, r.tryWrap(id, s), s)
	}
	r.refuses(vault.OpUnwrapKey, w.KeyID, kind, r.tryUnwrap(w), s)
}

func (r *run) deletedKind() error {
	if r.DeletedIsNotFound {
		return vault.ErrKeyNotFound
	}
	return vault.ErrKeyDeleted
}

func checkDeleted(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	r.Delete(r.Key.Name)
	r.refusesAll(w, s, r.deletedKind())
}

func checkRecovered(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	r.Delete(r.Key.Name)
	r.refusesAll(w, s, r.deletedKind())
	r.Recover(r.Key.Name)
	r.unwrap(w, s)
	if w2 := r.wrap(r.Key, s); w2.KeyID != w.KeyID {
		r.T.Errorf("after Recover the current version is %s, want %s", w2.KeyID, w.KeyID)
	}
}

func checkPurged(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	if r.Delete != nil { // of a vault without soft delete, a purge is all there is
		r.Delete(r.Key.Name)
	}
	r.Purge(r.Key.Name)
	r.refusesAll(w, s, vault.ErrKeyNotFound)
}

func checkPermissions(r *run) {
	s := secret(32)
	w := r.wrap(r.Key, s)
	permissions := []struct {
		op      vault.Operation
		id      vault.KeyID
		call    func()
		attempt func(context.Context) error
	}{
		{vault.OpGet, r.Key, func() { r.get(r.Key) }, r.tryGet(r.Key)},
		{vault.OpWrapKey, r.Key, func() { r.wrap(r.Key, s) }, r.tryWrap(r.Key, s)},
		{vault.OpUnwrapKey, w.KeyID, func() { r.unwrap(w, s) }, r.tryUnwrap(w)},
	}
	for _, gone := range permissions {
		r.Revoke(gone.op)
		for _, p := range permissions {
			if p.op == gone.op {
				r.refuses(p.op, p.id, vault.ErrAccessDenied, p.attempt, s)
			} else {
				p.call() // is not touched
			}
		}
		r.Grant(gone.op)
		gone.call()
	}
}
