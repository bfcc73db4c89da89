package local_test

import (
	"crypto/rand"
	"crypto/rsa"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

var passphrase = []byte("correct horse battery staple")

// cheap is a KDF for tests: what it is, without what it costs.
var cheap = local.KDF{Algorithm: local.PBKDF2, Passes: 10}

// insecure opens a vault with such a KDF.
var insecure = &local.Options{InsecureKDF: true}

// pool hands out RSA-2048 key pairs, one after the other and again from the start:
// making one takes up to a second.
type pool struct {
	mu   sync.Mutex
	next int
}

func (p *pool) generate() (*rsa.PrivateKey, error) {
	keys, err := testkeys.Pairs()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := keys[p.next%len(keys)]
	p.next++
	return k, nil
}

// rig is a vault on a clock that stands still.
type rig struct {
	*local.Vault
	t      testing.TB
	dir    string
	clock  *vaulttest.Clock
	keys   pool
	events []local.Event
	mu     sync.Mutex
}

var start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func newRig(t testing.TB) *rig { return newRigWith(t, local.Options{}) }

func newRigWith(t testing.TB, o local.Options) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "v"), clock: vaulttest.NewClock(start)}
	v, err := local.Create(r.dir, passphrase, r.options(o))
	require.NoError(t, err)
	r.Vault = v
	t.Cleanup(func() {
		require.NoError(t, r.Close())
		again, err := local.Open(r.dir, passphrase, insecure)
		require.NoError(t, err, "whatever a test did, the vault must open afterwards")
		require.NoError(t, again.Close())
	})
	return r
}

func (r *rig) options(o local.Options) *local.Options {
	o.Clock = r.clock
	o.KDF, o.InsecureKDF = cheap, true
	o.LockWait = time.Minute // others have the lock as long as the disk takes
	o.OnEvent = func(e local.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}
	return local.WithGenerate(o, r.keys.generate)
}

// another opens the vault again, as another process would.
func (r *rig) another() *local.Vault {
	r.t.Helper()
	v, err := local.Open(r.dir, passphrase, r.options(local.Options{}))
	require.NoError(r.t, err)
	r.t.Cleanup(func() { require.NoError(r.t, v.Close()) })
	return v
}

func (r *rig) takeEvents() []local.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.events
	r.events = nil
	return e
}

// maintain maintains the vault each day.
func (r *rig) maintain(days int) {
	r.t.Helper()
	for range days {
		r.clock.Advance(day)
		_, err := r.Maintain(r.t.Context())
		require.NoError(r.t, err)
	}
}

func (r *rig) create(name string) vault.KeyID {
	r.t.Helper()
	k, err := r.CreateKey(r.t.Context(), name, nil)
	require.NoError(r.t, err)
	return k.ID
}

func (r *rig) wrap(v vault.Vault, id vault.KeyID) (vault.Wrapped, []byte) {
	r.t.Helper()
	secret := make([]byte, 32)
	rand.Read(secret)
	w, err := v.WrapKey(r.t.Context(), id, secret)
	require.NoError(r.t, err)
	return w, secret
}

func (r *rig) unwraps(v vault.Vault, w vault.Wrapped, want []byte) {
	r.t.Helper()
	got, err := v.UnwrapKey(r.t.Context(), w)
	require.NoError(r.t, err)
	require.Equal(r.t, want, got)
}
