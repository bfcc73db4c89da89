package azure_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/keyvaulttest"
	"github.com/blockseal/blockseal/internal/test/bubbles"
	"github.com/blockseal/blockseal/internal/test/testkeys"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/azure"
	"github.com/blockseal/blockseal/vault/local"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// Everything in these tests goes through the real azkeys client to a server on
// loopback (or, in a bubble of synctest, on a pipe) that speaks Key Vault's REST.

// rig is a server with one key and one identity that may use it.
type rig struct {
	*keyvaulttest.Server
	t       testing.TB
	key     vault.KeyID   // with its version
	next    int           // of testkeys.Pairs
	timeout time.Duration // of clients; 0 is the default
}

const store = "store" // the identity that a store calls with

// template is the directory's content of a vault with the key that each rig begins with:
// that its factors are prime takes longer to find out than most tests.
var template = sync.OnceValues(func() (files fs.FS, err error) {
	dir, err := os.MkdirTemp("", "keyvault-template")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := keyvaulttest.New(&keyvaulttest.Options{Dir: dir, InMemory: true, Clock: vaulttest.NewClock(longAgo)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	keys, err := testkeys.Pairs()
	if err != nil {
		return nil, err
	}
	if _, err := s.Vault().ImportKey(context.Background(), "kek", keys[0], nil); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	kept := fstest.MapFS{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		kept[e.Name()] = &fstest.MapFile{Data: b, Mode: 0o600}
	}
	return kept, nil
})

// longAgo is before the clock of any test.
var longAgo = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func newRig(t testing.TB, o *keyvaulttest.Options) *rig {
	t.Helper()
	if o == nil {
		o = &keyvaulttest.Options{}
	}
	own := *o
	if !o.PurgeProtection && o.RetentionDays == 0 { // properties of a vault that is made
		own.Dir = filepath.Join(t.TempDir(), "vault")
		files, err := template()
		require.NoError(t, err)
		require.NoError(t, os.CopyFS(own.Dir, files))
	}
	s, err := keyvaulttest.New(&own)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	r := &rig{Server: s, t: t}
	if !o.InMemory {
		r.timeout = time.Minute // by the system's clock, on a machine that has more to do
	}
	_, err = s.AddIdentity(store, local.DataPlane()...)
	require.NoError(t, err)
	if own.Dir == "" {
		r.key = r.newVersion("kek")
		return r
	}
	k, err := s.Vault().GetKey(t.Context(), vault.KeyID{Name: "kek"})
	require.NoError(t, err)
	r.key, r.next = r.id(k.ID), 1
	return r
}

// newVersion imports a key pair as a new version.
func (r *rig) newVersion(name string) vault.KeyID {
	r.t.Helper()
	keys, err := testkeys.Pairs()
	require.NoError(r.t, err)
	_, missing := r.Vault().Versions(r.t.Context(), name)
	k, err := r.Vault().ImportKey(r.t.Context(), name, keys[r.next], &local.KeyOptions{NewVersion: missing == nil})
	r.next++
	require.NoError(r.t, err)
	return r.id(k.ID)
}

// id returns a key's id as the server's client knows it.
func (r *rig) id(id vault.KeyID) vault.KeyID {
	id.Vault = r.URL()
	return id
}

func (r *rig) local(id vault.KeyID) vault.KeyID {
	id.Vault = r.Server.Vault().ID()
	return id
}

// options returns options for a client of the server.
func (r *rig) options(change ...func(*azure.Options)) *azure.Options {
	o := &azure.Options{Budget: 1_000_000, Timeout: r.timeout} // what bounds the rate has tests of its own
	o.ClientOptions.Transport = r.Client()
	o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: -1}
	o.ClientOptions.DisableChallengeResourceVerification = true
	for _, f := range change {
		f(o)
	}
	return o
}

// client returns a Vault of the store's identity.
func (r *rig) client(change ...func(*azure.Options)) *azure.Vault {
	r.t.Helper()
	v, err := azure.New(r.URL(), r.Credential(store), r.options(change...))
	require.NoError(r.t, err)
	return v
}

// retries makes a client retry quickly.
func retries(o *azure.Options) {
	o.ClientOptions.Retry = policy.RetryOptions{MaxRetries: 3, RetryDelay: time.Millisecond, MaxRetryDelay: time.Minute}
}

// hurried is the system's clock, on which the pauses before a client asks again are over at
// once. No time that a client has for a call is as short.
type hurried struct{ vault.Clock }

func (c hurried) AfterFunc(d time.Duration, f func()) func() bool {
	if d < 2*time.Second {
		d = 0
	}
	return c.Clock.AfterFunc(d, f)
}

// atOnce makes a client ask again at once.
func atOnce(o *azure.Options) { o.Clock = hurried{vault.SystemClock()} }

func (r *rig) update(id vault.KeyID, u local.Update) {
	r.t.Helper()
	_, err := r.Server.Vault().UpdateKey(r.t.Context(), r.local(id), u)
	require.NoError(r.t, err)
}

func (r *rig) setEnabled(enabled bool) { r.update(r.key, local.Update{Enabled: &enabled}) }

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// bubble runs a test in a bubble, where time stands still
// until nothing else is left to do, with a server without a network. A store in it is
// given vault.SystemClock: the keyring's own clock asks the system how long the machine
// was suspended, and takes a minute of a bubble that needed two for a minute's sleep.
func bubble(t *testing.T, o keyvaulttest.Options, f func(t *testing.T, r *rig)) {
	t.Helper()
	bubbles.Test(t, func(t *testing.T) {
		o.InMemory = true
		f(t, newRig(t, &o))
	})
}
