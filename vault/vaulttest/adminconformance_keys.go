package vaulttest

import (
	"context"
	"crypto/rsa"
	"errors"
	"sync"
	"time"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
)

func checkCreate(r *adminRun) {
	k := r.create("kek")
	r.shows(vault.KeyID{Name: "kek"}, k)
	if k.Public.N.BitLen() != 2048 || !k.Enabled || !k.NotBefore.IsZero() || !k.Expires.IsZero() ||
		!k.Permits(vault.OpWrapKey) || !k.Permits(vault.OpUnwrapKey) {
		r.T.Fatalf("create: want RSA-2048, enabled, without dates, for wrapKey and unwrapKey: %d bits, %+v", k.Public.N.BitLen(), k)
	}
	r.works(k.ID)
	other := r.create("other")
	if other.Public.Equal(k.Public) {
		r.T.Fatalf("create: two keys have the same key pair")
	}
}

func checkCreateVersion(r *adminRun) {
	r.succeeds(func(ctx context.Context, name string) (vault.Key, error) { return r.Create(ctx, name, true) }, "create a version of")
}

func checkRotated(r *adminRun) { r.succeeds(r.Rotate, "rotate") }

// checkCreateTaken: a store follows its key to a new version, so that one which nobody meant
// to make moves the store.
func checkCreateTaken(r *adminRun) {
	k := r.make("kek")
	_, err := r.Create(r.ctx(), "kek", false)
	r.no("create again", "kek", err, vault.ErrKeyExists)
	r.isCurrent(k.ID)
	if r.Import != nil {
		_, err := r.Import(r.ctx(), "kek", r.pool.next(), false)
		r.no("import again", "kek", err, vault.ErrKeyExists)
		r.isCurrent(k.ID)
	}
	if r.Versions != nil {
		lists(r, "versions after refused ones", func(ctx context.Context) ([]vault.KeyID, error) { return r.Versions(ctx, "kek") }, []vault.KeyID{k.ID})
	}
	r.works(k.ID)
	if r.Update != nil { // its state makes no difference
		r.setEnabled(k.ID, false)
		_, err = r.Create(r.ctx(), "kek", false)
		r.no("create again, disabled,", "kek", err, vault.ErrKeyExists)
	}
}

func checkVersionOfNone(r *adminRun) {
	_, err := r.Create(r.ctx(), "kek", true)
	r.no("create a version of", "kek", err, vault.ErrKeyNotFound)
	if r.Import != nil {
		_, err = r.Import(r.ctx(), "kek", r.pool.next(), true)
		r.no("import a version of", "kek", err, vault.ErrKeyNotFound)
	}
	r.no("get", "kek", r.tryGet(vault.KeyID{Name: "kek"})(r.ctx()), vault.ErrKeyNotFound)
	r.works(r.make("kek").ID)
}

func checkEnsure(r *adminRun) {
	ensure := func() vault.Key {
		k, err := r.Ensure(r.ctx(), "kek")
		r.did("ensure", "kek", err)
		r.shows(vault.KeyID{Name: "kek"}, k)
		r.isCurrent(k.ID)
		return k
	}
	k := ensure()
	r.works(k.ID)
	if again := ensure(); again.ID != k.ID {
		r.T.Fatalf("ensure made version %s of a key that has %s", again.ID.Version, k.ID.Version)
	}
	second := r.makeVersion("kek")
	ensure()
	if r.Update != nil {
		r.setEnabled(second.ID, false)
		if ensure().Enabled {
			r.T.Fatalf("ensure enabled version %s, want the key as it is", second.ID.Version)
		}
	}
	if r.Delete != nil {
		r.delete("kek")
		_, err := r.Ensure(r.ctx(), "kek")
		r.no("ensure the deleted", "kek", err, vault.ErrKeyDeleted)
	}
}

// succeeds checks that a new version comes after the one before, which goes on unwrapping.
func (r *adminRun) succeeds(next func(context.Context, string) (vault.Key, error), what string) {
	first := r.create("kek")
	s := secret(32)
	w := r.wrap(first.ID.Versionless(), s)
	second, err := next(r.ctx(), "kek")
	r.did(what, "kek", err)
	r.shows(vault.KeyID{Name: "kek"}, second)
	if second.ID.Version == first.ID.Version {
		r.T.Fatalf("%s: the version is the old one, %s", what, first.ID.Version)
	}
	if second.Public.Equal(first.Public) {
		r.T.Fatalf("%s: the new version has the old key pair", what)
	}
	r.isCurrent(second.ID)
	r.works(second.ID)
	r.unwrap(w, s)
	r.no("unwrap another version's secret by", "kek", r.tryUnwrap(vault.Wrapped{KeyID: second.ID, Ciphertext: w.Ciphertext})(r.ctx()), vault.ErrBadCiphertext)
}

func checkImport(r *adminRun) {
	pairs, err := testkeys.Pairs()
	if err != nil {
		r.T.Fatalf("%v", err)
	}
	for i, newVersion := range []bool{false, true} {
		// The last ones: a vault for tests may have the first ones by itself.
		private := pairs[len(pairs)-1-i]
		k, err := r.Import(r.ctx(), "kek", private, newVersion)
		r.did("import", "kek", err)
		r.shows(vault.KeyID{Name: "kek"}, k)
		if !private.PublicKey.Equal(k.Public) {
			r.T.Fatalf("import: the vault's public key is not the one that was given")
		}
		r.isCurrent(k.ID)
		r.works(k.ID)
	}
}

func checkImportUnfit(r *adminRun) {
	for what, private := range unfit(r.pool.next()) {
		_, err := r.Import(r.ctx(), "kek", private, false)
		r.no("import of a key "+what+":", "kek", err, vault.ErrUnsupportedKey)
	}
	r.no("get", "kek", r.tryGet(vault.KeyID{Name: "kek"})(r.ctx()), vault.ErrKeyNotFound)
}

func checkEnabled(r *adminRun) {
	first, second := r.make("kek").ID, r.makeVersion("kek").ID
	s := secret(32)
	w := r.wrap(first, s)
	r.setEnabled(first, false)
	r.no("wrap", "kek", r.tryWrap(first, s)(r.ctx()), vault.ErrKeyDisabled)
	r.no("unwrap", "kek", r.tryUnwrap(w)(r.ctx()), vault.ErrKeyDisabled)
	r.works(second)
	r.setEnabled(first, true)
	r.unwrap(w, s)
	r.setEnabled(second.Versionless(), false) // the current one
	r.no("wrap", "kek", r.tryWrap(second, s)(r.ctx()), vault.ErrKeyDisabled)
	r.works(first)
	enabled := false
	_, err := r.Update(r.ctx(), vault.KeyID{Vault: first.Vault, Name: "kek", Version: "00000000000000000000000000000000"}, AdminUpdate{Enabled: &enabled})
	r.no("update of an unknown version of", "kek", err, vault.ErrKeyNotFound)
}

func checkDatesSet(r *adminRun) {
	k := r.make("kek")
	over, later := r.inSeconds(-time.Hour), r.inSeconds(time.Hour)
	for _, tt := range []struct {
		update             AdminUpdate
		notBefore, expires time.Time
		kind               error
	}{
		{AdminUpdate{Expires: &later}, time.Time{}, later, nil},
		{AdminUpdate{Expires: &over}, time.Time{}, over, vault.ErrKeyExpired},
		{AdminUpdate{NotBefore: &later, Expires: new(time.Time)}, later, time.Time{}, vault.ErrKeyNotYetValid},
		{AdminUpdate{NotBefore: &over}, over, time.Time{}, nil},
	} {
		got := r.update(k.ID, tt.update)
		if !got.NotBefore.Equal(tt.notBefore) || !got.Expires.Equal(tt.expires) {
			r.T.Fatalf("update: the dates are %v and %v, want %v and %v", got.NotBefore, got.Expires, tt.notBefore, tt.expires)
		}
		if tt.kind == nil {
			r.works(k.ID)
		} else {
			r.no("wrap", "kek", r.tryWrap(k.ID, secret(16))(r.ctx()), tt.kind)
		}
	}
}

// checkDatesUnset: a date that stays although its unsetting was answered with success
// takes a key away later, when nobody expects it.
func checkDatesUnset(r *adminRun) {
	k := r.make("kek")
	over, later, never := r.inSeconds(-time.Hour), r.inSeconds(time.Hour), time.Time{}
	r.update(k.ID, AdminUpdate{NotBefore: &over, Expires: &later})
	if got := r.update(k.ID, AdminUpdate{Expires: &never}); !got.Expires.IsZero() {
		r.T.Fatalf("update: Expires was to be unset, and the answer has %v", got.Expires)
	} else if !got.NotBefore.Equal(over) {
		r.T.Fatalf("update: NotBefore was to stay %v, and the answer has %v", over, got.NotBefore)
	}
	r.update(k.ID, AdminUpdate{Expires: &later})
	if got := r.update(k.ID, AdminUpdate{NotBefore: &never}); !got.NotBefore.IsZero() {
		r.T.Fatalf("update: NotBefore was to be unset, and the answer has %v", got.NotBefore)
	} else if !got.Expires.Equal(later) {
		r.T.Fatalf("update: Expires was to stay %v, and the answer has %v", later, got.Expires)
	}
	r.works(k.ID)
}

func checkUpdateKeeps(r *adminRun) {
	k, other := r.make("kek"), r.make("other")
	later := r.inSeconds(time.Hour)
	r.update(k.ID, AdminUpdate{Expires: &later})
	for _, enabled := range []bool{false, true} {
		r.setEnabled(k.ID, enabled)
		if got := r.get(k.ID); !got.Expires.Equal(later) {
			r.T.Fatalf("update of Enabled changed Expires from %v to %v", later, got.Expires)
		}
	}
	off := false
	r.update(k.ID, AdminUpdate{Enabled: &off})
	latest := later.Add(time.Hour)
	if got := r.update(k.ID, AdminUpdate{Expires: &latest}); got.Enabled {
		r.T.Fatalf("update of Expires enabled a disabled version")
	}
	if got := r.update(k.ID, AdminUpdate{}); got.Enabled || !got.Expires.Equal(latest) {
		r.T.Fatalf("update without a change made one")
	}
	if got := r.get(k.ID); !got.Permits(vault.OpWrapKey) || !got.Permits(vault.OpUnwrapKey) || !got.Public.Equal(k.Public) {
		r.T.Fatalf("update changed the operations or the key pair")
	}
	if got := r.get(other.ID); !got.Enabled || !got.Expires.IsZero() {
		r.T.Fatalf("update of one key changed another")
	}
}

func checkAdminUnknown(r *adminRun) {
	if r.Rotate != nil {
		_, err := r.Rotate(r.ctx(), "no-such-key")
		r.no("rotate", "no-such-key", err, vault.ErrKeyNotFound)
	}
	if r.Update != nil {
		off := false
		_, err := r.Update(r.ctx(), vault.KeyID{Name: "no-such-key"}, AdminUpdate{Enabled: &off})
		r.no("update", "no-such-key", err, vault.ErrKeyNotFound)
	}
	if r.Delete != nil {
		r.no("delete", "no-such-key", r.Delete(r.ctx(), "no-such-key"), vault.ErrKeyNotFound)
	}
	if r.Recover != nil {
		_, err := r.Recover(r.ctx(), "no-such-key")
		r.no("recover", "no-such-key", err, vault.ErrKeyNotFound)
	}
	if r.Purge != nil {
		r.no("purge", "no-such-key", r.Purge(r.ctx(), "no-such-key"), vault.ErrKeyNotFound)
	}
	if r.Backup != nil {
		_, err := r.Backup(r.ctx(), "no-such-key")
		r.no("back up", "no-such-key", err, vault.ErrKeyNotFound)
	}
	if r.Versions != nil {
		_, err := r.Versions(r.ctx(), "no-such-key")
		r.no("list the versions of", "no-such-key", err, vault.ErrKeyNotFound)
	}
	if r.Keys != nil {
		lists(r, "keys of a vault without any", names(r.Keys), nil)
	}
}

func checkAdminContext(r *adminRun) {
	k := r.make("kek")
	w := r.wrap(k.ID, secret(32))
	ended, cancel := context.WithCancel(r.ctx())
	cancel()
	off := false
	calls := map[string]func() error{
		"create":           func() error { _, err := r.Create(ended, "other", false); return err },
		"create a version": func() error { _, err := r.Create(ended, "kek", true); return err },
	}
	if r.Import != nil {
		private := r.pool.next()
		calls["import"] = func() error { _, err := r.Import(ended, "kek", private, true); return err }
	}
	if r.Ensure != nil {
		calls["ensure"] = func() error { _, err := r.Ensure(ended, "other"); return err }
	}
	if r.Rotate != nil {
		calls["rotate"] = func() error { _, err := r.Rotate(ended, "kek"); return err }
	}
	if r.Update != nil {
		calls["update"] = func() error { _, err := r.Update(ended, k.ID, AdminUpdate{Enabled: &off}); return err }
	}
	if r.Delete != nil {
		calls["delete"] = func() error { return r.Delete(ended, "kek") }
	}
	for what, call := range calls {
		err := call()
		if err == nil {
			r.T.Fatalf("%s went on although its context had ended", what)
		}
		if !errors.Is(err, context.Canceled) || vault.Denied(err) {
			r.T.Errorf("%s: %v; want an error that matches context.Canceled and is no denial", what, err)
		}
	}
	r.isCurrent(k.ID)
	r.no("get", "other", r.tryGet(vault.KeyID{Name: "other"})(r.ctx()), vault.ErrKeyNotFound)
	if !r.get(k.ID).Enabled {
		r.T.Fatalf("an update whose context had ended was made")
	}
	if _, err := r.AdminSubject.Vault.UnwrapKey(r.ctx(), w); err != nil {
		r.T.Fatalf("the key cannot be used any more: %v", err)
	}
}

func checkAdminConcurrent(r *adminRun) {
	const callers = 6
	private := make([]*rsa.PrivateKey, callers)
	for i := range private {
		private[i] = r.pool.next()
	}
	first := r.make("kek").ID
	keys, errs := make([]vault.Key, callers), make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			if r.Import != nil {
				keys[i], errs[i] = r.Import(r.ctx(), "kek", private[i], true)
			} else {
				keys[i], errs[i] = r.Create(r.ctx(), "kek", true)
			}
		})
	}
	all.Wait()
	want := []vault.KeyID{first}
	for i := range callers {
		r.did("make a version of", "kek", errs[i])
		want = append(want, keys[i].ID)
	}
	lists(r, "versions that were made at the same time", func(ctx context.Context) ([]vault.KeyID, error) { return r.Versions(ctx, "kek") }, want)
	for _, id := range want {
		r.works(id)
	}
}
