package local_test

import (
	"crypto/fips140"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

const day = 24 * time.Hour

func TestCreateKeyAndItsOptions(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	k, err := r.CreateKey(ctx, "kek", nil)
	require.NoError(t, err)
	require.Equal(t, r.ID(), k.ID.Vault)
	require.Regexp(t, `^[0-9a-f]{32}$`, k.ID.Version)
	require.True(t, k.Enabled)
	require.Equal(t, []vault.Operation{vault.OpGet, vault.OpWrapKey, vault.OpUnwrapKey}, k.Operations)

	from, until := start.Add(time.Hour+time.Millisecond), start.Add(2*time.Hour)
	same := r.unchanged()
	_, err = r.CreateKey(ctx, "kek", nil)
	require.ErrorIs(t, err, vault.ErrKeyExists)
	require.EqualError(t, err, "vault: create "+k.ID.Versionless().String()+
		": key exists: use it as it is, or ask for a new version of it, to which the stores on it will follow; nothing was changed")
	require.False(t, vault.Denied(err))
	require.False(t, vault.Transient(err))
	same()
	k2, err := r.CreateKey(ctx, "kek", &local.KeyOptions{NotBefore: from, Expires: until, Disabled: true, Operations: []vault.Operation{vault.OpWrapKey}, NewVersion: true})
	require.NoError(t, err)
	require.NotEqual(t, k.ID.Version, k2.ID.Version)
	got, err := r.GetKey(ctx, k.ID.Versionless())
	require.NoError(t, err)
	require.Equal(t, k2, got)
	require.False(t, got.Enabled)
	require.Equal(t, from.Truncate(time.Second), got.NotBefore)
	require.Equal(t, until, got.Expires)

	all, err := r.Versions(ctx, "kek")
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, k.ID, all[0].ID)
	require.Equal(t, start, all[0].Created)
}

// Everything by default: the real KDF, and real key pairs.
func TestDefaults(t *testing.T) {
	ctx, dir := t.Context(), filepath.Join(t.TempDir(), "v")
	v, err := local.Create(dir, passphrase, nil)
	require.NoError(t, err)
	info, err := v.Info(ctx)
	require.NoError(t, err)
	want := local.KDF{Algorithm: local.Argon2id, Passes: 3, Memory: 64 << 10, Lanes: 4}
	if fips140.Enabled() {
		want = local.KDF{Algorithm: local.PBKDF2, Passes: 600_000}
	}
	require.Equal(t, want, info.KDF)
	require.Equal(t, 90, info.RetentionDays)
	require.False(t, info.PurgeProtection)
	require.WithinDuration(t, time.Now(), info.Created, time.Minute)

	k, err := v.CreateKey(ctx, "kek", nil)
	require.NoError(t, err)
	require.NoError(t, kek.Admit(k, time.Now()))
	next, err := v.RotateKey(ctx, "kek")
	require.NoError(t, err)
	require.False(t, next.Public.Equal(k.Public))
	require.NoError(t, v.Close())
	v, err = local.Open(dir, passphrase, nil)
	require.NoError(t, err)
	require.NoError(t, kek.New(v, k.ID.Versionless()).Check(ctx))
	require.NoError(t, kek.New(v, k.ID).Check(ctx))
	require.NoError(t, v.Close())
}

func TestArgumentsThatCannotBeRight(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	id := r.create("kek")
	for says, o := range map[string]local.KeyOptions{
		"expire before it is valid":     {NotBefore: start, Expires: start},
		"before 1970 or after 9999":     {Expires: time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)},
		`no operation "sign"`:           {Operations: []vault.Operation{"sign"}},
		`"get" is there twice`:          {Operations: []vault.Operation{vault.OpGet, vault.OpGet}},
		"must permit nothing else":      {Operations: []vault.Operation{local.OpImport, vault.OpWrapKey}},
		"a time of 60 seconds":          {Policy: &local.RotationPolicy{RotateAfter: time.Minute}},
		"but versions expire after 360": {Policy: &local.RotationPolicy{RotateBeforeExpiry: 2 * time.Hour, ExpiresAfter: time.Hour}},
	} {
		require.ErrorIs(t, o.Validate(), local.ErrInvalid, says)
		require.ErrorContains(t, o.Validate(), says)
		_, err := r.CreateKey(ctx, "other", &o)
		require.ErrorIs(t, err, local.ErrInvalid, says)
		require.ErrorContains(t, err, says)
		require.ErrorContains(t, err, r.ID()+"/keys/other")
		var e *vault.Error
		require.ErrorAs(t, err, &e)
		require.False(t, vault.Denied(err) || vault.Transient(err))
	}
	require.NoError(t, (*local.KeyOptions)(nil).Validate())
	good := local.KeyOptions{NotBefore: start, Expires: start.Add(day), Policy: &local.RotationPolicy{RotateAfter: time.Hour}}
	require.NoError(t, good.Validate())
	for _, name := range []string{"no/slashes", "kek\r", "kek\n", "", strings.Repeat("x", 128)} {
		_, err := r.CreateKey(ctx, name, nil)
		require.ErrorIs(t, err, local.ErrInvalid)
		_, err = r.GetKey(ctx, vault.KeyID{Name: name})
		require.ErrorIs(t, err, local.ErrInvalid)
		_, err = r.DeleteKey(ctx, name)
		require.ErrorIs(t, err, local.ErrInvalid)
		require.NotContains(t, err.Error(), "\r")
		require.NotContains(t, err.Error(), "\n")
	}
	before := start.Add(-time.Hour)
	_, err := r.UpdateKey(ctx, id, local.Update{NotBefore: &start, Expires: &before})
	require.ErrorIs(t, err, local.ErrInvalid)
	_, err = r.UpdateKey(ctx, vault.KeyID{Name: "nothing"}, local.Update{})
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	key, err := r.GetKey(ctx, id)
	require.NoError(t, err)
	require.Zero(t, key.NotBefore, "a refused update changes nothing")
}

func TestKeyOperationsBindEverybody(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	_, err := r.UpdateKey(t.Context(), id, local.Update{Operations: []vault.Operation{vault.OpWrapKey}})
	require.NoError(t, err)
	_, err = r.UnwrapKey(t.Context(), w)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	require.ErrorContains(t, err, "key's own operations do not include unwrapKey")
	_, err = r.WrapKey(t.Context(), id, secret)
	require.NoError(t, err)
	_, err = r.GetKey(t.Context(), id)
	require.NoError(t, err)
}

// As at Key Vault, dates bind wrapping and not unwrapping; Enabled binds both.
func TestDatesBindWrappingAlone(t *testing.T) {
	r := newRig(t)
	k, err := r.CreateKey(t.Context(), "kek", &local.KeyOptions{NotBefore: start.Add(time.Hour), Expires: start.Add(2 * time.Hour)})
	require.NoError(t, err)
	_, err = r.WrapKey(t.Context(), k.ID, []byte("secret"))
	require.ErrorIs(t, err, vault.ErrKeyNotYetValid)
	require.ErrorContains(t, err, "2026-01-01T13:00:00Z")
	r.clock.Advance(time.Hour)
	w, secret := r.wrap(r, k.ID)
	r.clock.Advance(time.Hour)
	_, err = r.WrapKey(t.Context(), k.ID, secret)
	require.ErrorIs(t, err, vault.ErrKeyExpired)
	require.ErrorContains(t, err, "2026-01-01T14:00:00Z")
	r.unwraps(r, w, secret)
	r.clock.Step(-3 * time.Hour)
	r.unwraps(r, w, secret)
}

// create, delete, (no create), recover, delete, retention over, purged, create.
func TestDeletedKey(t *testing.T) {
	r := newRigWith(t, local.Options{RetentionDays: 7})
	ctx := t.Context()
	id := r.create("kek")
	w, secret := r.wrap(r, id)

	purgeAt, err := r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	require.Equal(t, start.Add(7*day), purgeAt)
	for what, call := range map[string]func() error{
		"get":     func() error { _, err := r.GetKey(ctx, id); return err },
		"wrap":    func() error { _, err := r.WrapKey(ctx, id, secret); return err },
		"unwrap":  func() error { _, err := r.UnwrapKey(ctx, w); return err },
		"create":  func() error { _, err := r.CreateKey(ctx, "kek", nil); return err },
		"update":  func() error { _, err := r.UpdateKey(ctx, id, local.Update{}); return err },
		"rotate":  func() error { _, err := r.RotateKey(ctx, "kek"); return err },
		"policy":  func() error { return r.SetRotationPolicy(ctx, "kek", local.RotationPolicy{}) },
		"delete":  func() error { _, err := r.DeleteKey(ctx, "kek"); return err },
		"backup":  func() error { _, err := r.BackupKey(ctx, "kek"); return err },
		"version": func() error { _, err := r.Versions(ctx, "kek"); return err },
	} {
		err := call()
		require.ErrorIs(t, err, vault.ErrKeyDeleted, what)
		require.ErrorContains(t, err, "2026-01-08T12:00:00Z", what)
	}
	keys, err := r.ListKeys(ctx)
	require.NoError(t, err)
	require.Empty(t, keys)
	deleted, err := r.ListDeleted(ctx)
	require.NoError(t, err)
	require.Len(t, deleted, 1)
	require.Equal(t, purgeAt, deleted[0].PurgeAt)

	_, err = r.RecoverKey(ctx, "kek")
	require.NoError(t, err)
	r.unwraps(r, w, secret)
	_, err = r.RecoverKey(ctx, "kek")
	require.ErrorIs(t, err, local.ErrInvalid)

	_, err = r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	r.maintain(6)
	r.clock.Advance(day - time.Second)
	_, err = r.Maintain(ctx)
	require.NoError(t, err)
	_, err = r.GetKey(ctx, id)
	require.ErrorIs(t, err, vault.ErrKeyDeleted)
	r.clock.Advance(time.Second)
	_, err = r.Maintain(ctx)
	require.NoError(t, err)
	_, err = r.GetKey(ctx, id)
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	_, err = r.RecoverKey(ctx, "kek")
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	deleted, err = r.ListDeleted(ctx)
	require.NoError(t, err)
	require.Empty(t, deleted)
	again := r.create("kek")
	require.NotEqual(t, id.Version, again.Version)
	_, err = r.UnwrapKey(ctx, w)
	require.ErrorIs(t, err, vault.ErrKeyNotFound, "the old version is gone")
}

func TestPurge(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.create("kek")
	require.ErrorIs(t, r.PurgeKey(ctx, "kek"), local.ErrInvalid, "not before it is deleted")
	_, err := r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	require.NoError(t, r.PurgeKey(ctx, "kek"))
	require.ErrorIs(t, r.PurgeKey(ctx, "kek"), vault.ErrKeyNotFound)
	r.create("kek")
}

func TestPurgeProtection(t *testing.T) {
	for name, enable := range map[string]bool{"from the start": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			r := newRigWith(t, local.Options{PurgeProtection: !enable, RetentionDays: 10})
			ctx := t.Context()
			r.create("kek")
			if enable {
				require.NoError(t, r.EnablePurgeProtection(ctx))
			}
			_, err := r.DeleteKey(ctx, "kek")
			require.NoError(t, err)
			for _, v := range []*local.Vault{r.Vault, r.another()} {
				err = v.PurgeKey(ctx, "kek")
				require.ErrorIs(t, err, vault.ErrAccessDenied)
				require.ErrorContains(t, err, "purge protection; the key can be purged when the vault has seen its retention pass, not before 2026-01-11T12:00:00Z")
			}
			r.maintain(10)
			r.create("kek")
		})
	}
}

func TestImportKeyAdmitsRSA2048Alone(t *testing.T) {
	r := newRig(t)
	good, err := r.keys.generate()
	require.NoError(t, err)
	k, err := r.ImportKey(t.Context(), "kek", good, nil)
	require.NoError(t, err)
	require.True(t, k.Public.Equal(&good.PublicKey))
	w, secret := r.wrap(r, k.ID)
	r.unwraps(r, w, secret)

	b, err := os.ReadFile("../../internal/keyfile/testdata/import/rsa3072.pem")
	require.NoError(t, err)
	block, _ := pem.Decode(b)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	large := parsed.(*rsa.PrivateKey)
	mixed := *good
	other, err := r.keys.generate()
	require.NoError(t, err)
	mixed.PublicKey = other.PublicKey
	mixed.Precomputed = rsa.PrecomputedValues{}
	even := *good
	even.PublicKey.E = 3
	for says, key := range map[string]*rsa.PrivateKey{
		"a factor that is not prime": composite(t, good),
		"there is no key":            nil,
		"there is no RSA key":        {},
		"an RSA key of 3072 bits":    large,
		"public exponent 3":          &even,
		"do not fit together":        &mixed,
		"with 0 primes":              {PublicKey: good.PublicKey},
		"without its private part":   {PublicKey: good.PublicKey, Primes: good.Primes},
	} {
		_, err := r.ImportKey(t.Context(), "bad", key, nil)
		require.ErrorIs(t, err, vault.ErrUnsupportedKey, says)
		require.ErrorContains(t, err, says)
	}
	_, err = r.GetKey(t.Context(), vault.KeyID{Name: "bad"})
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
}

// composite returns a key that is consistent in itself, and whose second factor is no
// prime: crypto/rsa does not look.
func composite(t *testing.T, like *rsa.PrivateKey) *rsa.PrivateKey {
	one, two, e := big.NewInt(1), big.NewInt(2), big.NewInt(int64(like.E))
	p, q := like.Primes[0], new(big.Int).Set(like.Primes[1])
	for {
		q.Sub(q, two)
		p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
		lcm := new(big.Int).Div(new(big.Int).Mul(p1, q1), new(big.Int).GCD(nil, nil, p1, q1))
		d := new(big.Int).ModInverse(e, lcm)
		if q.ProbablyPrime(20) || d == nil {
			continue
		}
		k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: like.E}, D: d, Primes: []*big.Int{p, q}}
		k.Precompute()
		require.NoError(t, k.Validate())
		return k
	}
}

func TestListKeys(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"b", "a", "c"} {
		r.create(name)
	}
	_, err := r.RotateKey(t.Context(), "b")
	require.NoError(t, err)
	keys, err := r.ListKeys(t.Context())
	require.NoError(t, err)
	require.Len(t, keys, 3)
	require.Equal(t, "a", keys[0].Current.ID.Name)
	require.Equal(t, "b", keys[1].Current.ID.Name)
	require.Equal(t, 2, keys[1].Versions)
}

// Every answer to a secret of another vault is that it is none of ours.
func TestOtherVaultsKeys(t *testing.T) {
	r, s := newRig(t), newRig(t)
	w, _ := r.wrap(r, r.create("kek"))
	s.create("kek")
	_, err := s.UnwrapKey(t.Context(), w)
	require.ErrorIs(t, err, vault.ErrKeyNotFound)
	require.ErrorContains(t, err, r.ID())
	require.ErrorContains(t, err, "another vault than this one, which is "+s.ID())
}

// What acts on Key Vault's codes can be rehearsed here.
func TestRefusalsHaveKeyVaultsCodes(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	w, _ := r.wrap(r, r.create("kek"))
	unwrap := func(v vault.Vault) error { _, err := v.UnwrapKey(ctx, w); return err }
	update := func(u local.Update) {
		_, err := r.UpdateKey(ctx, w.KeyID, u)
		require.NoError(t, err)
	}
	is := func(code string, err error) {
		t.Helper()
		var e *vault.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, code, e.Code)
		require.ErrorContains(t, err, "["+code+"]")
	}
	no, yes, past := false, true, start.Add(-time.Hour)
	is("Forbidden/AccessDenied", unwrap(r.As("ingest")))
	update(local.Update{Operations: []vault.Operation{vault.OpWrapKey}})
	is("KeyOperationForbidden", unwrap(r))
	update(local.Update{Enabled: &no})
	is("Forbidden/KeyDisabled", unwrap(r))
	update(local.Update{Enabled: &yes, Expires: &past, Operations: local.DataPlane()})
	_, err := r.WrapKey(ctx, w.KeyID, []byte("secret"))
	is("Forbidden", err)
	w.Ciphertext[0] ^= 1
	is("BadParameter", unwrap(r))
	_, err = r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	is("ObjectIsDeletedButRecoverable", unwrap(r))
	require.NoError(t, r.PurgeKey(ctx, "kek"))
	is("KeyNotFound", unwrap(r))
}

func TestEnsureKey(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	_, err := r.EnsureKey(ctx, "kek", &local.KeyOptions{NewVersion: true})
	require.ErrorIs(t, err, local.ErrInvalid)
	expires := start.Add(time.Hour)
	k, err := r.EnsureKey(ctx, "kek", &local.KeyOptions{Expires: expires})
	require.NoError(t, err)
	require.Equal(t, expires, k.Expires)
	same := r.unchanged()
	again, err := r.EnsureKey(ctx, "kek", &local.KeyOptions{Disabled: true})
	require.NoError(t, err)
	require.Equal(t, k, again, "as it is, whatever was asked for a new one")
	same()

	// An identity that may make keys does not learn of others' without list.
	a := r.Administer("officer")
	require.NoError(t, r.Grant(ctx, "officer", local.OpCreate))
	_, err = a.EnsureKey(ctx, "kek", nil)
	require.ErrorIs(t, err, vault.ErrAccessDenied)
	require.ErrorContains(t, err, "no grant for list")
	_, err = a.EnsureKey(ctx, "other", nil)
	require.NoError(t, err)
	require.NoError(t, r.Grant(ctx, "officer", local.OpList))
	again, err = a.EnsureKey(ctx, "kek", nil)
	require.NoError(t, err)
	require.Equal(t, k, again)
}
