package keyring_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/blockseal/blockseal/internal/secret"
	"github.com/blockseal/blockseal/kek"
	"github.com/blockseal/blockseal/keyring"
	"github.com/blockseal/blockseal/vault"
	"github.com/blockseal/blockseal/vault/vaulttest"
)

// foreign counts calls of what is not the keyring's own code, by what was called, and
// those that came from inside secret.Do; package secret says why there must be none.
type foreign struct {
	mu     sync.Mutex
	calls  map[string]int
	inside []string
}

func (f *foreign) called(what string) {
	inside := secret.Inside()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[what]++
	if inside {
		f.inside = append(f.inside, what)
	}
}

// Write makes it what a logger writes to.
func (f *foreign) Write(p []byte) (int, error) {
	f.called("log")
	return len(p), nil
}

type foreignStorage struct {
	keyring.Storage
	*foreign
}

func (s foreignStorage) Load(ctx context.Context) ([]byte, keyring.Revision, error) {
	s.called("load")
	return s.Storage.Load(ctx)
}

func (s foreignStorage) Swap(ctx context.Context, was keyring.Revision, document []byte) (keyring.Revision, error) {
	s.called("save")
	return s.Storage.Swap(ctx, was, document)
}

// In an ordinary build secret.Inside is never true, and this only shows that all that
// is foreign is called; CI runs it in a build that erases, too.
func TestNothingForeignRunsInsideDo(t *testing.T) {
	bubble(t, func(t *testing.T, g *rig) {
		f := &foreign{calls: map[string]int{}}
		g.opts.OnEvent = func(keyring.Event) { f.called("event") }
		g.opts.Logger = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
		g.vault.Inject(vaulttest.Fault{
			MutateKey:     func(*vault.Key) { f.called("key") },
			MutateWrapped: func(*vault.Wrapped) { f.called("wrapped") },
		})
		s := foreignStorage{g.storage, f}
		ctx := t.Context()

		r, err := keyring.Create(ctx, s, g.kek, &g.opts)
		require.NoError(t, err)
		_, _, err = r.NewDEK(ctx, []byte("block"))
		require.NoError(t, err)
		require.NoError(t, r.BeginEpoch(ctx))
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

		synctest.Wait() // until what waits for the log and OnEvent is handed over
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, what := range []string{"load", "save", "key", "wrapped", "event"} {
			require.NotZero(t, f.calls[what], what)
		}
		require.Equal(t, f.calls["event"], f.calls["log"], "each event is logged")
		require.Empty(t, f.inside)
	})
}
