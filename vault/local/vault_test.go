package local_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
)

func TestCreateMakesADirectoryForItsOwnerAlone(t *testing.T) {
	r := newRig(t)
	require.Regexp(t, `^local:[0-9a-f]{32}$`, r.ID())
	info, err := os.Stat(r.dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	entries, err := os.ReadDir(r.dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "v")
	v, err := local.Create(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap})
	require.NoError(t, err)
	require.NoError(t, v.Close())

	_, err = local.Create(dir, passphrase, &local.Options{InsecureKDF: true, KDF: cheap})
	require.ErrorIs(t, err, local.ErrExists)
	require.ErrorContains(t, err, dir)

	other := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(other, "notes.txt"), nil, 0o600))
	_, err = local.Create(other, passphrase, &local.Options{InsecureKDF: true, KDF: cheap})
	require.ErrorIs(t, err, local.ErrExists)
	require.ErrorContains(t, err, "notes.txt")

	for says, o := range map[string]local.Options{
		"RetentionDays 6":            {RetentionDays: 6},
		"RetentionDays 91":           {RetentionDays: 91},
		"BackupSecret has 31 bytes":  {BackupSecret: make([]byte, 31)},
		`ID "local:12"`:              {ID: "local:12"},
		`ID "other:`:                 {ID: "other:" + strings.Repeat("0", 32)},
		"unknown passphrase KDF 9":   {KDF: local.KDF{Algorithm: 9}},
		"argon2id with 1 passes":     {KDF: local.KDF{Algorithm: local.Argon2id, Passes: 1, Memory: 7, Lanes: 1}},
		"PBKDF2 with 0 iterations":   {KDF: local.KDF{Algorithm: local.PBKDF2, Lanes: 1}},
		"over 4294967295 KiB":        {KDF: local.KDF{Algorithm: local.Argon2id, Passes: 1, Memory: 1<<32 - 1, Lanes: 1}},
		"PBKDF2 with 200000000 iter": {KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 200_000_000}},
	} {
		fresh := filepath.Join(t.TempDir(), "v")
		if o.KDF == (local.KDF{}) {
			o.KDF, o.InsecureKDF = cheap, true
		}
		_, err := local.Create(fresh, passphrase, &o)
		require.ErrorIs(t, err, local.ErrInvalid, says)
		require.ErrorContains(t, err, says)
		require.NoDirExists(t, fresh, "a refusal leaves nothing behind")
	}
	_, err = local.Create(filepath.Join(t.TempDir(), "v"), nil, &local.Options{InsecureKDF: true, KDF: cheap})
	require.ErrorIs(t, err, local.ErrInvalid)
}

func TestOpenRefuses(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(r.dir, "vault")
	good, err := os.ReadFile(file)
	require.NoError(t, err)

	_, err = local.Open(t.TempDir(), passphrase, insecure)
	require.ErrorIs(t, err, local.ErrNotVault)
	_, err = local.Open(filepath.Join(t.TempDir(), "missing"), passphrase, nil)
	require.ErrorIs(t, err, local.ErrNotVault)

	wrong := []byte("correct horse battery stable")
	_, err = local.Open(r.dir, wrong, insecure)
	require.ErrorIs(t, err, local.ErrWrongPassphrase)
	require.NotErrorIs(t, err, local.ErrCorrupt)
	require.NotContains(t, err.Error(), string(wrong))

	open := func(b []byte) error {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "vault"), b, 0o600))
		v, err := local.Open(dir, passphrase, insecure)
		if err == nil {
			require.NoError(t, v.Close())
		}
		return err
	}
	require.NoError(t, open(good))
	newer := append([]byte(nil), good...)
	binary.BigEndian.PutUint16(newer[8:], 3)
	require.ErrorIs(t, open(newer), local.ErrVersion)
	require.ErrorContains(t, open(newer), "format version 3, this release reads 2")
	require.ErrorIs(t, open([]byte("#!/bin/sh\n")), local.ErrCorrupt)
	require.ErrorIs(t, open(append(append([]byte(nil), good...), 0)), local.ErrCorrupt)
	require.ErrorIs(t, open(append(append([]byte(nil), good...), good...)), local.ErrCorrupt)

	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "vault"), 0o700))
	_, err = local.Open(dir, passphrase, insecure)
	require.Error(t, err)
}

// Reading takes no lock and writes nothing, so that a copy on a read-only medium
// serves. (Permissions do not bind root; the missing lock file shows it as well.)
func TestOpenWritesNothing(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	copied := t.TempDir()
	b, err := os.ReadFile(filepath.Join(r.dir, "vault"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(copied, "vault"), b, 0o400))
	require.NoError(t, os.Chmod(copied, 0o500))
	t.Cleanup(func() { require.NoError(t, os.Chmod(copied, 0o700)) })
	v, err := local.Open(copied, passphrase, insecure)
	require.NoError(t, err)
	r.unwraps(v, w, secret)
	require.NoError(t, v.Close())
	entries, err := os.ReadDir(copied)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

func TestCloseDestroysAndEndsAllHandles(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	require.NoError(t, r.Grant(t.Context(), "ingest", vault.OpGet))
	w, secret := r.wrap(r, id)
	v := r.another()
	as, admin := v.As("ingest"), v.Administer("operator")
	r.unwraps(v, w, secret)
	require.Equal(t, 1, local.Cached(v))
	require.NotEqual(t, make([]byte, 32), local.Master(v))

	require.NoError(t, v.Close())
	require.NoError(t, v.Close(), "a second Close does nothing")
	require.Zero(t, local.Cached(v))
	require.Equal(t, make([]byte, 32), local.Master(v))
	_, err := as.GetKey(t.Context(), id)
	require.ErrorIs(t, err, local.ErrClosed)
	require.False(t, vault.Denied(err), "closing a handle says nothing about the key")
	_, err = v.UnwrapKey(t.Context(), w)
	require.ErrorIs(t, err, local.ErrClosed)
	_, err = admin.CreateKey(t.Context(), "other", nil)
	require.ErrorIs(t, err, local.ErrClosed)
	require.ErrorIs(t, v.Grant(t.Context(), "ingest", vault.OpGet), local.ErrClosed)
	r.unwraps(r, w, secret)
}

// Private keys are in memory only while they may be used.
func TestPrivateKeysAreForgotten(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	no, yes := false, true
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	other := r.another()
	both := func(n int) {
		t.Helper()
		for _, v := range []*local.Vault{r.Vault, other} {
			_, err := v.GetKey(ctx, id) // whatever it answers, it looks
			require.True(t, err == nil || vault.Denied(err))
			require.Equal(t, n, local.Cached(v))
		}
	}
	both(0)
	r.unwraps(r, w, secret)
	r.unwraps(other, w, secret)
	both(1)
	_, err := r.UpdateKey(ctx, id, local.Update{Enabled: &no})
	require.NoError(t, err)
	both(0)
	_, err = r.UpdateKey(ctx, id, local.Update{Enabled: &yes})
	require.NoError(t, err)
	r.unwraps(r, w, secret)
	r.unwraps(other, w, secret)
	both(1)
	_, err = r.DeleteKey(ctx, "kek")
	require.NoError(t, err)
	both(0)
}

// An open vault whose file goes away or is damaged does not know anything about its
// keys: that is no denial. When the file is back, so is the vault.
func TestFileThatGoesAway(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	r.unwraps(r, w, secret)
	file := filepath.Join(r.dir, "vault")
	good, err := os.ReadFile(file)
	require.NoError(t, err)

	unknown := func(kind error) {
		t.Helper()
		_, err := r.UnwrapKey(t.Context(), w)
		require.ErrorIs(t, err, kind)
		require.True(t, vault.Transient(err), err)
		require.NotContains(t, err.Error(), hex.EncodeToString(local.Master(r.Vault)[:4]))
		require.ErrorIs(t, r.Grant(t.Context(), "ingest", vault.OpGet), kind, "nothing is written over what cannot be read")
	}
	require.NoError(t, os.Remove(file))
	unknown(os.ErrNotExist)
	require.NoFileExists(t, file)
	require.NoError(t, os.WriteFile(file, good[:len(good)-1], 0o600))
	unknown(local.ErrCorrupt)
	require.NoError(t, os.Remove(file))

	stranger := newRig(t)
	b, err := os.ReadFile(filepath.Join(stranger.dir, "vault"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, b, 0o600))
	unknown(local.ErrNotVault)
	require.NoError(t, os.Remove(file))

	require.NoError(t, os.WriteFile(file, good, 0o600))
	r.unwraps(r, w, secret)
}

// A handle notices when the file becomes older than what it has read. A vault that
// is opened afterwards cannot: see the package's documentation.
func TestRollbackUnderAnOpenHandle(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	file := filepath.Join(r.dir, "vault")
	old, err := os.ReadFile(file)
	require.NoError(t, err)
	no := false
	_, err = r.UpdateKey(t.Context(), id, local.Update{Enabled: &no})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file+".old", old, 0o600))
	require.NoError(t, os.Rename(file+".old", file))
	_, err = r.GetKey(t.Context(), id)
	require.ErrorIs(t, err, local.ErrRolledBack)
	require.True(t, vault.Transient(err))
	key, err := r.another().GetKey(t.Context(), id)
	require.NoError(t, err)
	require.True(t, key.Enabled, "to a new handle the old state is as good as any")
}

func TestContextEndsAWaitForTheLock(t *testing.T) {
	r := newRig(t)
	other := r.another()
	held, release := make(chan struct{}), make(chan struct{})
	local.SetHook(r.Vault, func(step string) error {
		if step == "locked" {
			close(held)
			<-release
		}
		return nil
	})
	done := make(chan error)
	go func() { done <- r.Grant(context.Background(), "a", vault.OpGet) }()
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() { waiting <- other.Grant(ctx, "b", vault.OpGet) }()
	cancel()
	err := <-waiting
	require.ErrorIs(t, err, context.Canceled)
	require.True(t, vault.Transient(err))

	impatient, err := local.Open(r.dir, passphrase, &local.Options{InsecureKDF: true, LockWait: -1})
	require.NoError(t, err)
	err = impatient.Grant(t.Context(), "b", vault.OpGet)
	require.ErrorIs(t, err, local.ErrLocked)
	require.ErrorContains(t, err, "lock")
	require.NoError(t, impatient.Close())
	_, err = other.Identities(t.Context())
	require.NoError(t, err, "reading does not wait")

	close(release)
	require.NoError(t, <-done)
}

// Close waits for what is under way; what comes later is refused, and nothing crashes.
func TestCloseWhileOthersWork(t *testing.T) {
	r := newRig(t)
	id := r.create("kek")
	w, secret := r.wrap(r, id)
	v := r.another()
	var wg sync.WaitGroup
	began := make(chan struct{}, 8)
	for i := range cap(began) {
		wg.Go(func() {
			for n := 0; ; n++ {
				var err error
				if i == 0 {
					err = v.Grant(context.Background(), fmt.Sprint("n", n), vault.OpGet)
				} else {
					var got []byte
					got, err = v.UnwrapKey(context.Background(), w)
					if err == nil && !bytes.Equal(got, secret) {
						t.Error("another secret than was wrapped")
					}
				}
				if n == 0 {
					began <- struct{}{}
				}
				if err != nil {
					if !errors.Is(err, local.ErrClosed) {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	for range cap(began) {
		<-began
	}
	require.NoError(t, v.Close())
	wg.Wait()
}

// However a handle, an error or the options' fields are printed, no secret shows.
func TestNothingSecretPrints(t *testing.T) {
	r := newRig(t)
	r.create("kek")
	master := local.Master(r.Vault)
	for _, what := range []any{r.Vault, *r.Vault, r.As("a"), *r.As("a"), r.Administrator, struct{ V any }{r.Vault}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			text := fmt.Sprintf(verb, what)
			require.NotContains(t, text, fmt.Sprint(master)[1:40], verb)
			require.NotContains(t, strings.ToLower(text), hex.EncodeToString(master[:8]), verb)
		}
	}
	o := local.Options{BackupSecret: bytes.Repeat([]byte{0xa7}, local.BackupSecretSize)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, what := range []any{o, &o, o.BackupSecret} {
			text := fmt.Sprintf(verb, what)
			require.Contains(t, text, "redacted", verb)
			require.NotContains(t, text, "167", verb)
			require.NotContains(t, strings.ToLower(text), "a7a7", verb)
		}
	}
	b, err := json.Marshal(map[string]any{"vault": r.Vault, "identity": r.As("a")})
	require.NoError(t, err)
	require.JSONEq(t, `{"vault": {}, "identity": {}}`, string(b))
}

func TestErrorsAreDistinct(t *testing.T) {
	all := []error{local.ErrExists, local.ErrNotVault, local.ErrWrongPassphrase, local.ErrCorrupt, local.ErrVersion, local.ErrLocked,
		local.ErrRolledBack, local.ErrClosed, local.ErrInvalid, local.ErrWeakKDF, local.ErrWrongPassword, local.ErrBackupSecret, local.ErrFIPS}
	for i, a := range all {
		require.NoError(t, vault.Kind(a))
		for j, b := range all {
			require.Equal(t, i == j, errors.Is(a, b))
		}
	}
}
