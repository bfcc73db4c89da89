package keyring_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// foreign counts calls of what is not the keyring's own code, and those of them that
// came from inside secret.Do; package secret says why there must be none.
type foreign struct {
	mu            sync.Mutex
	calls, inside int
}

func (f *foreign) called() {
	inside := secret.Inside()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if inside {
		f.inside++
	}
}

// Write makes it what a logger writes to.
func (f *foreign) Write(p []byte) (int, error) {
	f.called()
	return len(p), nil
}

type foreignStorage struct {
	keyring.Storage
	*foreign
}

func (s foreignStorage) Load(ctx context.Context) ([]byte, error) {
	s.called()
	return s.Storage.Load(ctx)
}

func (s foreignStorage) Save(ctx context.Context, document []byte) error {
	s.called()
	return s.Storage.Save(ctx, document)
}

// In an ordinary build secret.Inside is never true, and this only shows that all that
// is foreign is called; CI runs it in a build that erases, too.
func TestNothingForeignRunsInsideDo(t *testing.T) {
	g := newRig(t)
	f := new(foreign)
	g.opts.OnEvent = func(keyring.Event) { f.called() }
	g.opts.Logger = slog.New(slog.NewTextHandler(f, nil))
	g.vault.Inject(vaulttest.Fault{
		MutateKey:     func(*vault.Key) { f.called() },
		MutateWrapped: func(*vault.Wrapped) { f.called() },
	})
	s := foreignStorage{g.storage, f}
	ctx := t.Context()

	r, err := keyring.Create(ctx, s, g.kek, &g.opts)
	require.NoError(t, err)
	_, _, err = r.NewDEK(ctx, []byte("block"))
	require.NoError(t, err)
	require.NoError(t, r.Rotate(ctx))
	g.vault.Rotate("customer")
	require.NoError(t, r.RotateKEK(ctx))
	require.NoError(t, r.ChangeKEK(ctx, kek.New(g.vault, g.vault.CreateKey("another"))))
	g.vault.SetEnabled(vault.KeyID{Name: "another"}, false)
	require.Error(t, r.Revalidate(ctx))
	g.vault.SetEnabled(vault.KeyID{Name: "another"}, true)
	require.NoError(t, r.Revalidate(ctx))
	require.NoError(t, r.Close())

	r, err = keyring.Open(ctx, s, kek.New(g.vault, vault.KeyID{Name: "another"}), &g.opts)
	require.NoError(t, err)
	require.NoError(t, r.Close())

	f.mu.Lock()
	defer f.mu.Unlock()
	require.Greater(t, f.calls, 20)
	require.Zero(t, f.inside, "of %d calls", f.calls)
}
