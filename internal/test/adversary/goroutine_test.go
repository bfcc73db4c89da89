package adversary

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/blockseal/blockseal/block"
	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/audit"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
)

// use does what starts goroutines: checks, work in the background, walks that read
// ahead and are left, batches and snapshots that nobody closes.
func use(t *testing.T, dir string, k *kek.KEK) {
	ctx := context.Background()
	s, err := block.Open(ctx, dir, k, &block.Options{Pebble: block.PebbleOptions{MemTable: 1 << 20, BlockCache: 1 << 20},
		Keyring: keyring.Options{CheckEvery: 5 * time.Millisecond, RekeyAfter: 24 * time.Hour, OnEvent: func(keyring.Event) {}}})
	require.NoError(t, err)
	for i := range 100 {
		require.NoError(t, s.Put(ctx, []byte(numbered("b", i)), make([]byte, 1000)))
	}
	for range s.Blocks(ctx, block.Range{}) {
		if s.Stats().Scanned > 30 {
			break
		}
	}
	s.Snapshot()
	require.NoError(t, s.NewBatch().Put(ctx, []byte("in a batch"), nil))
	require.NoError(t, s.RotateEpoch(ctx, func(block.Step) {}))
	require.NoError(t, s.RotateKEK(ctx))
	checked := s.Stats().Keys.Checks.OK
	require.Eventually(t, func() bool { return s.Stats().Keys.Checks.OK > checked+2 }, time.Minute, time.Millisecond)
	require.NoError(t, s.Close())
}

// ended waits until no goroutine is left. Those that end with what was closed may take
// longer than goleak waits.
func ended(t *testing.T, here goleak.Option) {
	t.Helper()
	err := goleak.Find(here)
	for last := time.Now().Add(time.Minute); err != nil && time.Now().Before(last); {
		err = goleak.Find(here)
	}
	require.NoError(t, err)
}

// What was closed leaves no goroutine behind: of a store on each kind of vault, of the
// vault, of the audit log.
func TestNoGoroutineOutlivesAStore(t *testing.T) {
	ctx := context.Background()
	here := goleak.IgnoreCurrent()
	t.Run("file vault, audited", func(t *testing.T) {
		dir := t.TempDir()
		v, err := local.Create(filepath.Join(dir, "vault"), []byte("passphrase"), &local.Options{InsecureKDF: true, KDF: local.KDF{Algorithm: local.PBKDF2, Passes: 1000}})
		require.NoError(t, err)
		_, err = v.CreateKey(ctx, "customer", nil)
		require.NoError(t, err)
		log, err := audit.OpenDir(filepath.Join(dir, "audit"), nil)
		require.NoError(t, err)
		use(t, filepath.Join(dir, "store"), kek.New(audit.New(v, log, nil), vault.KeyID{Name: "customer"}))
		require.NoError(t, log.Close())
		require.NoError(t, v.Close())
		ended(t, here)
	})
	t.Run("Azure's client", func(t *testing.T) {
		server, err := keyvaulttest.New(nil)
		require.NoError(t, err)
		_, err = server.AddIdentity("store", local.DataPlane()...)
		require.NoError(t, err)
		_, err = server.Vault().CreateKey(ctx, "customer", nil)
		require.NoError(t, err)
		o := &azure.Options{}
		o.ClientOptions.Transport, o.ClientOptions.DisableChallengeResourceVerification = server.Client(), true
		v, err := azure.New(server.URL(), server.Credential("store"), o)
		require.NoError(t, err)
		use(t, filepath.Join(t.TempDir(), "store"), kek.New(v, vault.KeyID{Vault: v.URL(), Name: "customer"}))
		require.NoError(t, server.Close())
		ended(t, here)
	})
}
