package local

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
)

var weak = KDF{Algorithm: PBKDF2, Passes: 1}

// changed is a vault with a key and something wrapped, and what its file was before its
// passphrase is changed from "old" to "new".
type changed struct {
	*Vault
	t       *testing.T
	opts    *Options
	files   *watched
	dir     string
	old     []byte
	wrapped vault.Wrapped
}

func newChanged(t *testing.T) *changed {
	t.Helper()
	c := &changed{t: t, files: &watched{}, dir: filepath.Join(t.TempDir(), "v")}
	pairs, err := testkeys.Pairs()
	require.NoError(t, err)
	var next atomic.Int64
	c.opts = &Options{InsecureKDF: true, KDF: weak, files: c.files, generate: func() (*rsa.PrivateKey, error) {
		return pairs[int(next.Add(1)-1)%len(pairs)], nil
	}}
	c.Vault, err = Create(c.dir, []byte("old"), c.opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	k, err := c.CreateKey(t.Context(), "kek", nil)
	require.NoError(t, err)
	c.wrapped, err = c.WrapKey(t.Context(), k.ID, []byte("a secret"))
	require.NoError(t, err)
	c.old = c.file()
	return c
}

func (c *changed) file() []byte {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, vaultName))
	require.NoError(c.t, err)
	return b
}

func (c *changed) opens(passphrase string) error {
	v, err := Open(c.dir, []byte(passphrase), c.opts)
	if err != nil {
		return err
	}
	c.unwraps(v)
	return v.Close()
}

func (c *changed) unwraps(v vault.Vault) {
	c.t.Helper()
	got, err := v.UnwrapKey(c.t.Context(), c.wrapped)
	require.NoError(c.t, err)
	require.Equal(c.t, "a secret", string(got))
}

// Whoever has the old passphrase, an old copy of the file and today's file opens nothing
// that was made since: not the body, no private key, not the backup secret.
func TestChangePassphraseEndsWhatTheOldOneOpens(t *testing.T) {
	c := newChanged(t)
	ctx := t.Context()
	require.NoError(t, c.ChangePassphrase(ctx, []byte("new"), weak))
	_, err := c.CreateKey(ctx, "made-after", nil)
	require.NoError(t, err)

	before, err := decodeHeader(c.old)
	require.NoError(t, err)
	old, err := before.openMaster([]byte("old"))
	require.NoError(t, err)
	now := c.file()
	after, err := decodeHeader(now)
	require.NoError(t, err)
	_, err = decodeBody(&after, old[:], now)
	require.ErrorIs(t, err, ErrCorrupt)
	st, err := c.core.current()
	require.NoError(t, err)
	for _, k := range st.Keys {
		_, err = openPrivate(old[:], c.core.id, k.Name, k.Versions[0])
		require.ErrorIs(t, err, ErrCorrupt, k.Name)
	}
	_, err = open(old[:], st.BackupSecret, backupSecretAAD(c.core.id))
	require.ErrorIs(t, err, errOpen)
	_, err = after.openMaster([]byte("old"))
	require.ErrorIs(t, err, ErrWrongPassphrase)

	// For who has the new one all is as it was.
	c.unwraps(c)
	require.ErrorIs(t, c.opens("old"), ErrWrongPassphrase)
	require.NoError(t, c.opens("new"))
	require.Len(t, c.core.masters, 1)
}

// The backup secret is what it was: an escrow of it stays good.
func TestChangePassphraseKeepsTheBackupSecret(t *testing.T) {
	c := newChanged(t)
	before, err := c.BackupSecret(t.Context())
	require.NoError(t, err)
	backup, err := c.BackupKey(t.Context(), "kek")
	require.NoError(t, err)
	require.NoError(t, c.ChangePassphrase(t.Context(), []byte("new"), weak))
	after, err := c.BackupSecret(t.Context())
	require.NoError(t, err)
	require.Equal(t, before, after)
	_, err = c.DeleteKey(t.Context(), "kek")
	require.NoError(t, err)
	require.NoError(t, c.PurgeKey(t.Context(), "kek"))
	_, err = c.RestoreKey(t.Context(), backup)
	require.NoError(t, err)
	c.unwraps(c)
}

// Another handle knows the old master key alone. It says so, is no danger to the new
// file, and goes on when it is given the new passphrase.
func TestUnlock(t *testing.T) {
	c := newChanged(t)
	ctx := t.Context()
	other, err := Open(c.dir, []byte("old"), c.opts)
	require.NoError(t, err)
	defer other.Close()
	c.unwraps(other)
	require.NoError(t, c.ChangePassphrase(ctx, []byte("new"), weak))
	now := c.file()

	_, err = other.UnwrapKey(ctx, c.wrapped)
	for _, err := range []error{err, other.Grant(ctx, "a", vault.OpGet), other.ChangePassphrase(ctx, []byte("third"), weak)} {
		require.ErrorIs(t, err, vault.ErrUnavailable)
		require.ErrorIs(t, err, ErrWrongPassphrase)
		require.ErrorContains(t, err, "the passphrase was changed since: call Unlock")
		require.True(t, vault.Transient(err), "the vault did not say no to the key")
	}
	require.Equal(t, now, c.file())

	require.ErrorIs(t, other.Unlock(ctx, []byte("old")), ErrWrongPassphrase)
	_, err = other.UnwrapKey(ctx, c.wrapped)
	require.ErrorIs(t, err, ErrWrongPassphrase)
	identity := other.As("ingest")
	require.NoError(t, other.Unlock(ctx, []byte("new")))
	c.unwraps(other)
	require.NoError(t, other.Grant(ctx, "ingest", vault.OpUnwrapKey))
	c.unwraps(identity)
	require.Len(t, other.core.masters, 1)
	require.NoError(t, other.Unlock(ctx, []byte("new")), "again does no harm")

	// An old file with an old passphrase is no way back for it either.
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, vaultName), c.old, 0o600))
	require.ErrorIs(t, other.Unlock(ctx, []byte("old")), ErrRolledBack)
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, vaultName), now, 0o600))
	require.NoError(t, other.Close())
	require.ErrorIs(t, other.Unlock(ctx, []byte("new")), ErrClosed)
}

// Whatever fails on the way, the file is the old one whole or the new one whole, and the
// handle goes on with it.
func TestChangePassphraseThatFails(t *testing.T) {
	broken := errors.New("i/o error")
	for _, step := range aChange() {
		t.Run(step, func(t *testing.T) {
			c := newChanged(t)
			c.files.fails = map[string]error{step: broken}
			err := c.ChangePassphrase(t.Context(), []byte("new"), weak)
			require.ErrorIs(t, err, broken)
			c.files.fails = nil
			made := step == "syncDir v"
			require.Equal(t, made, errors.Is(err, errUncertain))
			c.unwraps(c)
			require.Len(t, c.core.masters, 1, "the other one is destroyed")
			if made {
				require.NoError(t, c.opens("new"))
			} else {
				require.Equal(t, c.old, c.file())
				require.NoError(t, c.opens("old"))
			}
			require.NoError(t, c.ChangePassphrase(t.Context(), []byte("third"), weak))
			require.NoError(t, c.opens("third"))
		})
	}
}

// If what is on the disk cannot be read back, both master keys are kept, and the file is
// found under the one that it is under when it can be read again.
func TestChangePassphraseWhoseOutcomeIsUnknown(t *testing.T) {
	for _, made := range []bool{false, true} {
		c := newChanged(t)
		file := filepath.Join(c.dir, vaultName)
		stop := stepSyncDir
		if !made {
			stop = stepRename
		}
		c.core.dir.hook = func(s step) error {
			if s == stop {
				return os.Rename(file, file+".gone")
			}
			return nil
		}
		err := c.ChangePassphrase(t.Context(), []byte("new"), weak)
		c.core.dir.hook = nil
		if !made { // the old one, and the new one in its place
			require.NoError(t, err)
			require.NoError(t, os.Rename(file+".gone", file+".old"))
		} else {
			require.ErrorIs(t, err, os.ErrNotExist)
			require.Len(t, c.core.masters, 2)
			require.NoError(t, os.Rename(file+".gone", file))
		}
		c.unwraps(c)
		require.NoError(t, c.Grant(t.Context(), "ingest", vault.OpGet))
		require.NoError(t, c.opens("new"))
		require.NoError(t, c.ChangePassphrase(t.Context(), []byte("third"), weak))
		require.Len(t, c.core.masters, 1)
		require.NoError(t, c.opens("third"))
	}
}

// Other calls of the handle wait while everything is sealed anew, and lose nothing: a key
// that is being made is never left sealed under the master key that went.
func TestChangePassphraseWhileOthersWork(t *testing.T) {
	c := newChanged(t)
	ctx := context.Background()
	var wg sync.WaitGroup
	began, stop := make(chan struct{}, 3), make(chan struct{})
	work := func(do func(n int) error) {
		wg.Go(func() {
			for n := 0; ; n++ {
				if err := do(n); err != nil {
					t.Error(err)
					began <- struct{}{}
					return
				}
				if n == 0 {
					began <- struct{}{}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	key := c.core.opts.generate
	once := sync.OnceValues(key)
	c.core.opts.generate = once
	work(func(int) error { _, err := c.CreateKey(ctx, "kek", &KeyOptions{NewVersion: true}); return err })
	work(func(int) error {
		got, err := c.UnwrapKey(ctx, c.wrapped)
		if err == nil && !bytes.Equal(got, []byte("a secret")) {
			err = errors.New("another secret")
		}
		return err
	})
	work(func(int) error { _, err := c.BackupKey(ctx, "kek"); return err })
	for range cap(began) {
		<-began
	}
	for range 10 {
		require.NoError(t, c.ChangePassphrase(ctx, []byte("new"), weak))
	}
	close(stop)
	wg.Wait()
	st, err := c.core.current()
	require.NoError(t, err)
	require.NoError(t, st.proveSealed(c.core.master(), c.core.id))
	require.NoError(t, c.opens("new"))
}

// A change that would leave a private key sealed under another master key is not made.
func TestAChangeProvesWhatItSeals(t *testing.T) {
	c := newChanged(t)
	err := c.core.change(t.Context(), OpUpdate, vault.KeyID{}, DefaultLockWait, func(st *state, _ time.Time) error {
		v := st.Keys[0].Versions[0]
		v.Private[len(v.Private)-1] ^= 1
		return nil
	})
	require.ErrorIs(t, err, ErrCorrupt)
	require.Equal(t, c.old, c.file())
}

func TestChangePassphraseRefuses(t *testing.T) {
	c := newChanged(t)
	require.ErrorIs(t, c.ChangePassphrase(t.Context(), nil, KDF{}), ErrInvalid)
	require.ErrorIs(t, c.ChangePassphrase(t.Context(), []byte("new"), KDF{Algorithm: 9}), ErrInvalid)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, c.ChangePassphrase(ctx, []byte("new"), weak), context.Canceled)
	require.ErrorIs(t, c.Unlock(ctx, []byte("old")), context.Canceled)
	require.Equal(t, c.old, c.file())
	require.Len(t, c.core.masters, 1)
	c.unwraps(c)
}
